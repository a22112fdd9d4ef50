"""A 3 × 3 convolution as one matrix product: on a CPU, where large weights meet few pixels, in a third to nine tenths
of the time (docs/bench.md; in bfloat16 one shape loses a seventh going forward, and gains a quarter with the way back).

PyTorch's CPU kernels lay a convolution's weights out anew at every call. Where a layer has millions of them and a
picture few pixels, as at the U-Net's lowest levels, that takes longer than the convolution itself.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 256  # pixels of the whole batch, and
MANY = 2**23  # weights: between these a product is the faster way (benchmarks/convolution.py)


class Conv3x3(nn.Conv2d):
    """nn.Conv2d of kernel 3 that keeps the sides: (B, in, H, W) → (B, out, H, W). Equal to it but for rounding."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.shape[0] * x.shape[2] * x.shape[3]
        small = pixels <= FEW and self.weight.numel() >= MANY
        if not (small and x.device.type == "cpu" and self.weight.is_contiguous()):
            return super().forward(x)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        assert self.bias is not None
        return Product.apply(x.to(dtype), self.weight.to(dtype), self.bias.to(dtype))


class Product(torch.autograd.Function):
    """y = W · columns(x) + b, where a column holds the 3 × 3 neighbourhood of one pixel in all channels.

    Autograd would keep the columns, nine times as large as x, until the backward pass; so they are made again there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        y = torch.addmm(bias[:, None], weight.flatten(1), columns(x))  # (out, B·H·W)
        return y.unflatten(1, (len(x), *x.shape[2:])).transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """∂L/∂x = columnsᵀ(Wᵀ g), ∂L/∂W = g · columns(x)ᵀ, ∂L/∂b = Σ g, each only if it is asked for."""
        x, weight = ctx.saved_tensors
        g = gradients[0].transpose(0, 1).flatten(1)  # (out, B·H·W)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            spread = (weight.flatten(1).T @ g).unflatten(1, (len(x), -1)).transpose(0, 1)  # (B, in·9, H·W)
            of_x = F.fold(spread, x.shape[2:], 3, padding=1)
        if ctx.needs_input_grad[1]:
            of_weight = (g @ columns(x).T).view_as(weight)
        if ctx.needs_input_grad[2]:
            of_bias = g.sum(1)
        return of_x, of_weight, of_bias


def columns(x: Tensor) -> Tensor:
    """(B, C, H, W) → (C·9, B·H·W): every pixel's 3 × 3 neighbourhood."""
    return F.unfold(x, 3, padding=1).transpose(0, 1).flatten(1)
