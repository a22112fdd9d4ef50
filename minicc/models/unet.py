"""The U-Net of Stable Diffusion (Rombach et al. 2022, arXiv 2112.10752), its two halves open to the reader.

encode(x, temb, context) → middle activation and skips      (what a ControlNet clones)
decode(h, skips, temb, context) → ε (or v)                   (what stays locked)
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicc.models.blocks import (
    Context,
    Downsample,
    ResBlock,
    SpatialTransformer,
    TimeEmbedding,
    Upsample,
    run,
    timestep_embedding,
)
from minicc.models.configs import UNetConfig

if TYPE_CHECKING:
    from minicc.models.controlnet import Control


class DownBlock(nn.Module):
    """One level of the encoder: residual blocks, a transformer after each but on the last level, then half the side."""

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int, last: bool):
        super().__init__()
        widths = [in_channels] + [out_channels] * (config.layers_per_block - 1)
        self.resnets = nn.ModuleList(resblock(config, width, out_channels) for width in widths)
        self.attentions = nn.ModuleList([] if last else [transformer(config, out_channels) for _ in widths])
        self.downsamplers = nn.ModuleList([] if last else [Downsample(out_channels)])

    def forward(self, h: Tensor, temb: Tensor, context: Context, recompute: bool) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for resnet, attention in zip_longest(self.resnets, self.attentions):
            h = run(resnet, h, temb, recompute=recompute)
            if attention is not None:
                h = run(attention, h, context, recompute=recompute)
            skips.append(h)
        for down in self.downsamplers:
            h = down(h)
            skips.append(h)
        return h, skips


class MiddleBlock(nn.Module):
    """Residual block, transformer, residual block at the smallest side."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        width = config.block_out_channels[-1]
        self.attentions = nn.ModuleList([transformer(config, width)])
        self.resnets = nn.ModuleList([resblock(config, width, width), resblock(config, width, width)])

    def forward(self, h: Tensor, temb: Tensor, context: Context, recompute: bool) -> Tensor:
        before, after = self.resnets
        h = run(before, h, temb, recompute=recompute)
        h = run(self.attentions[0], h, context, recompute=recompute)
        return run(after, h, temb, recompute=recompute)


class UpBlock(nn.Module):
    """One level of the decoder: each residual block first joins a skip to its input; then twice the side."""

    def __init__(self, config: UNetConfig, channels: list[tuple[int, int]], first: bool, last: bool):
        """channels: (in, out) of each residual block, the skip's channels counted in."""
        super().__init__()
        self.resnets = nn.ModuleList(resblock(config, i, o) for i, o in channels)
        self.attentions = nn.ModuleList([] if first else [transformer(config, o) for _, o in channels])
        self.upsamplers = nn.ModuleList([] if last else [Upsample(channels[-1][1])])

    def forward(self, h: Tensor, skips: list[Tensor], temb: Tensor, context: Context, recompute: bool) -> Tensor:
        for resnet, attention in zip_longest(self.resnets, self.attentions):
            h = run(resnet, torch.cat([h, skips.pop()], dim=1), temb, recompute=recompute)
            if attention is not None:
                h = run(attention, h, context, recompute=recompute)
        for up in self.upsamplers:
            h = up(h, skips[-1].shape[-2:])  # the next skip's side: odd sides come back to what they were
        return h


class EncoderHalf(nn.Module):
    """Input convolution, time embedding, down blocks, middle block: what U-Net and ControlNet have in common."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        self.recompute = False  # True: gradient checkpointing
        widths = config.block_out_channels
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], config.temb_channels)
        levels = list(zip(widths[:1] + widths[:-1], widths, strict=True))
        self.down_blocks = nn.ModuleList(
            DownBlock(config, i, o, last=level == len(widths) - 1) for level, (i, o) in enumerate(levels)
        )
        self.mid_block = MiddleBlock(config)

    def embed_time(self, t: Tensor) -> Tensor:
        """t: (B,) timesteps. Returns (B, 4·width)."""
        features = timestep_embedding(t, self.config.block_out_channels[0])
        return self.time_embedding(features.to(self.conv_in.weight.dtype))

    def encode(
        self, x: Tensor, temb: Tensor, context: Context, hint: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The middle activation and the skips, shallow to deep.

        x: (B, in_channels, H, W); temb: (B, 4·width); context: (B, L, cross_attention_dim); hint: features added after
        the first convolution, (B, width, H, W): only a ControlNet passes them.
        """
        h = self.conv_in(x)
        if hint is not None:
            h = h + hint
        skips = [h]
        for block in self.down_blocks:
            h, more = block(h, temb, context, self.recompute)
            skips += more
        return self.mid_block(h, temb, context, self.recompute), skips


class UNet(EncoderHalf):
    """ε_θ(x_t, t, context), or v_θ as the checkpoint was trained."""

    def __init__(self, config: UNetConfig = UNetConfig()):
        super().__init__(config)
        widths = config.block_out_channels
        self.up_blocks = nn.ModuleList(
            UpBlock(config, channels, first=level == 0, last=level == len(widths) - 1)
            for level, channels in enumerate(decoder_channels(config))
        )
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[0], eps=1e-5)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def decode(self, h: Tensor, skips: list[Tensor], temb: Tensor, context: Context) -> Tensor:
        """From the middle activation and the skips to the prediction, (B, out_channels, H, W)."""
        for finer in self.decoder_levels(h, skips, temb, context):
            h = finer
        return self.conv_out(F.silu(self.conv_norm_out(h)))

    def decoder_levels(self, h: Tensor, skips: list[Tensor], temb: Tensor, context: Context) -> Iterator[Tensor]:
        """What each level of the decoder hands on, coarse to fine: what a head can read (see outfit/clothing.py)."""
        skips = list(skips)
        for block in self.up_blocks:
            h = block(h, skips, temb, context, self.recompute)
            yield h

    def forward(self, x: Tensor, t: Tensor, context: Context, control: "Control | None" = None) -> Tensor:
        """x: (B, in_channels, H, W), any H and W; t: (B,); context: (B, L, cross_attention_dim).

        control: what a ControlNet returned; it adds to the middle and to each skip.
        """
        temb = self.embed_time(t)  # (B, 4·width)
        h, skips = self.encode(x, temb, context)
        if control is not None:  # y_c = F(x; Θ) + Z(F(x + Z(c; Θ_z1); Θ_c); Θ_z2), at every connection
            h, skips = h + control.middle, [s + r for s, r in zip(skips, control.skips, strict=True)]
        return self.decode(h, skips, temb, context)


def resblock(config: UNetConfig, in_channels: int, out_channels: int) -> ResBlock:
    return ResBlock(in_channels, out_channels, config.temb_channels, config.norm_num_groups, eps=1e-5)


def transformer(config: UNetConfig, channels: int) -> SpatialTransformer:
    heads, linear = config.heads_of(channels), config.use_linear_projection
    return SpatialTransformer(channels, heads, config.cross_attention_dim, config.norm_num_groups, linear)


def skip_channels(config: UNetConfig) -> list[int]:
    """Channels of each skip, shallow to deep: after the first convolution, each residual block, each downsampling."""
    widths = config.block_out_channels
    channels = [widths[0]]
    for width in widths:
        channels += [width] * (config.layers_per_block + 1)
    return channels[:-1]  # the last level does not downsample


def decoder_channels(config: UNetConfig) -> list[list[tuple[int, int]]]:
    """(in, out) of every residual block of the decoder, deep to shallow: each takes the deepest skip that is left."""
    skips, h = skip_channels(config), config.block_out_channels[-1]
    levels = []
    for width in reversed(config.block_out_channels):
        level = []
        for _ in range(config.layers_per_block + 1):
            level.append((h + skips.pop(), width))
            h = width
        levels.append(level)
    return levels
