"""The derivation of ControlNet's zero convolution (Zhang et al. 2023, arXiv 2302.05543v1, section 3.2), line by line.

I: input with channels j at pixels p. Z: output with channels i. W[i, j], B[i]: weight and bias of a 1×1 convolution.
Everything in float64; each equation by autograd, by finite differences (gradcheck) and in closed form, and each
derivative twice: of the layer that the models use, and of the sum as the paper writes it.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from minicc.models.zero_conv import ControlledBlock, sgd_step, zero_conv
from tests.equations.gradients import assert_derivative, assert_gradient

i, P = 2, (0, 1)  # the output channel i, and the pixel p = (y, x), that single entries are checked at
AT = f"at p={P}, i={i}"


@pytest.fixture
def I(generator) -> Tensor:
    """An input of 3 channels, 2 × 2 pixels, no value zero."""
    return torch.randn(1, 3, 2, 2, dtype=torch.float64, generator=generator) + 3


@pytest.fixture
def target(generator) -> Tensor:
    """What some loss wants of 4 output channels."""
    return torch.randn(1, 4, 2, 2, dtype=torch.float64, generator=generator)


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def layer(I: Tensor, W: Tensor, B: Tensor) -> Tensor:
    """Z(I; {W, B}): the zero convolution of the models, with other numbers in it."""
    Z = zero_conv(W.shape[1], W.shape[0]).double()
    return functional_call(Z, {"weight": W[..., None, None], "bias": B}, I)


def written_out(I: Tensor, W: Tensor, B: Tensor) -> Tensor:
    """B_i + Σ_j W_{i,j} I_{p,j}, in loops."""
    pixels = [(y, x) for y in range(I.shape[-2]) for x in range(I.shape[-1])]
    rows = [
        torch.stack([B[i] + sum(W[i, j] * I[0, j, y, x] for j in range(W.shape[1])) for y, x in pixels])
        for i in range(W.shape[0])
    ]
    return torch.stack(rows).view(1, -1, *I.shape[-2:])


either = pytest.mark.parametrize("Z", [layer, written_out], ids=["the layer", "the sum"])


def at(Z: Tensor) -> Tensor:
    """Z_{p,i}."""
    return Z[0, i, *P]


def test_equation_1_a_1x1_convolution_is_a_weighted_sum_of_channels_at_each_pixel(I, generator):
    """Z(I; {W, B})_{p,i} = B_i + Σ_j W_{i,j} I_{p,j}."""
    W, B = random(generator, 4, 3), random(generator, 4)
    torch.testing.assert_close(layer(I, W, B), written_out(I, W, B), atol=1e-12, rtol=0)


@either
def test_equation_1_has_the_gradients_that_finite_differences_have(I, generator, Z):
    inputs = (I, random(generator, 4, 3), random(generator, 4))
    assert torch.autograd.gradcheck(Z, tuple(x.clone().requires_grad_() for x in inputs))


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
    c = random(generator, 1, 2, 2, 2)
    hint = controlled.zero_in(c)
    assert torch.equal(hint, torch.zeros_like(I))
    inner = controlled.copy(I + hint)
    assert torch.equal(inner, controlled.copy(I))
    assert torch.equal(inner, y)
    assert torch.equal(controlled.zero_out(inner), torch.zeros_like(y))
    assert torch.equal(controlled(I, c), y)


def test_equation_2_before_the_first_step_the_condition_moves_nothing_and_the_input_what_it_moved(I, generator):
    """∂y_c/∂c = 0 and ∂y_c/∂x = ∂y/∂x: the copy's path is closed, the locked one as it was."""
    F, c = block(), random(generator, 1, 2, 2, 2)
    controlled = ControlledBlock(F, condition_channels=2, in_channels=3, out_channels=4).double()
    x = I.clone().requires_grad_()
    (dy,) = torch.autograd.grad(F(x)[0, i, *P], x)
    assert dy.abs().max() > 0
    assert_derivative(lambda x: at(controlled(x, c)), I, dy, of=f"y_c {AT}", by="x")
    assert_derivative(lambda c: at(controlled(I, c)), c, torch.zeros_like(c), of=f"y_c {AT}", by="c")


@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_equation_2_has_the_gradients_that_finite_differences_have_also_when_nothing_is_zero(I, generator, scale):
    """∂y_c by the input, the condition and both zero convolutions, at the start and after they have learned."""
    controlled = ControlledBlock(block(), condition_channels=2, in_channels=3, out_channels=4).double()
    names = ["zero_in.weight", "zero_out.weight"]
    W = [scale * random(generator, *controlled.get_parameter(name).shape) for name in names]

    def y_c(x: Tensor, c: Tensor, *W: Tensor) -> Tensor:
        return functional_call(controlled, dict(zip(names, W, strict=True)), (x, c))

    inputs = [t.clone().requires_grad_() for t in (I, random(generator, 1, 2, 2, 2), *W)]
    assert torch.autograd.gradcheck(y_c, inputs)


@either
def test_equation_3_the_bias_has_gradient_one(I, Z):
    """∂Z_{p,i}/∂B_i = 1."""
    expected = torch.tensor([0.0, 0, 1, 0], dtype=torch.float64)
    assert_derivative(lambda B: at(Z(I, zeros(4, 3), B)), zeros(4), expected, of=f"Z_{{p,i}} {AT}", by="B")


@either
def test_equation_3_no_gradient_passes_to_the_input_yet(I, Z):
    """∂Z_{p,i}/∂I_{p,j} = W_{i,j} = 0: one term, the weight from j to i (printed: Σ_j; see the slips below)."""
    expected = torch.zeros_like(I)
    assert_derivative(lambda I: at(Z(I, zeros(4, 3), zeros(4))), I, expected, of=f"Z_{{p,i}} {AT}", by="I")


@either
def test_equation_3_the_weight_of_a_zero_convolution_learns_although_it_is_zero(I, Z):
    """∂Z_{p,i}/∂W_{i,j} = I_{p,j} ≠ 0."""
    expected = zeros(4, 3)
    expected[i] = I[0, :, *P]
    assert expected[i].abs().min() > 0
    assert_derivative(lambda W: at(Z(I, W, zeros(4))), zeros(4, 3), expected, of=f"Z_{{p,i}} {AT}", by="W")


def loss_of(target: Tensor):
    """Some loss with a gradient g = ∂L/∂Z = 2 (Z − target) that differs everywhere."""
    return lambda Z: (Z - target).square().sum()


@either
def test_equation_4_the_losss_gradient_by_the_weight_is_a_sum_over_the_pixels(I, target, Z):
    """∂L/∂W_{i,j} = Σ_p g_{p,i} I_{p,j} at W = 0, with g = ∂L/∂Z = −2 target there."""
    expected = torch.einsum("bihw,bjhw->ij", -2 * target, I)
    assert_derivative(lambda W: loss_of(target)(Z(I, W, zeros(4))), zeros(4, 3), expected, of="L", by="W")


def test_equation_4_one_sgd_step_gives_the_weight_that_the_paper_derives(I, target):
    """W*_{i,j} = W_{i,j} − β_lr Σ_p g_{p,i} I_{p,j} = −β_lr Σ_p g_{p,i} I_{p,j}: not zero."""
    Z, lr = zero_conv(3, 4).double(), 0.1
    sgd_step(loss_of(target)(Z(I)), [Z.weight], lr)
    expected = -lr * torch.einsum("bihw,bjhw->ij", -2 * target, I)
    assert_gradient(Z.weight.detach()[..., 0, 0], expected, of="W*", by="step")
    assert Z.weight.abs().min() > 0


@either
def test_equation_4_the_weight_stays_zero_where_the_sum_over_pixels_cancels(Z):
    """Σ_p g_{p,i} I_{p,j} = 0 with g ≠ 0 and I ≠ 0: two pixels that pull in opposite directions."""
    I = torch.ones(1, 1, 1, 2, dtype=torch.float64)
    g = torch.tensor([1.0, -1.0], dtype=torch.float64).view(1, 1, 1, 2)
    assert_derivative(lambda W: (g * Z(I, W, zeros(1))).sum(), zeros(1, 1), zeros(1, 1), of="L", by="W")
    conv = zero_conv(1, 1).double()
    sgd_step((g * conv(I)).sum(), [conv.weight, conv.bias], lr=0.1)
    assert conv.weight.item() == 0
    assert conv.bias.item() == 0


@either
def test_equation_5_after_one_step_the_gradient_passes_through(I, target, Z):
    """∂Z_{p,i}(I; {W*, B})/∂I_{p,j} = W*_{i,j} ≠ 0."""
    conv = zero_conv(3, 4).double()
    sgd_step(loss_of(target)(conv(I)), [conv.weight, conv.bias], 0.1)
    W, B = conv.weight.detach()[..., 0, 0], conv.bias.detach()
    expected = torch.zeros_like(I)
    expected[0, :, *P] = W[i]
    assert W[i].abs().min() > 0
    assert_derivative(lambda I: at(Z(I, W, B)), I, expected, of=f"Z_{{p,i}}(I; W*, B) {AT}", by="I")


# The two slips of the paper's v1 text: as printed, and as it must be.


def test_slip_1_the_sum_needs_the_inputs_channel_j_not_i(I, generator):
    """Printed: Z_{p,i} = B_i + Σ_j I_{p,i} W_{i,j}. Every j would weigh the same number: not a convolution."""
    W = random(generator, 3, 3)
    printed = I * W.sum(1)[None, :, None, None]
    correct = torch.einsum("ij,bjhw->bihw", W, I)
    torch.testing.assert_close(layer(I, W, zeros(3)), correct, atol=1e-12, rtol=0)
    assert (layer(I, W, zeros(3)) - printed).abs().max() > 0.1


def test_slip_1_as_printed_the_weights_gradient_would_have_the_wrong_channel(I):
    """Printed: ∂Z_{p,i}/∂W_{i,j} = I_{p,i}. The convolution's is I_{p,j}, and differs for every j ≠ i."""
    expected = zeros(3, 3)
    expected[i] = I[0, :, *P]
    assert_derivative(lambda W: at(layer(I, W, zeros(3))), zeros(3, 3), expected, of=f"Z_{{p,i}} {AT}", by="W")
    printed = I[0, i, *P]
    assert (expected[i] - printed).abs()[:i].min() > 1e-3


def test_slip_2_the_derivative_by_one_input_is_one_weight_not_their_sum(I, generator):
    """Printed: ∂Z_{p,i}/∂I_{p,i} = Σ_j W_{i,j}. The derivative by one input channel j is W_{i,j}.

    Σ_j W_{i,j} is the derivative when all channels move together; at W = 0 both are 0, so the conclusion stands.
    """
    W, B = random(generator, 4, 3), random(generator, 4)
    expected = torch.zeros_like(I)
    expected[0, :, *P] = W[i]
    assert_derivative(lambda I: at(layer(I, W, B)), I, expected, of=f"Z_{{p,i}} {AT}", by="I")
    assert (W[i] - W[i].sum()).abs().min() > 1e-3
    assert_derivative(lambda s: at(layer(I + s, W, B)), zeros(), W[i].sum(), of=f"Z_{{p,i}} {AT}", by="all channels")


def test_the_condition_an_input_of_zeros_leaves_the_weight_zero_and_only_the_bias_learns(target):
    """If I = 0 everywhere, ∂Z/∂W = 0: W stays zero; ∂Z/∂B = 1: B learns."""
    Z = zero_conv(3, 4).double()
    for _ in range(3):
        sgd_step(loss_of(target)(Z(zeros(1, 3, 2, 2))), [Z.weight, Z.bias], 0.05)
    assert torch.equal(Z.weight, torch.zeros_like(Z.weight))
    assert Z.bias.abs().min() > 0
