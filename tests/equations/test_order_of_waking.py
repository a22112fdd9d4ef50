"""Two zero convolutions in a row: does anything learn? Yes, in order, one layer of zeros a step.

Step 0: only the output zero convolutions have a gradient. Step 1: also the trainable copy and the hint's zero
convolution. Step 2: also the hint layers below it. On the toy and on the real wiring of the U-Net.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

from minicc.models.controlnet import ControlNet, trainable
from minicc.models.unet import UNet
from minicc.models.zero_conv import ControlledBlock, sgd_step
from minicc.training.ema import EMA
from tests.parity.reference import SD1, SD2, randomize, unet_inputs


def awake(module: nn.Module, loss: Tensor) -> set[str]:
    """Names of the parameters whose gradient is not zero."""
    names, parameters = zip(*((n, p) for n, p in module.named_parameters() if p.requires_grad), strict=True)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return {n for n, g in zip(names, gradients, strict=True) if g is not None and g.abs().max() > 0}


def of(names: set[str], *prefixes: str) -> set[str]:
    return {n for n in names if n.startswith(prefixes)}


def test_the_toy_wakes_from_the_output_inwards(generator):
    F = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 4, 1))
    toy = ControlledBlock(randomize(F), condition_channels=2, in_channels=3, out_channels=4).double()
    hint_layer = randomize(nn.Conv2d(2, 2, 3, padding=1)).double()
    x, c = (torch.randn(1, n, 4, 4, dtype=torch.float64, generator=generator) for n in (3, 2))
    target = torch.randn(1, 4, 4, 4, dtype=torch.float64, generator=generator)
    both = nn.ModuleDict({"hint": hint_layer, "toy": toy})
    expected = [
        {"toy.zero_out.weight", "toy.zero_out.bias"},
        {"toy.zero_out.weight", "toy.zero_out.bias", "toy.zero_in.weight", "toy.zero_in.bias"}
        | {f"toy.copy.{n}" for n, _ in F.named_parameters()},
    ]
    expected.append(expected[1] | {"hint.weight", "hint.bias"})
    for step, names in enumerate(expected):
        loss = (toy(x, hint_layer(c)) - target).square().mean()
        assert awake(both, loss) == names, f"step {step}"
        sgd_step(loss, [p for p in both.parameters() if p.requires_grad], lr=0.1)


@pytest.fixture(params=[SD1, SD2], ids=["SD 1.x", "SD 2.x"])
def wired(request) -> tuple[UNet, ControlNet, dict[str, Tensor], Tensor]:
    """A locked U-Net, its fresh ControlNet, inputs and a hint."""
    unet = randomize(UNet(request.param).double())
    control = ControlNet.from_unet(unet, hint_channels=(4, 8, 8, 12))
    hint = torch.rand(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return unet, control, unet_inputs(request.param), hint


def test_output_is_identical_before_the_first_step(wired):
    unet, control, i, hint = wired
    assert torch.equal(unet(**i, control=control(**i, hint=hint)), unet(**i))


def test_the_unets_controlnet_wakes_from_the_output_inwards(wired):
    unet, control, i, hint = wired
    parameters = trainable(unet, control)
    names = {n for n, _ in control.named_parameters()}
    out = of(names, "controlnet_down_blocks", "controlnet_mid_block")
    hint_zero = of(names, "controlnet_cond_embedding.conv_out")
    below = of(names, "controlnet_cond_embedding") - hint_zero
    for step, expected in enumerate([out, names - below, names]):
        loss = unet(**i, control=control(**i, hint=hint)).square().mean()
        assert awake(control, loss) == expected, f"step {step}"
        sgd_step(loss, parameters, lr=0.5)


def trained(unet: UNet, control: ControlNet, i: dict[str, Tensor], hint: Tensor, **options: bool):
    """Three steps of AdamW with an average of the weights; returns both."""
    optimizer, average = torch.optim.AdamW(trainable(unet, control, **options), lr=1e-2), EMA(control, decay=0.9)
    for _ in range(3):
        unet(**i, control=control(**i, hint=hint)).square().mean().backward()
        optimizer.step()
        average.update()
        optimizer.zero_grad()
    return optimizer, average


def test_locked_means_no_bit_no_gradient_no_optimizer_state_and_no_average(wired):
    unet, control, i, hint = wired
    before, copied = copy.deepcopy(unet.state_dict()), copy.deepcopy(control.state_dict())
    optimizer, average = trained(unet, control, i, hint)
    assert all(torch.equal(before[k], v) for k, v in unet.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in unet.parameters())
    assert set(optimizer.state) == set(control.parameters())
    assert average.average.keys() - {"count"} == dict(control.named_parameters()).keys()
    assert all(not torch.equal(copied[k], v) for k, v in control.state_dict().items())


def test_gradients_pass_through_the_locked_decoder_to_the_skips(wired):
    unet, control, i, hint = wired
    trainable(unet, control)
    c = control(**i, hint=hint)
    gradients = torch.autograd.grad(unet(**i, control=c).square().mean(), (*c.skips, c.middle))
    assert all(g.abs().max() > 0 for g in gradients)


def test_with_sd_locked_false_the_decoder_learns_and_the_encoder_does_not(wired):
    unet, control, i, hint = wired
    before = copy.deepcopy(unet.state_dict())
    trained(unet, control, i, hint, sd_locked=False)
    moved = {k for k, v in unet.state_dict().items() if not torch.equal(before[k], v)}
    assert moved == of(set(before), "up_blocks", "conv_norm_out", "conv_out")


def test_a_buffer_of_the_locked_block_does_not_move_while_training(generator):
    block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    controlled = ControlledBlock(block, condition_channels=2, in_channels=3, out_channels=4).train()
    before = copy.deepcopy(controlled.locked.state_dict())
    controlled(torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 2, 4, 4, generator=generator))
    assert all(torch.equal(before[k], v) for k, v in controlled.locked.state_dict().items())
    assert not torch.equal(before["1.running_mean"], controlled.copy.state_dict()["1.running_mean"])
