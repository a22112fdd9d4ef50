"""The bricks: residual block, attention, transformer, down- and upsampling, the timestep embedding.

Attribute names are the checkpoint's names (diffusers' layout), so no table stands between a file and these modules.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minicc.models.attend import attend
from minicc.models.convolution import Conv3x3


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10_000) -> Tensor:
    """Sinusoidal features of the timestep, cosines first, in float32 as the official code computes them.

        [cos(t ω_0), …, cos(t ω_{d/2−1}), sin(t ω_0), …],  ω_k = max_period^(−k/(d/2))

    t: (B,), any real number type. Returns (B, dim). Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.
    """
    half = dim // 2
    omega = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angle = t[:, None].float() * omega  # (B, dim/2)
    return torch.cat([angle.cos(), angle.sin()], dim=1)  # (B, dim)


class TimeEmbedding(nn.Module):
    """Two linear layers over the sinusoidal features: (B, dim) → (B, out)."""

    def __init__(self, dim: int, out: int):
        super().__init__()
        self.linear_1 = nn.Linear(dim, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(features)))


class ResBlock(nn.Module):
    """Residual block of the U-Net and the VAE: (B, in, H, W) → (B, out, H, W); the timestep shifts every channel.

    eps is 1e-5 in the U-Net, 1e-6 in the VAE (which has no timestep: temb_channels=None).
    """

    def __init__(self, in_channels: int, out_channels: int, temb_channels: int | None, groups: int, eps: float):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = Conv3x3(in_channels, out_channels)
        if temb_channels is not None:
            self.time_emb_proj = nn.Linear(temb_channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = Conv3x3(out_channels, out_channels)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # (B, out, H, W)
        if temb is not None:
            h = h + self.time_emb_proj(F.silu(temb))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """softmax(q kᵀ/√d) v with several heads; queries from x, keys and values from context (x itself if None).

    x: (B, N, C); context: (B, M, D). Returns (B, N, C).
    """

    def __init__(self, channels: int, heads: int, context_dim: int | None = None, bias: bool = False):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=bias)
        self.to_k = nn.Linear(context_dim or channels, channels, bias=bias)
        self.to_v = nn.Linear(context_dim or channels, channels, bias=bias)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, d)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        return self.split_heads(self.to_k(context)), self.split_heads(self.to_v(context))

    def forward(self, x: Tensor, context: "Context | None" = None, beside: "KeyValue | None" = None) -> Tensor:
        """beside: keys and values of another picture, which x's tokens see beside what they see anyway."""
        k, v = context[self] if isinstance(context, dict) else self.keys_values(x if context is None else context)
        if beside is not None:
            k, v = (torch.cat([a, b.expand(len(a), -1, -1, -1)], dim=2) for a, b in zip((k, v), beside, strict=True))
        x = attend(self.split_heads(self.to_q(x)), k, v)
        return self.to_out(x.transpose(1, 2).flatten(2))  # (B, N, C)


KeyValue = tuple[Tensor, Tensor]  # (1 or B, heads, M, d) each
# What modules find in a context. A cross-attention: what it sees; a self-attention: what it sees besides its picture; a
# transformer block: a layer added to it. What others keep under their names is their own affair.
KeysValues = dict[nn.Module, Any]
Context = Tensor | KeysValues  # (B, L, D) from the text encoder, or what `keys_values` made of it


def transformers(module: nn.Module) -> "list[TransformerBlock]":
    """All transformer blocks of a module, in their order."""
    return [m for m in module.modules() if isinstance(m, TransformerBlock)]


def keys_values(module: nn.Module, context: Tensor) -> KeysValues:
    """The text's keys and values for every cross-attention in a module: constant, so a sampler computes them once."""
    return {block.attn2: block.attn2.keys_values(context) for block in transformers(module)}


class Recording(KeysValues):
    """A context that takes along, in `tokens`, the tokens (B, N, C) that each attention on its way is asked with."""

    def __init__(self, context: KeysValues):
        super().__init__(context)
        self.tokens: dict[Attention, Tensor] = {}


def noted(attention: Attention, h: Tensor, context: Context) -> Tensor:
    """h, the tokens that this attention is asked with; a context that records takes them along.

    Those of its first pass: a second one is gradient checkpointing's, whose graph nobody needs to keep.
    """
    if isinstance(context, Recording):
        context.tokens.setdefault(attention, h)
    return h


class GEGLU(nn.Module):
    """x · gelu(gate), both from one projection (Shazeer 2020, arXiv 2002.05202): (B, N, C) → (B, N, inner)."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU and a projection back. `net.1` stands where the official model has a dropout of probability 0."""

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention among the picture's tokens, cross-attention to the text's, feed-forward; each adds to x."""

    def __init__(self, channels: int, heads: int, context_dim: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads, context_dim)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        found = context if isinstance(context, dict) else {}
        x = x + self.attn1(noted(self.attn1, self.norm1(x), context), beside=found.get(self.attn1))
        x = x + self.attn2(noted(self.attn2, self.norm2(x), context), context)
        if self in found:  # a layer that was added to this block, see models/garment_ways.py
            x = x + found[self](x)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A transformer block over the pixels of a feature map: (B, C, H, W) → (B, C, H, W).

    linear: SD 2.x projects tokens with nn.Linear; SD 1.x projects pixels with a 1×1 convolution. Same numbers.
    """

    def __init__(self, channels: int, heads: int, context_dim: int, groups: int, linear: bool):
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, heads, context_dim)])
        self.proj_out = nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        h = self.norm(x)
        h = self.proj_in(tokens(h)) if self.linear else tokens(self.proj_in(h))  # (B, HW, C)
        for block in self.transformer_blocks:
            h = block(h, context)
        size = x.shape[-2:]
        h = pixels(self.proj_out(h), size) if self.linear else self.proj_out(pixels(h, size))
        return x + h  # (B, C, H, W)


def tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, HW, C); no copy if x is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def pixels(x: Tensor, size: torch.Size) -> Tensor:
    """(B, HW, C) → (B, C, H, W), laid out channels-last."""
    return x.unflatten(1, size).permute(0, 3, 1, 2)


class Downsample(nn.Module):
    """Half the side by a 3×3 convolution of stride 2. The U-Net pads all sides by 1, the VAE right and bottom only."""

    def __init__(self, channels: int, asymmetric: bool = False):
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)  # (B, C, ⌈H/2⌉, ⌈W/2⌉)


class Upsample(nn.Module):
    """Nearest neighbour to `size` (default: twice the side), then a 3×3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv3x3(channels, channels)

    def forward(self, x: Tensor, size: torch.Size | None = None) -> Tensor:
        scale = None if size is not None else 2.0
        return self.conv(F.interpolate(x, size=size, scale_factor=scale, mode="nearest"))


def run(module: nn.Module, *args: Context, recompute: bool) -> Tensor:
    """module(*args); with recompute, its activations are not kept but computed again in the backward pass.

    Chen et al. 2016 (arXiv 1604.06174): memory of one block instead of all, for a third more time.
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(module, *args, use_reentrant=False)
    return module(*args)
