"""The autoencoder of Stable Diffusion: pictures (3 channels) ↔ latents (4 channels, an eighth of the side).

A KL-regularised VAE (Kingma & Welling 2013, arXiv 1312.6114; Rombach et al. 2022, arXiv 2112.10752, appendix G):
the encoder gives mean and log variance of a Gaussian over latents, the decoder a picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicc.models.blocks import Attention, Context, Downsample, KeyValue, ResBlock, Upsample, pixels, run, tokens
from minicc.models.configs import VAEConfig

EPS = 1e-6  # of every GroupNorm here; the U-Net's is 1e-5


@dataclass(frozen=True)
class Gaussian:
    """q(z|x) = N(mean, diag(exp(logvar))); mean, logvar: (B, 4, H/8, W/8)."""

    mean: Tensor
    logvar: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """z = mean + σ·noise, the reparametrisation: gradients reach mean and logvar."""
        noise = torch.randn(self.mean.shape, generator=generator, device=generator.device)
        return self.mean + (0.5 * self.logvar).exp() * noise.to(self.mean)

    def kl(self) -> Tensor:
        """KL(q ‖ N(0, I)) = ½ Σ (mean² + σ² − 1 − log σ²), one number a picture, (B,)."""
        terms = self.mean.square() + self.logvar.exp() - 1 - self.logvar
        return 0.5 * terms.flatten(1).sum(1)


class PixelAttention(Attention):
    """One-headed self-attention over the pixels of a feature map, added to it: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, channels: int, groups: int):
        super().__init__(channels, heads=1, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, eps=EPS)

    def forward(self, x: Tensor, context: Context | None = None, beside: KeyValue | None = None) -> Tensor:
        h = super().forward(tokens(self.group_norm(x)), context, beside)
        return x + pixels(h, x.shape[-2:])


class Level(nn.Module):
    """Residual blocks, then half the side (encoder), twice the side (decoder) or neither (the last)."""

    def __init__(self, config: VAEConfig, layers: int, in_channels: int, out_channels: int):
        super().__init__()
        widths = [in_channels] + [out_channels] * (layers - 1)
        self.resnets = nn.ModuleList(resblock(config, width, out_channels) for width in widths)

    def forward(self, h: Tensor, recompute: bool) -> Tensor:
        return self.resize(self.residual(h, recompute))

    def residual(self, h: Tensor, recompute: bool) -> Tensor:
        """The residual blocks alone."""
        for resnet in self.resnets:
            h = run(resnet, h, recompute=recompute)
        return h

    def resize(self, h: Tensor) -> Tensor:
        """To the next level's side."""
        for resize in [*getattr(self, "downsamplers", ()), *getattr(self, "upsamplers", ())]:
            h = resize(h)
        return h


class MiddleBlock(nn.Module):
    """Residual block, attention, residual block at the smallest side."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        width = config.block_out_channels[-1]
        self.attentions = nn.ModuleList([PixelAttention(width, config.norm_num_groups)])
        self.resnets = nn.ModuleList([resblock(config, width, width), resblock(config, width, width)])

    def forward(self, h: Tensor, recompute: bool) -> Tensor:
        before, after = self.resnets
        h = run(self.attentions[0], run(before, h, recompute=recompute), recompute=recompute)
        return run(after, h, recompute=recompute)


class Encoder(nn.Module):
    """(B, 3, H, W) → (B, 2·4, H/8, W/8): mean and log variance, stacked."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, (before, width) in enumerate(zip(widths[:1] + widths[:-1], widths, strict=True)):
            level = Level(config, config.layers_per_block, before, width)
            if i < len(widths) - 1:
                level.downsamplers = nn.ModuleList([Downsample(width, asymmetric=True)])
            self.down_blocks.append(level)
        self.mid_block = MiddleBlock(config)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def levels(self, x: Tensor, recompute: bool = False) -> Iterator[Tensor]:
        """What each level makes of x (B, 3, H, W), fine to coarse, before it halves the side; last the middle block."""
        h = self.conv_in(x)
        for level in cast(list[Level], self.down_blocks):
            h = level.residual(h, recompute)
            yield h
            h = level.resize(h)
        yield self.mid_block(h, recompute)

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        for level in self.levels(x, recompute):
            h = level
        return self.numbers(h)

    def numbers(self, h: Tensor) -> Tensor:
        """What the middle block made → the posterior's numbers, before quant_conv."""
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class Decoder(nn.Module):
    """(B, 4, H/8, W/8) → (B, 3, H, W)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths = config.block_out_channels[::-1]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MiddleBlock(config)
        self.up_blocks = nn.ModuleList()
        for i, (before, width) in enumerate(zip(widths[:1] + widths[:-1], widths, strict=True)):
            level = Level(config, config.layers_per_block + 1, before, width)
            if i < len(widths) - 1:
                level.upsamplers = nn.ModuleList([Upsample(width)])
            self.up_blocks.append(level)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor, recompute: bool = False) -> Tensor:
        h = self.mid_block(self.conv_in(z), recompute)
        for level in self.up_blocks:
            h = level(h, recompute)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class VAE(nn.Module):
    """Encoder and decoder. Latents here are unscaled; the diffusion model sees scaling_factor · z."""

    def __init__(self, config: VAEConfig = VAEConfig()):
        super().__init__()
        self.config = config
        self.recompute = False  # True: gradient checkpointing
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)

    @property
    def stride(self) -> int:
        """Pixels a latent cell is wide: 8 for Stable Diffusion."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    def encode(self, x: Tensor) -> Gaussian:
        """x: (B, 3, H, W) in [-1, 1], H and W multiples of the stride. Returns q(z|x); logvar is kept in [-30, 20]."""
        return self.posterior(self.encoder(x, self.recompute))

    def encode_levels(self, x: Tensor) -> tuple[list[Tensor], Gaussian]:
        """The encoder's levels, see `Encoder.levels`, and q(z|x), by one pass."""
        levels = [*self.encoder.levels(x, self.recompute)]
        return levels, self.posterior(self.encoder.numbers(levels[-1]))

    def posterior(self, numbers: Tensor) -> Gaussian:
        """The encoder's output → q(z|x)."""
        mean, logvar = self.quant_conv(numbers).chunk(2, dim=1)
        return Gaussian(mean, logvar.clamp(-30, 20))

    def decode(self, z: Tensor) -> Tensor:
        """z: (B, 4, h, w). Returns (B, 3, 8h, 8w), about [-1, 1]."""
        return self.decoder(self.post_quant_conv(z), self.recompute)


def resblock(config: VAEConfig, in_channels: int, out_channels: int) -> ResBlock:
    return ResBlock(in_channels, out_channels, None, config.norm_num_groups, EPS)
