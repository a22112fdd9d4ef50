"""The variants that the ControlNet paper compares: they fit the same sampler, and differ as they should."""

import pytest
import torch

from minicc.models.ablations import LiteControlNet, gaussian_controlnet
from minicc.models.controlnet import ControlNet
from minicc.models.unet import UNet, UNetConfig
from minicc.pipeline import Hinted


@pytest.fixture
def inputs(sd, generator):
    x, hint = torch.randn(2, 4, 8, 8, generator=generator), torch.rand(2, 3, 64, 64, generator=generator)
    return x, torch.tensor([500, 20]), sd.encode_text(["a red dress", "a hat"]), hint


def makers():
    return {
        "zero": ControlNet.from_unet,
        "gaussian": lambda unet, **kwargs: gaussian_controlnet(unet, torch.Generator().manual_seed(0), **kwargs),
        "lite": LiteControlNet.from_unet,
    }


@pytest.mark.parametrize("name", makers())
@pytest.mark.parametrize("layers", [1, 2])
def test_every_variant_returns_residuals_of_the_skips_shapes(name, layers, generator):
    config = UNetConfig(block_out_channels=(32, 64, 96), layers_per_block=layers, cross_attention_dim=64)
    unet = UNet(config)
    x, hint = torch.randn(1, 4, 12, 8, generator=generator), torch.rand(1, 3, 96, 64, generator=generator)
    t, context = torch.tensor([7]), torch.randn(1, 77, 64, generator=generator)
    with torch.no_grad():
        middle, skips = unet.encode(x, unet.embed_time(t), context)
        control = makers()[name](unet)(x, t, context, hint)
    assert [r.shape for r in control.skips] == [s.shape for s in skips]
    assert control.middle.shape == middle.shape


@pytest.mark.parametrize("name", makers())
def test_every_variant_takes_the_hint_encoder_s_channels(sd, name):
    """As many levels as the VAE halves the picture; a VAE of stride 4 has one less."""
    control = makers()[name](sd.unet, hint_channels=(8, 16, 24))
    with torch.no_grad():
        assert control.controlnet_cond_embedding(torch.rand(1, 3, 32, 32)).shape == (1, 32, 8, 8)
    assert control.to_config()["conditioning_embedding_out_channels"] == [8, 16, 24]


@pytest.mark.parametrize("name", makers())
def test_only_gaussian_convolutions_disturb_the_locked_model_before_the_first_step(sd, inputs, name):
    control, (x, t, context, hint) = makers()[name](sd.unet), inputs
    with torch.no_grad():
        before, after = sd.unet(x, t, context), sd.unet(x, t, context, control(x, t, context, hint))
    assert torch.equal(before, after) == (name != "gaussian")


def test_gaussian_weights_have_unit_gain_and_everything_else_is_the_copy(sd):
    control, plain = makers()["gaussian"](sd.unet), ControlNet.from_unet(sd.unet)
    for conv in [*control.controlnet_down_blocks, control.controlnet_mid_block]:
        assert conv.weight.std().item() * conv.in_channels**0.5 == pytest.approx(1, abs=0.15)
        assert not conv.bias.any()
    same = [k for k, v in plain.state_dict().items() if torch.equal(v, control.state_dict()[k])]
    assert not {k for k in plain.state_dict() if k not in same and not k.startswith("controlnet_")}


def test_lite_is_far_smaller_and_learns_through_its_zero_convolutions(sd, inputs):
    lite, full, (x, t, context, hint) = LiteControlNet.from_unet(sd.unet), ControlNet.from_unet(sd.unet), inputs
    assert sum(p.numel() for p in lite.convs.parameters()) < 0.5 * sum(p.numel() for p in full.down_blocks.parameters())
    sd.unet(x, t, context, lite(x, t, context, hint)).square().mean().backward()
    assert all(conv.weight.grad.abs().max() > 0 for conv in lite.controlnet_down_blocks)


@pytest.mark.parametrize("name", makers())
def test_every_variant_runs_in_the_guided_sampler(sd, inputs, name):
    x, t, context, hint = inputs
    with torch.no_grad():
        model = sd.guided(context, sd.encode_text(["", ""]), 3.0, controls=[Hinted.of(makers()[name](sd.unet), hint)])
        assert model(x, t).isfinite().all()
