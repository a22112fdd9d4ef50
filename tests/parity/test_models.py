"""Same config, same weights → the same output and the same gradients as diffusers, small and in float64."""

import pytest
import torch

from minicc.models.controlnet import ControlNet
from minicc.models.unet import UNet, UNetConfig
from minicc.models.vae import VAE, VAEConfig
from tests.parity.reference import (
    SD1,
    SD2,
    SMALL,
    assert_same_gradients,
    gradients,
    largest_relative,
    randomize,
    reference_of,
    unet_inputs,
)

small = pytest.mark.parametrize("config", SMALL.values(), ids=SMALL.keys())
TINY_VAE = VAEConfig(block_out_channels=(16, 32, 32), norm_num_groups=8)


@small
@pytest.mark.parametrize("size", [8, 6, 5])
def test_the_unet_predicts_what_diffusers_does_at_any_size(config, size):
    ours = randomize(UNet(config).double())
    theirs = reference_of(ours)
    i = unet_inputs(config, size)
    eps = theirs(i["x"], i["t"], i["context"]).sample
    assert largest_relative(ours(**i), eps) < 1e-8


@small
def test_the_unet_has_the_gradients_that_diffusers_has(config):
    ours = randomize(UNet(config).double())
    theirs = reference_of(ours)
    i = unet_inputs(config)
    mine = gradients(ours(**i).square().mean(), ours)
    reference = gradients(theirs(i["x"], i["t"], i["context"]).sample.square().mean(), theirs)
    assert_same_gradients(mine, reference, 1e-8)


def test_recomputing_activations_changes_no_gradient():
    unet = randomize(UNet(SD1).double())
    i = unet_inputs(SD1)
    plain = gradients(unet(**i).square().mean(), unet)
    unet.recompute = True
    assert_same_gradients(gradients(unet(**i).square().mean(), unet), plain, 1e-14)


@pytest.mark.parametrize("config", [SD1, SD2], ids=["SD 1.x", "SD 2.x"])
def test_the_controlnet_and_the_controlled_unet_equal_diffusers(config):
    unet = randomize(UNet(config).double())
    control = randomize(ControlNet.from_unet(unet, hint_channels=(4, 8, 8, 12)), seed=2)
    i = unet_inputs(config)
    hint = torch.rand(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    skips, middle = reference_of(control)(i["x"], i["t"], i["context"], hint, return_dict=False)
    c = control(**i, hint=hint)
    assert max(largest_relative(a, b) for a, b in zip(c.skips, skips, strict=True)) < 1e-8
    assert largest_relative(c.middle, middle) < 1e-8
    eps = reference_of(unet)(
        i["x"], i["t"], i["context"], down_block_additional_residuals=skips, mid_block_additional_residual=middle
    ).sample
    assert largest_relative(unet(**i, control=c), eps) < 1e-8


@pytest.mark.parametrize("config", [SD1, SD2], ids=["SD 1.x", "SD 2.x"])
def test_the_controlnet_has_the_gradients_that_diffusers_has(config):
    control = randomize(ControlNet.from_unet(randomize(UNet(config).double()), hint_channels=(4, 8, 8, 12)), seed=2)
    i = unet_inputs(config)
    hint = torch.rand(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    theirs = reference_of(control)
    c = control(**i, hint=hint)
    mine = gradients(sum(r.square().mean() for r in (*c.skips, c.middle)), control)
    skips, middle = theirs(i["x"], i["t"], i["context"], hint, return_dict=False)
    reference = gradients(sum(r.square().mean() for r in (*skips, middle)), theirs)
    assert_same_gradients(mine, reference, 1e-8)


def test_the_vae_encodes_and_decodes_as_diffusers_does():
    ours = randomize(VAE(TINY_VAE).double())
    theirs = reference_of(ours)
    x = torch.rand(2, 3, 24, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    q, reference = ours.encode(x), theirs.encode(x).latent_dist
    assert largest_relative(q.mean, reference.mean) < 1e-8
    assert largest_relative(q.logvar, reference.logvar) < 1e-8
    torch.testing.assert_close(q.kl(), reference.kl())
    assert largest_relative(ours.decode(q.mean), theirs.decode(q.mean).sample) < 1e-8


def test_the_vae_has_the_gradients_that_diffusers_has():
    ours = randomize(VAE(TINY_VAE).double())
    theirs = reference_of(ours)
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    q, reference = ours.encode(x), theirs.encode(x).latent_dist
    mine = gradients((ours.decode(q.mean) - x).square().mean() + q.kl().mean(), ours)
    other = gradients((theirs.decode(reference.mean).sample - x).square().mean() + reference.kl().mean(), theirs)
    assert_same_gradients(mine, other, 1e-8)


def test_configs_survive_the_way_through_diffusers():
    for config in SMALL.values():
        theirs = reference_of(UNet(config))
        assert UNetConfig.from_config(dict(theirs.config)) == config
    assert VAEConfig.from_config(dict(reference_of(VAE(TINY_VAE)).config)) == TINY_VAE
