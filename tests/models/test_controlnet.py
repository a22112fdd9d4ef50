"""The trainable copy as it is made, and what can be done with what it returns: add, scale, guess, the middle alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from minicc.errors import Error
from minicc.models.controlnet import Control, ControlNet
from minicc.models.unet import UNet
from minicc.models.zero_conv import zero_conv
from tests.parity.reference import SD1, SD2, randomize, unet_inputs

HINT = (4, 8, 8, 12)


@pytest.fixture(params=[SD1, SD2], ids=["SD 1.x", "SD 2.x"])
def unet(request) -> UNet:
    return randomize(UNet(request.param).double())


def inputs(unet: UNet) -> tuple[dict[str, Tensor], Tensor]:
    """x, t and context; and a hint."""
    hint = torch.rand(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return unet_inputs(unet.config), hint


def grown(unet: UNet, seed: int) -> ControlNet:
    """A ControlNet that has learned something."""
    return randomize(ControlNet.from_unet(unet, hint_channels=HINT), seed)


def residuals(control: Control) -> tuple[Tensor, ...]:
    return (*control.skips, control.middle)


def test_stable_diffusion_has_twelve_zero_convolutions_and_one_in_the_middle():
    with torch.device("meta"):
        control = ControlNet()
    assert len(control.controlnet_down_blocks) == 12
    widths = [320, 320, 320, 320, 640, 640, 640, 1280, 1280, 1280, 1280, 1280, 1280]
    zeros = [*control.controlnet_down_blocks, control.controlnet_mid_block]
    assert [tuple(z.weight.shape) for z in zeros] == [(width, width, 1, 1) for width in widths]


def test_the_copy_has_the_weights_of_the_locked_encoder_in_memory_of_its_own(unet):
    control, encoder = ControlNet.from_unet(unet, hint_channels=HINT), unet.state_dict()
    copied = {key for key in control.state_dict() if not key.startswith("controlnet_")}
    assert {key for key in encoder if key.startswith(("conv_in", "time_emb", "down_blocks", "mid_block"))} == copied
    for key in copied:
        assert torch.equal(control.state_dict()[key], encoder[key]), key
        assert control.state_dict()[key].data_ptr() != encoder[key].data_ptr(), key


def test_everything_that_leaves_a_fresh_copy_passes_a_zero_convolution_and_so_does_the_hint(unet):
    """The last convolution of the hint encoder is zero as well, and no other layer is."""
    control = ControlNet.from_unet(unet, hint_channels=HINT)
    i, hint = inputs(unet)
    assert all(torch.equal(r, torch.zeros_like(r)) for r in residuals(control(**i, hint=hint)))
    assert control.controlnet_cond_embedding(hint).count_nonzero() == 0
    silent = {name.rpartition(".")[0] for name, p in control.named_parameters() if p.count_nonzero() == 0}
    zeros = {f"controlnet_down_blocks.{n}" for n in range(len(control.controlnet_down_blocks))}
    assert silent == zeros | {"controlnet_mid_block", "controlnet_cond_embedding.conv_out"}


@pytest.mark.parametrize(("channels", "stride"), [((16, 32, 96, 256), 8), ((8, 16), 2)])
def test_a_hint_of_another_size_is_refused(channels, stride):
    with torch.device("meta"):
        control = ControlNet(SD1, channels)
        x, t, context = torch.empty(1, 4, 8, 6), torch.empty(1), torch.empty(1, 77, 24)
        assert len(control(x, t, context, torch.empty(1, 3, 8 * stride, 6 * stride)).skips) == 9
        with pytest.raises(Error, match=rf"hint is \(64, 64\) pixels, expected \({8 * stride}, {6 * stride}\)"):
            control(x, t, context, torch.empty(1, 3, 64, 64))


def test_a_zero_convolution_of_a_larger_kernel_keeps_the_size(generator):
    out = zero_conv(3, 5, kernel_size=3)(torch.randn(1, 3, 6, 4, generator=generator))
    assert torch.equal(out, torch.zeros(1, 5, 6, 4))


# ── controls add, scale, and act in part ──────────────────────────────────────────────────────────────────────────


def test_controls_add_and_scale_as_their_residuals_do(unet):
    i, hint = inputs(unet)
    a, b = grown(unet, 4)(**i, hint=hint), grown(unet, 5)(**i, hint=1 - hint)
    for r, x, y in zip(*map(residuals, (a + 0.5 * b, a, b)), strict=True):
        assert torch.equal(r, x + 0.5 * y)


def test_two_controlnets_at_once_equal_their_sum_by_hand(unet):
    i, hint = inputs(unet)
    a, b = grown(unet, 4)(**i, hint=hint), grown(unet, 5)(**i, hint=1 - hint)
    summed = Control(tuple(x + y for x, y in zip(a.skips, b.skips, strict=True)), a.middle + b.middle)
    assert torch.equal(unet(**i, control=a + b), unet(**i, control=summed))
    assert not torch.allclose(unet(**i, control=a + b), unet(**i, control=a))


def test_each_residual_can_have_a_strength_of_its_own(unet):
    i, hint = inputs(unet)
    c = grown(unet, 4)(**i, hint=hint)
    strengths = [0.1 * n for n in range(len(c.skips) + 1)]
    for r, x, s in zip(residuals(c * strengths), residuals(c), strengths, strict=True):
        assert torch.equal(r, s * x)


def test_with_only_mid_control_the_skips_are_the_locked_ones(unet):
    i, hint = inputs(unet)
    c = grown(unet, 4)(**i, hint=hint)
    assert torch.equal(c.only_mid().middle, c.middle)
    temb = unet.embed_time(i["t"])
    h, skips = unet.encode(i["x"], temb, i["context"])
    assert torch.equal(unet(**i, control=c.only_mid()), unet.decode(h + c.middle, skips, temb, i["context"]))


def test_guess_mode_has_the_official_strengths():
    """0.825^(12−i) for residual i of Stable Diffusion's 13: the middle is residual 12, at full strength."""
    ones = Control(tuple(torch.ones(1, 1, 1, 1) for _ in range(12)), torch.ones(1, 1, 1, 1))
    strengths = [r.item() for r in residuals(ones.guess())]
    assert strengths == pytest.approx([0.825 ** (12 - i) for i in range(13)])
    assert strengths[-1] == 1


def test_strengths_of_the_wrong_number_and_controls_of_other_depths_are_refused():
    ten, four = (Control((torch.ones(1),) * n, torch.ones(1)) for n in (9, 3))
    with pytest.raises(Error, match="3 strengths for 10 residuals"):
        ten * [1.0, 2.0, 3.0]
    with pytest.raises(Error, match="controls of 9 and 3 skips do not add"):
        ten + four


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (replace(SD1, block_out_channels=(32, 64)), "its block_out_channels"),
        (replace(SD1, layers_per_block=1), "its layers_per_block is 2, the U-Net's is 1"),
        (replace(SD1, cross_attention_dim=40), "its cross_attention_dim is 24, the U-Net's is 40"),
    ],
)
def test_a_controlnet_of_another_base_is_refused(other, says):
    with torch.device("meta"):
        control, fitting = ControlNet(SD1), UNet(SD1)
        control.check_fits(fitting)
        with pytest.raises(Error, match=f"made for another base: {says}"):
            control.check_fits(UNet(other))
