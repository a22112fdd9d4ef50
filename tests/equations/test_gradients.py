"""The checks of the derivation can fail, and say where."""

import pytest
import torch

from tests.equations.gradients import assert_derivative


class Doubled(torch.autograd.Function):
    """x², whose backward pass says 4x."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square().sum()

    @staticmethod
    def backward(ctx, g):
        return 4 * ctx.saved_tensors[0] * g


X = torch.tensor([1.0, 2.0], dtype=torch.float64)


def test_a_wrong_closed_form_is_told_by_function_input_and_index():
    with pytest.raises(AssertionError, match=r"∂\(x²\)/∂\(x\) at \(1,\): expected 5, got 4"):
        assert_derivative(lambda x: x.square().sum(), X, torch.tensor([2.0, 5.0]).double(), of="x²", by="x")


def test_a_wrong_backward_pass_does_not_get_past_the_finite_differences():
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        assert_derivative(Doubled.apply, X, 4 * X, of="x²", by="x")
