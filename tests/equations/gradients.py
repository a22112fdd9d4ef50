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


def finite_difference(f: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-5) -> Tensor:
    """∂f/∂x of a scalar f by central differences, one element at a time."""
    flat = torch.zeros(x.numel(), dtype=x.dtype)
    for k in range(x.numel()):
        nudge = torch.zeros_like(flat)
        nudge[k] = step
        up, down = f(x + nudge.view_as(x)), f(x - nudge.view_as(x))
        flat[k] = (up - down) / (2 * step)
    return flat.view_as(x)
