"""Gradient checks whose failure says which function, which input, which index, what was expected and what came."""

from collections.abc import Callable

import torch
from torch import Tensor


def assert_gradient(got: Tensor, expected: Tensor, *, of: str, by: str, tolerance: float = 1e-10) -> None:
    """∂of/∂by equals the closed form everywhere."""
    assert got.shape == expected.shape, (
        f"∂({of})/∂({by}) has shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    )
    off = (got - expected).abs()
    if off.numel() and off.max() > tolerance:
        index = tuple(int(i) for i in (off == off.max()).nonzero()[0])
        raise AssertionError(
            f"∂({of})/∂({by}) at {index}: expected {expected[index].item():.10g}, got {got[index].item():.10g}"
        )


def assert_derivative(f: Callable[[Tensor], Tensor], x: Tensor, expected: Tensor, *, of: str, by: str) -> None:
    """∂f/∂x of a scalar f, at x, by autograd and by finite differences: both are the closed form that is expected."""
    x = x.detach().clone().requires_grad_()
    (got,) = torch.autograd.grad(f(x), x)
    assert_gradient(got, expected, of=of, by=by)
    assert torch.autograd.gradcheck(f, x), f"∂({of})/∂({by}): autograd and finite differences disagree"
