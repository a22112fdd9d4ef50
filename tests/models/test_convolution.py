"""The convolution that becomes a matrix product: equal to PyTorch's, forward and backward, and used where it pays."""

import pytest
import torch
import torch.nn.functional as F

from minicc.models import convolution
from minicc.models.convolution import FEW, MANY, Conv3x3, Product


@pytest.fixture
def small(monkeypatch):
    """Every layer counts as one of many weights."""
    monkeypatch.setattr(convolution, "MANY", 0)


def results(run, x, conv):
    """Output and gradients of x, weight, bias."""
    x = x.clone().requires_grad_()
    y = run(x)
    conv.zero_grad()
    (y * torch.arange(y.numel(), device=y.device).view_as(y).cos()).sum().backward()
    return [y.detach(), x.grad, conv.weight.grad.clone(), conv.bias.grad.clone()]


@pytest.mark.parametrize("shape", [(1, 6, 4, 4), (3, 6, 5, 7), (2, 6, 1, 1)])
def test_product_and_convolution_are_equal_forward_and_backward(small, generator, shape):
    torch.manual_seed(0)
    conv, x = Conv3x3(6, 8).double(), torch.randn(shape, generator=generator, dtype=torch.float64)
    ours = results(conv, x, conv)
    theirs = results(lambda x: F.conv2d(x, conv.weight, conv.bias, padding=1), x, conv)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_its_gradient_is_that_of_finite_differences(generator):
    shapes = ((2, 2, 3, 3), (3, 2, 3, 3), (3,))  # x, weight, bias
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    assert torch.autograd.gradcheck(Product.apply, [x.requires_grad_() for x in inputs])
    assert torch.autograd.gradgradcheck(Product.apply, inputs)


def test_locked_weights_get_no_gradient_and_pass_one_on(small, generator):
    conv, x = Conv3x3(4, 4).requires_grad_(False), torch.randn(1, 4, 4, 4, generator=generator, requires_grad=True)
    conv(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert conv.weight.grad is conv.bias.grad is None


def test_autocast_computes_in_its_precision_and_gives_whole_gradients(small, generator):
    conv, x = Conv3x3(8, 8), torch.randn(2, 8, 4, 4, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert conv.weight.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), F.conv2d(x, conv.weight, conv.bias, padding=1), rtol=0.03, atol=0.03)


def test_large_layers_take_the_product_for_few_pixels_only(monkeypatch):
    taken = []
    monkeypatch.setattr(Product, "apply", lambda x, weight, bias: taken.append(tuple(x.shape)) or x)
    large, tiny = Conv3x3(1280, 1280).requires_grad_(False), Conv3x3(192, 192)
    assert tiny.weight.numel() < MANY <= large.weight.numel()
    large(torch.zeros(1, 1280, 16, 16))
    assert taken.pop() == (1, 1280, 16, 16)
    assert FEW == 16 * 16
    for conv, x in [(large, torch.zeros(2, 1280, 16, 16)), (tiny, torch.zeros(1, 192, 4, 4))]:
        conv(x)
    large.to(memory_format=torch.channels_last)(torch.zeros(1, 1280, 4, 4))
    assert not taken


def test_the_shapes_and_keys_are_those_of_a_convolution():
    assert {k: v.shape for k, v in Conv3x3(3, 5).state_dict().items()} == {
        "weight": torch.Size([5, 3, 3, 3]),
        "bias": torch.Size([5]),
    }
