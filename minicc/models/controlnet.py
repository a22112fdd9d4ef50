"""ControlNet on Stable Diffusion's U-Net: the trainable copy, its zero convolutions, and how its output is used.

Zhang et al. 2023, arXiv 2302.05543. The copy is the encoder half and the middle block (`EncoderHalf`), fed the noisy
latents plus the hint's features; each skip and the middle leave it through a zero convolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicc.errors import Error
from minicc.fields import checked
from minicc.models.blocks import Context
from minicc.models.configs import UNetConfig
from minicc.models.unet import EncoderHalf, UNet, skip_channels
from minicc.models.zero_conv import lock, zero_conv


@dataclass(frozen=True)
class Control:
    """What a ControlNet returns: one residual for each skip, shallow to deep, and one for the middle.

    Controls add up and scale: `control_a + 0.5 * control_b`.
    """

    skips: tuple[Tensor, ...]
    middle: Tensor

    def __add__(self, other: "Control") -> "Control":
        if len(self.skips) != len(other.skips):
            raise Error(f"controls of {len(self.skips)} and {len(other.skips)} skips do not add: same U-Net needed")
        return Control(tuple(a + b for a, b in zip(self.skips, other.skips, strict=True)), self.middle + other.middle)

    def __mul__(self, strength: float | Tensor | Sequence[float]) -> "Control":
        """strength: one number, or one for each skip and then the middle."""
        count = len(self.skips) + 1
        strengths = list(strength) if isinstance(strength, Sequence) else [strength] * count
        if len(strengths) != count:
            raise Error(f"{len(strengths)} strengths for {count} residuals: one a skip, then the middle")
        *skips, middle = (s * r for s, r in zip(strengths, (*self.skips, self.middle), strict=True))
        return Control(tuple(skips), middle)

    __rmul__ = __mul__

    def only_mid(self) -> "Control":
        """The official code's `only_mid_control`: nothing on the skips."""
        return self * ([0.0] * len(self.skips) + [1.0])

    def guess(self) -> "Control":
        """Guess mode: strength 0.825^(12−i), deeper is stronger; on the conditional branch only."""
        depth = len(self.skips)
        return self * [0.825 ** (depth - i) for i in range(depth + 1)]


class HintEncoder(nn.Module):
    """Eight 3×3 convolutions with SiLU, three of stride 2, the last one zero: (B, 3, H, W) → (B, width, H/8, W/8).

    These are the released weights' layers (3→16→16→32→32→96→96→256→320); the paper's text describes four.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], out_channels: int):
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(channels):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = zero_conv(channels[-1], out_channels, kernel_size=3)

    def forward(self, hint: Tensor) -> Tensor:
        """hint: as many channels as there are, or three: then the others are filled in, see `completed`."""
        h = F.silu(self.conv_in(completed(hint, self.conv_in.in_channels)))
        for conv in self.blocks:
            h = F.silu(conv(h))
        return self.conv_out(h)


def completed(hint: Tensor, channels: int) -> Tensor:
    """A picture's three channels → as many as an encoder expects: two more are positions, three more a garment.

    5: hint, positions; 6: hint, garment; 8: hint, positions, garment. The garment is left out here: its channels are 0.
    Raises Error for another number of channels.
    """
    if hint.shape[1] == channels:
        return hint
    if hint.shape[1] != 3 or channels not in (5, 6, 8):
        raise Error(f"the hint has {hint.shape[1]} channels, this ControlNet's {channels}: give it all of them")
    if channels in (5, 8):
        hint = torch.cat([hint, positions(hint)], dim=1)
    return F.pad(hint, (0, 0, 0, 0, 0, channels - hint.shape[1]))


def positions(x: Tensor) -> Tensor:
    """Where each pixel lies, (B, 2, H, W): from the left and from the top, in (0, 1)."""
    height, width = x.shape[-2:]
    down, right = ((torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) / n for n in (height, width))
    both = torch.stack([right.expand(height, width), down[:, None].expand(height, width)])
    return both.expand(len(x), -1, -1, -1)


def widened(control: "ControlNet", channels: int) -> "ControlNet":
    """The same ControlNet for a hint of more channels, whose weights are zero: it does what it did until it learns."""
    wide = type(control)(control.config, control.hint_channels, channels)
    state = control.state_dict()
    key = "controlnet_cond_embedding.conv_in.weight"
    state[key] = F.pad(state[key], (0, 0, 0, 0, 0, channels - control.conditioning_channels))
    wide.load_state_dict(state)
    return wide.to(state[key].device, state[key].dtype)


@dataclass(frozen=True)
class HintShape:
    """The hint encoder's part of a diffusers config, and a note of ours, private by its _, so that others skip it."""

    conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256)
    conditioning_channels: int = 3
    phase: int | None = None  # `_minicc_phase`

    def __post_init__(self) -> None:
        if self.phase not in (None, 1, 2):
            raise Error(f"config: _minicc_phase is {self.phase}, expected 1 or 2, or nothing")
        if min(self.conditioning_embedding_out_channels) < 1 or self.conditioning_channels < 1:
            raise Error(f"config: {self}: expected channels of 1 or more")


class ControlNet(EncoderHalf):
    """The trainable copy Θ_c, the hint encoder (Θ_z1), and the zero convolutions (Θ_z2): 12 + 1 in Stable Diffusion."""

    idle_without_garment = False  # whether some layers see garments and nothing else

    def __init__(
        self,
        config: UNetConfig = UNetConfig(),
        hint_channels: Sequence[int] = (16, 32, 96, 256),
        conditioning_channels: int = 3,
    ):
        """hint_channels: of the hint encoder, level by level; conditioning_channels: of the hint, 3 for a picture."""
        super().__init__(config)
        self.hint_channels, self.conditioning_channels = tuple(hint_channels), conditioning_channels
        self.phase: int | None = None  # that it was trained for, 1 or 2; None: not known, as of official ones
        width, deepest = config.block_out_channels[0], config.block_out_channels[-1]
        self.controlnet_cond_embedding = HintEncoder(conditioning_channels, hint_channels, width)
        self.controlnet_down_blocks = nn.ModuleList(zero_conv(c, c) for c in skip_channels(config))
        self.controlnet_mid_block = zero_conv(deepest, deepest)

    @classmethod
    def from_unet(cls, unet: UNet, hint_channels: Sequence[int] = (16, 32, 96, 256), **kwargs: Any) -> "ControlNet":
        """The trainable copy: the encoder half cloned, zero convolutions zero, on the U-Net's device, in its dtype."""
        weight = unet.conv_in.weight
        control = cls(unet.config, hint_channels, **kwargs).to(weight.device, weight.dtype)
        missing, _ = control.load_state_dict(unet.state_dict(), strict=False)
        left = [key for key in missing if not key.startswith("controlnet_")]
        if left:
            raise Error(f"{len(left)} parameters of the U-Net's encoder were not found, e.g. {left[0]}")
        return control

    def check_fits(self, unet: UNet) -> None:
        """Raise Error unless the copy has the shape of this U-Net's encoder: SD 1.x's controls no SD 2.x."""
        for name in ("block_out_channels", "layers_per_block", "cross_attention_dim"):
            ours, theirs = getattr(self.config, name), getattr(unet.config, name)
            if ours != theirs:
                raise Error(
                    f"the ControlNet was made for another base: its {name} is {ours}, the U-Net's is {theirs}. "
                    "Take a ControlNet of the checkpoint's family (SD 1.x or SD 2.x)"
                )

    def forward(self, x: Tensor, t: Tensor, context: Context, hint: Tensor) -> Control:
        """x: (B, 4, h, w); t: (B,); context: (B, L, D); hint: (B, 3, 8h, 8w) in [0, 1], masked pixels −1."""
        stride = 2 ** (len(self.hint_channels) - 1)
        if hint.shape[-2:] != (expected := (stride * x.shape[-2], stride * x.shape[-1])):
            raise Error(
                f"hint is {tuple(hint.shape[-2:])} pixels, expected {expected}: {stride} times the latents' side"
            )
        return self.control(x, t, context, self.controlnet_cond_embedding(hint))

    def control(self, x: Tensor, t: Tensor, context: Context, features: Tensor) -> Control:
        """As forward, with the hint already encoded to features (B, width, h, w): they are the same at every step."""
        h, skips = self.encode(x, self.embed_time(t), context, hint=features)
        residuals = (Z(s) for Z, s in zip(self.controlnet_down_blocks, skips, strict=True))
        return Control(tuple(residuals), self.controlnet_mid_block(h))

    def to_config(self) -> dict[str, Any]:
        """The values of diffusers' ControlNetModel config that describe this ControlNet."""
        config = self.config.to_config()
        for decoder_only in ("out_channels", "up_block_types", "sample_size"):
            del config[decoder_only]
        if self.phase is not None:
            config["_minicc_phase"] = self.phase
        return config | {
            "conditioning_channels": self.conditioning_channels,
            "conditioning_embedding_out_channels": list(self.hint_channels),
            "controlnet_conditioning_channel_order": "rgb",
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ControlNet":
        """A ControlNet of this shape, its weights not yet loaded, from a diffusers config."""
        shape = HintShape(**checked(HintShape, config, {"_minicc_phase": "phase"}))
        hint_channels = shape.conditioning_embedding_out_channels
        control = cls(UNetConfig.from_config(config), hint_channels, shape.conditioning_channels)
        control.phase = shape.phase
        return control

    @classmethod
    def load(cls, source: str | Path, unet: UNet | None = None, **kwargs: Any) -> "ControlNet":
        """A shipped ControlNet by name, an official or our own file or folder; see `minicc.weights.load_controlnet`."""
        from minicc.weights.load import load_controlnet  # the loader stands above the models

        return load_controlnet(source, unet=unet, **kwargs)

    def save(self, path: str | Path, layout: str = "diffusers", dtype: torch.dtype | None = None) -> Path:
        """To a diffusers folder, or (layout="compvis") to the single file that ComfyUI and A1111 read; dtype: there."""
        from minicc.weights.export import save_controlnet

        return save_controlnet(self, path, layout, dtype)


def trainable(unet: UNet, control: ControlNet, sd_locked: bool = True) -> list[nn.Parameter]:
    """Lock the U-Net, open the copy, and return what an optimizer may touch.

    sd_locked=False also opens the U-Net's decoder (the official option of that name): the base changes too.
    """
    lock(unet)
    control.train()
    learning = [control, *([] if sd_locked else opened(unet).values())]
    for module in learning:
        module.requires_grad_(True)
    return [p for module in learning for p in module.parameters()]


def opened(unet: UNet) -> dict[str, nn.Module]:
    """The U-Net's decoder by the names of its parts: what sd_locked=False opens."""
    return {name: getattr(unet, name) for name in ("up_blocks", "conv_norm_out", "conv_out")}
