"""The official sizes in float32 against diffusers, forward and gradients; prints the figures that the README reports.

Minutes and about 14 GB: `pytest -m slow -s tests/parity/test_full_size.py`. Random weights, shared by both models.
"""

import resource
import time

import pytest
import torch

from minicc.models.controlnet import ControlNet
from minicc.models.unet import UNet, UNetConfig
from minicc.models.vae import VAE
from tests.parity.reference import assert_same_gradients, gradients, largest_relative, reference_of, unet_inputs

pytestmark = pytest.mark.slow
SD15 = UNetConfig()
SD21 = UNetConfig(cross_attention_dim=1024, heads=None, use_linear_projection=True)
full_size = pytest.mark.parametrize("config", [SD15, SD21], ids=["SD 1.5", "SD 2.1"])


def report(name: str, forward: float, gradient: float, seconds: list[float]) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    times = ", ".join(f"{s:.1f}" for s in seconds)
    print(f"\n{name}: forward {forward:.1e}, gradient {gradient:.1e}; ours/diffusers {times} s; peak {peak:.1f} GB")


def timed(f):
    start = time.perf_counter()
    return f(), time.perf_counter() - start


def loss_and_gradients(model, predict):
    out = predict()
    return out.detach(), gradients(out.square().mean(), model)


@full_size
def test_the_full_size_unet_equals_diffusers_forward_and_backward(config, request):
    torch.manual_seed(0)  # the reference's own initialisation reads no generator
    ours = UNet(config)
    theirs = reference_of(ours, share=True)
    i = unet_inputs(config, size=64, dtype=torch.float32, batch=1)
    (a, mine), s = timed(lambda: loss_and_gradients(ours, lambda: ours(**i)))
    (b, reference), r = timed(lambda: loss_and_gradients(theirs, lambda: theirs(i["x"], i["t"], i["context"]).sample))
    forward = largest_relative(a, b)
    gradient = assert_same_gradients(mine, reference, 1e-4)
    report(f"U-Net {request.node.callspec.id}, 64×64 latents, forward and backward", forward, gradient, [s, r])
    assert forward < 1e-4


@full_size
def test_the_full_size_controlnet_equals_diffusers_forward_and_backward(config, request):
    torch.manual_seed(0)
    ours = ControlNet(config)
    with torch.no_grad():
        for p in [*ours.controlnet_down_blocks.parameters(), *ours.controlnet_mid_block.parameters()]:
            p.normal_(std=0.02)
        ours.controlnet_cond_embedding.conv_out.weight.normal_(std=0.02)
    theirs = reference_of(ours, share=True)
    i = unet_inputs(config, size=64, dtype=torch.float32, batch=1)
    hint = torch.rand(1, 3, 512, 512)

    def mine():
        c = ours(**i, hint=hint)
        return torch.cat([r.flatten() for r in (*c.skips, c.middle)])

    def reference():
        skips, middle = theirs(i["x"], i["t"], i["context"], hint, return_dict=False)
        return torch.cat([r.flatten() for r in (*skips, middle)])

    (a, da), s = timed(lambda: loss_and_gradients(ours, mine))
    (b, db), r = timed(lambda: loss_and_gradients(theirs, reference))
    gradient = assert_same_gradients(da, db, 1e-4)
    forward = largest_relative(a, b)
    report(f"ControlNet {request.node.callspec.id}, forward and backward", forward, gradient, [s, r])
    assert forward < 1e-4


def test_the_full_size_vae_equals_diffusers_forward_and_backward():
    torch.manual_seed(0)
    ours = VAE()
    theirs = reference_of(ours, share=True)
    x = torch.rand(1, 3, 256, 256) * 2 - 1
    (a, da), s = timed(lambda: loss_and_gradients(ours, lambda: ours.decode(ours.encode(x).mean)))
    (b, db), r = timed(
        lambda: loss_and_gradients(theirs, lambda: theirs.decode(theirs.encode(x).latent_dist.mean).sample)
    )
    gradient = assert_same_gradients(da, db, 1e-4)
    forward = largest_relative(a, b)
    report("VAE, 256×256 there and back, forward and backward", forward, gradient, [s, r])
    assert forward < 1e-4
