"""The derivation of ControlNet's zero convolution (Zhang et al. 2023, arXiv 2302.05543v1, section 3.2), line by line.

I: input with channels j at pixels p. Z: output with channels i. W[i, j], B[i]: weight and bias of a 1×1 convolution.
Everything in float64; each equation by autograd, by finite differences and in closed form.
"""

import pytest
import torch
from torch import Tensor, nn

from minicc.models.zero_conv import ControlledBlock, sgd_step, zero_conv
from tests.equations.gradients import assert_gradient, finite_difference

P = (0, 1)  # the pixel p = (y, x) that single entries are checked at


@pytest.fixture
def I(generator) -> Tensor:
    """An input of 3 channels, 2 × 2 pixels, no value zero."""
    return torch.randn(1, 3, 2, 2, dtype=torch.float64, generator=generator) + 3


def random_conv(generator: torch.Generator) -> nn.Conv2d:
    """A 1×1 convolution 3 → 4 with any W and B."""
    conv = zero_conv(3, 4).double()
    with torch.no_grad():
        for p in conv.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return conv


def closed_form(I: Tensor, W: Tensor, B: Tensor) -> Tensor:
    """B_i + Σ_j W_{i,j} I_{p,j}, written out with loops."""
    out = torch.empty(1, W.shape[0], *I.shape[-2:], dtype=I.dtype)
    for i in range(W.shape[0]):
        for y in range(I.shape[-2]):
            for x in range(I.shape[-1]):
                out[0, i, y, x] = B[i] + sum(W[i, j] * I[0, j, y, x] for j in range(W.shape[1]))
    return out


def test_equation_1_a_1x1_convolution_is_a_weighted_sum_of_channels_at_each_pixel(I, generator):
    """Z(I; {W, B})_{p,i} = B_i + Σ_j W_{i,j} I_{p,j}."""
    Z = random_conv(generator)
    torch.testing.assert_close(Z(I), closed_form(I, Z.weight[..., 0, 0], Z.bias), atol=1e-12, rtol=0)


def test_equation_1_has_the_gradients_that_finite_differences_have(I, generator):
    Z = random_conv(generator)
    inputs = (I.clone().requires_grad_(), Z.weight, Z.bias)
    assert torch.autograd.gradcheck(torch.nn.functional.conv2d, inputs)


def block(channels: int = 3) -> nn.Module:
    """Some F(x; Θ): nothing about it matters."""
    rng = torch.Generator().manual_seed(5)
    F = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 4, 1)).double()
    with torch.no_grad():
        for p in F.parameters():
            p.copy_(torch.randn(p.shape, generator=rng, dtype=p.dtype))
    return F


def test_equation_2_before_the_first_step_every_summand_is_what_the_paper_says(I, generator):
    """Z(c; Θ_z1) = 0;  F(x + 0; Θ_c) = F(x; Θ_c) = F(x; Θ);  Z(F(x; Θ_c); Θ_z2) = 0;  y_c = y, bit for bit."""
    F = block()
    y = F(I)
    controlled = ControlledBlock(F, condition_channels=2, in_channels=3, out_channels=4).double()
    c = torch.randn(1, 2, 2, 2, dtype=torch.float64, generator=generator)
    hint = controlled.zero_in(c)
    assert torch.equal(hint, torch.zeros_like(I))
    inner = controlled.copy(I + hint)
    assert torch.equal(inner, controlled.copy(I))
    assert torch.equal(inner, y)
    assert torch.equal(controlled.zero_out(inner), torch.zeros_like(y))
    assert torch.equal(controlled(I, c), y)


def test_equation_2_has_the_gradients_that_finite_differences_have_also_when_nothing_is_zero(I, generator):
    """∂y_c by the input, the condition and both zero convolutions, at the start and after they have learned."""
    controlled = ControlledBlock(block(), condition_channels=2, in_channels=3, out_channels=4).double()
    c = torch.randn(1, 2, 2, 2, dtype=torch.float64, generator=generator)
    zeros = [controlled.zero_in.weight, controlled.zero_out.weight]
    for scale in (0.0, 0.3):
        with torch.no_grad():
            for W in zeros:
                W.copy_(scale * torch.randn(W.shape, generator=generator, dtype=W.dtype))
        inputs = (I.clone().requires_grad_(), c.clone().requires_grad_())
        assert torch.autograd.gradcheck(lambda x, c, *_: controlled(x, c), (*inputs, *zeros))


def test_equation_3_the_bias_has_gradient_one(I):
    """∂Z_{p,i}/∂B_i = 1."""
    Z, i, (y, x) = zero_conv(3, 4).double(), 2, P
    (dB,) = torch.autograd.grad(Z(I)[0, i, y, x], Z.bias)
    expected = torch.tensor([0.0, 0, 1, 0], dtype=torch.float64)
    assert_gradient(dB, expected, of="Z_{p,i} at p=(0,1), i=2", by="B")
    by_hand = finite_difference(lambda B: closed_form(I, Z.weight[..., 0, 0].detach(), B)[0, i, y, x], Z.bias.detach())
    assert_gradient(by_hand, expected, of="Z_{p,i} (differences)", by="B", tolerance=1e-8)


def test_equation_3_no_gradient_passes_to_the_input_yet(I):
    """∂Z_{p,i}/∂I_{p,j} = W_{i,j} = 0: one term, the weight from j to i (printed: Σ_j; see the slips below)."""
    Z, i, (y, x) = zero_conv(3, 4).double(), 2, P
    I = I.requires_grad_()
    (dI,) = torch.autograd.grad(Z(I)[0, i, y, x], I)
    assert_gradient(dI, torch.zeros_like(I), of="Z_{p,i} at p=(0,1), i=2", by="I")
    W, B = Z.weight[..., 0, 0].detach(), Z.bias.detach()
    by_hand = finite_difference(lambda J: closed_form(J, W, B)[0, i, y, x], I.detach())
    assert_gradient(by_hand, torch.zeros_like(I), of="Z_{p,i} (differences)", by="I", tolerance=1e-8)


def test_equation_3_the_weight_of_a_zero_convolution_learns_although_it_is_zero(I):
    """∂Z_{p,i}/∂W_{i,j} = I_{p,j} ≠ 0."""
    Z, i, (y, x) = zero_conv(3, 4).double(), 2, P
    (dW,) = torch.autograd.grad(Z(I)[0, i, y, x], Z.weight)
    expected = torch.zeros(4, 3, dtype=torch.float64)
    expected[i] = I[0, :, y, x]
    assert expected[i].abs().min() > 0
    assert_gradient(dW[..., 0, 0], expected, of="Z_{p,i} at p=(0,1), i=2", by="W")
    by_hand = finite_difference(lambda W: closed_form(I, W, Z.bias.detach())[0, i, y, x], Z.weight[..., 0, 0].detach())
    assert_gradient(by_hand, expected, of="Z_{p,i} (differences)", by="W", tolerance=1e-8)


def loss_of(target: Tensor):
    """Some loss with a gradient g = ∂L/∂Z = 2 (Z − target) that differs everywhere."""
    return lambda Z: (Z - target).square().sum()


def test_equation_4_one_sgd_step_gives_the_weight_that_the_paper_derives(I, generator):
    """W*_{i,j} = W_{i,j} − β_lr Σ_p g_{p,i} I_{p,j} = −β_lr Σ_p g_{p,i} I_{p,j},  g = ∂L/∂Z: not zero."""
    Z, lr = zero_conv(3, 4).double(), 0.1
    target = torch.randn(1, 4, 2, 2, dtype=torch.float64, generator=generator)
    loss = loss_of(target)
    g = 2 * (Z(I).detach() - target)
    sgd_step(loss(Z(I)), [Z.weight], lr)
    expected = -lr * torch.einsum("bihw,bjhw->ij", g, I)
    assert_gradient(Z.weight.detach()[..., 0, 0], expected, of="W*", by="step")
    assert Z.weight.abs().min() > 0
    zero, B = torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    by_hand = -lr * finite_difference(lambda W: loss(closed_form(I, W, B)), zero)
    assert_gradient(by_hand, expected, of="W* (differences)", by="step", tolerance=1e-7)


def test_equation_4_the_weight_stays_zero_where_the_sum_over_pixels_cancels():
    """Σ_p g_{p,i} I_{p,j} = 0 with g ≠ 0 and I ≠ 0: two pixels that pull in opposite directions."""
    I = torch.ones(1, 1, 1, 2, dtype=torch.float64)
    g = torch.tensor([1.0, -1.0], dtype=torch.float64).view(1, 1, 1, 2)
    Z = zero_conv(1, 1).double()
    sgd_step((g * Z(I)).sum(), [Z.weight, Z.bias], lr=0.1)
    assert Z.weight.item() == 0
    assert Z.bias.item() == 0


def test_equation_5_after_one_step_the_gradient_passes_through(I, generator):
    """∂Z_{p,i}(I; {W*, B})/∂I_{p,j} = W*_{i,j} ≠ 0."""
    Z, i, (y, x) = zero_conv(3, 4).double(), 2, P
    sgd_step(loss_of(torch.randn(1, 4, 2, 2, dtype=torch.float64, generator=generator))(Z(I)), [Z.weight, Z.bias], 0.1)
    I = I.requires_grad_()
    (dI,) = torch.autograd.grad(Z(I)[0, i, y, x], I)
    expected = torch.zeros_like(I)
    expected[0, :, y, x] = Z.weight[i, :, 0, 0].detach()
    assert expected[0, :, y, x].abs().min() > 0
    assert_gradient(dI, expected, of="Z_{p,i}(I; W*, B) at p=(0,1), i=2", by="I")
    W, B = Z.weight[..., 0, 0].detach(), Z.bias.detach()
    by_hand = finite_difference(lambda J: closed_form(J, W, B)[0, i, y, x], I.detach())
    assert_gradient(by_hand, expected, of="Z_{p,i} (differences)", by="I", tolerance=1e-8)


# The two slips of the paper's v1 text: as printed, and as it must be.


def test_slip_1_the_sum_needs_the_inputs_channel_j_not_i(I, generator):
    """Printed: Z_{p,i} = B_i + Σ_j I_{p,i} W_{i,j}. Every j would weigh the same number: not a convolution."""
    Z = zero_conv(3, 3).double()
    with torch.no_grad():
        Z.weight.copy_(torch.randn(3, 3, 1, 1, dtype=torch.float64, generator=generator))
    W = Z.weight[..., 0, 0]
    printed = I * W.sum(1)[None, :, None, None]
    correct = torch.einsum("ij,bjhw->bihw", W, I)
    torch.testing.assert_close(Z(I), correct, atol=1e-12, rtol=0)
    assert (Z(I) - printed).abs().max() > 0.1


def test_slip_1_as_printed_the_weights_gradient_would_have_the_wrong_channel(I):
    """Printed: ∂Z_{p,i}/∂W_{i,j} = I_{p,i}. The convolution's is I_{p,j}."""
    Z, i, (y, x) = zero_conv(3, 3).double(), 0, P
    (dW,) = torch.autograd.grad(Z(I)[0, i, y, x], Z.weight)
    printed = I[0, i, y, x].expand(3)
    torch.testing.assert_close(dW[i, :, 0, 0], I[0, :, y, x], atol=1e-12, rtol=0)
    assert (dW[i, :, 0, 0] - printed).abs()[1:].min() > 1e-3


def test_slip_2_the_derivative_by_one_input_is_one_weight_not_their_sum(I, generator):
    """Printed: ∂Z_{p,i}/∂I_{p,i} = Σ_j W_{i,j}. The derivative by one input channel j is W_{i,j}.

    Σ_j W_{i,j} is the derivative when all channels move together; at W = 0 both are 0, so the conclusion stands.
    """
    Z, i, (y, x) = random_conv(generator), 2, P
    I = I.requires_grad_()
    (dI,) = torch.autograd.grad(Z(I)[0, i, y, x], I)
    W = Z.weight[i, :, 0, 0].detach()
    torch.testing.assert_close(dI[0, :, y, x], W)
    assert (dI[0, :, y, x] - W.sum()).abs().min() > 1e-3
    together = finite_difference(lambda s: Z(I.detach() + s)[0, i, y, x].detach(), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(together, W.sum(), atol=1e-8, rtol=0)


def test_the_condition_an_input_of_zeros_leaves_the_weight_zero_and_only_the_bias_learns(generator):
    """If I = 0 everywhere, ∂Z/∂W = 0: W stays zero; ∂Z/∂B = 1: B learns."""
    Z = zero_conv(3, 4).double()
    target = torch.randn(1, 4, 2, 2, dtype=torch.float64, generator=generator)
    for _ in range(3):
        sgd_step(loss_of(target)(Z(torch.zeros(1, 3, 2, 2, dtype=torch.float64))), [Z.weight, Z.bias], 0.05)
    assert torch.equal(Z.weight, torch.zeros_like(Z.weight))
    assert Z.bias.abs().min() > 0
