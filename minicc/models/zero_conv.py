"""Zero convolution, and the locked and trainable copies at their smallest (Zhang et al. 2023, arXiv 2302.05543)."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def zero_conv(in_channels: int, out_channels: int, kernel_size: int = 1) -> nn.Conv2d:
    """A convolution whose weight W and bias B start at zero (the paper's Z, with a 1×1 kernel).

        Z(I; {W, B})_{p,i} = B_i + Σ_j W_{i,j} I_{p,j}

    It returns zeros at first, yet learns: ∂Z_{p,i}/∂W_{i,j} = I_{p,j}, which is not zero.
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


def lock(module: M) -> M:
    """Freeze a module: no gradient for its parameters, evaluation mode. Gradients still pass through it."""
    return module.requires_grad_(False).eval()


class ControlledBlock(nn.Module):
    """Any block F with a condition c (the paper's equation 2; v1, equation 9):

        y_c = F(x; Θ) + Z(F(x + Z(c; Θ_z1); Θ_c); Θ_z2)

    Θ is locked; Θ_c starts as its copy; before the first step y_c = F(x; Θ), bit for bit.
    """

    def __init__(self, block: nn.Module, condition_channels: int, in_channels: int, out_channels: int):
        """block: (B, in_channels, H, W) → (B, out_channels, H', W'); the condition has x's height and width."""
        super().__init__()
        self.copy = copy.deepcopy(block).requires_grad_(True)  # Θ_c
        self.locked = lock(block)  # Θ
        self.zero_in = zero_conv(condition_channels, in_channels)  # Θ_z1
        self.zero_out = zero_conv(out_channels, out_channels)  # Θ_z2

    def train(self, mode: bool = True) -> "ControlledBlock":
        super().train(mode)
        self.locked.eval()  # locked means its buffers too: a batch norm inside must not move
        return self

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x: (B, in_channels, H, W); c: (B, condition_channels, H, W)."""
        y = self.locked(x)
        return y + self.zero_out(self.copy(x + self.zero_in(c)))


def sgd_step(loss: Tensor, parameters: list[nn.Parameter], lr: float) -> None:
    """W* = W − β_lr ∂L/∂W, in place: the step that the derivation follows."""
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for p, g in zip(parameters, gradients, strict=True):
            if g is not None:
                p.sub_(lr * g)
