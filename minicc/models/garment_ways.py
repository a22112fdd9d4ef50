"""Ways for a ControlNet to see a garment: the joint attention of `models.garment`, and what it is compared with.

| way | the garment enters | after |
|---|---|---|
| joint | the copy's self-attention, keys and values joined | OOTDiffusion (arXiv 2403.01779) |
| plain | the hint, as three more channels | ControlNet's own hint (arXiv 2302.05543) |
| canvas | the copy's picture, side by side; cropped before the zero convolutions | CatVTON (arXiv 2407.15886) |
| decoder | as joint, and by zero-initialised cross-attention into the locked decoder | StableVITON (arXiv 2312.01725) |
| words | the copy's sentence, as more tokens | IP-Adapter (arXiv 2308.06721), in the copy |

The shipped phase 2 has the decoder's way. What a way makes of a garment is a `KeysValues` that is joined to the text's,
of the copy and of the locked U-Net; each module finds there what is under its own name. Without a garment each is the
plain ControlNet.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicc.errors import Error
from minicc.models.blocks import Context, KeysValues, KeyValue, keys_values, tokens, transformers
from minicc.models.controlnet import Control, ControlNet, completed, positions, widened
from minicc.models.garment import Added, Seen, see, see_deeply
from minicc.models.unet import UNet

WAY = "_minicc_garment_way"  # in a config: private by its _, so that others skip it


class GarmentControlNet(ControlNet):
    """A ControlNet that sees garments in a way of its own."""

    way = ""

    def look(self, garment: Tensor, picture: Tensor, hint: Tensor, empty: Tensor, unet: UNet) -> KeysValues:
        """What is seen of a garment, once for all steps.

        garment: scaled latents of its picture, (1 or B, 4, h, w); picture: the same, (1 or B, 3, H, W) in [0, 1];
        hint: of the character, (1 or B, 3, H', W'); empty: the empty sentence's context, (1, 77, D); unet: the locked
        one.
        """
        raise NotImplementedError

    def to_config(self) -> dict[str, Any]:
        """As any ControlNet's, and the way."""
        return super().to_config() | {WAY: self.way}

    def save(self, path: str | Path, layout: str = "diffusers", dtype: torch.dtype | None = None) -> Path:
        """To a diffusers folder; there is no other layout, as no other tool knows how this one sees a garment."""
        if layout != "diffusers":
            raise Error(f"layout={layout!r}: other tools do not know the way {self.way!r}; expected 'diffusers'")
        return super().save(path, layout, dtype)


class PlainHint(GarmentControlNet):
    """The garment as three more channels of the hint: it lies over the character, wherever its picture has it."""

    way = "plain"

    def look(self, garment: Tensor, picture: Tensor, hint: Tensor, empty: Tensor, unet: UNet) -> KeysValues:
        count, size = max(len(picture), len(hint)), hint.shape[-2:]
        over = F.interpolate(picture, size, mode="bilinear").to(hint).expand(count, -1, -1, -1)
        body = completed(hint, self.conditioning_channels - 3).expand(count, -1, -1, -1)
        encoder = self.controlnet_cond_embedding
        return {encoder: encoder(torch.cat([body, over], dim=1))}  # (B, width, h, w)

    def control(self, x: Tensor, t: Tensor, context: Context, features: Tensor) -> Control:
        dressed = found(context, self.controlnet_cond_embedding)
        return super().control(x, t, context, features if dressed is None else dressed)


class Canvas(GarmentControlNet):
    """The garment beside the character on one canvas: convolutions and attention see both halves."""

    way = "canvas"

    def look(self, garment: Tensor, picture: Tensor, hint: Tensor, empty: Tensor, unet: UNet) -> KeysValues:
        return {self.conv_in: garment}

    def control(self, x: Tensor, t: Tensor, context: Context, features: Tensor) -> Control:
        garment = found(context, self.conv_in)
        if garment is None:
            return super().control(x, t, context, features)
        beside = F.interpolate(garment, x.shape[-2:]).to(x).expand(len(x), -1, -1, -1)
        canvas = torch.cat([x, beside], dim=-1)  # (B, 4, h, 2w)
        hint = torch.cat([features, torch.zeros_like(features)], dim=-1)
        h, skips = self.encode(canvas, self.embed_time(t), context, hint=hint)
        residuals = (Z(left(s)) for Z, s in zip(self.controlnet_down_blocks, skips, strict=True))
        return Control(tuple(residuals), self.controlnet_mid_block(left(h)))


class Words(GarmentControlNet):
    """The garment as more words: its latents, two by two with their positions, projected to tokens of the sentence."""

    way = "words"
    idle_without_garment = True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        width = self.config.cross_attention_dim
        self.words = nn.Conv2d(self.config.in_channels + 2, width, 2, stride=2)
        self.norm = nn.LayerNorm(width)  # as the text encoder ends with one

    def look(self, garment: Tensor, picture: Tensor, hint: Tensor, empty: Tensor, unet: UNet) -> KeysValues:
        words = self.norm(tokens(self.words(torch.cat([garment, positions(garment)], dim=1))))  # (B, hw/4, D)
        return {self.words: keys_values(self, words)}

    def control(self, x: Tensor, t: Tensor, context: Context, features: Tensor) -> Control:
        words = found(context, self.words)
        if words is not None:
            assert isinstance(context, dict)
            context = context | {attention: joined(context[attention], words[attention]) for attention in words}
        return super().control(x, t, context, features)


class Decoder(GarmentControlNet):
    """Joint attention, and one layer after each cross-attention of the locked decoder that sees the garment's skips."""

    way = "decoder"
    idle_without_garment = True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        widths, each = self.config.block_out_channels, self.config.layers_per_block + 1
        self.levels = [level for level in reversed(range(len(widths) - 1)) for _ in range(each)]  # coarse to fine
        self.added = nn.ModuleList(Added(widths[n], self.config.heads_of(widths[n])) for n in self.levels)

    def look(self, garment: Tensor, picture: Tensor, hint: Tensor, empty: Tensor, unet: UNet) -> KeysValues:
        seen, skips = see_deeply(self, garment, empty)
        each = self.config.layers_per_block + 1
        features = [tokens(skips[level * each + each - 1]) for level in self.levels]  # the level's last, not yet halved
        layers = map(Seen, self.added, features)
        return seen | dict(zip(transformers(unet.up_blocks), layers, strict=True))


WAYS: dict[str, type[GarmentControlNet]] = {way.way: way for way in (PlainHint, Canvas, Decoder, Words)}


def look(
    control: ControlNet, garment: Tensor, picture: Tensor, hint: Tensor, empty: Tensor, unet: UNet
) -> KeysValues:  # fmt: skip
    """What any ControlNet sees of a garment, in its own way; arguments as for `GarmentControlNet.look`."""
    if isinstance(control, GarmentControlNet):
        return control.look(garment, picture, hint, empty, unet)
    return see(control, garment, empty)


def way_of(control: ControlNet) -> str:
    """How this ControlNet sees a garment."""
    return control.way if isinstance(control, GarmentControlNet) else "joint"


def in_way(start: ControlNet, way: str | None = None, with_positions: bool = False) -> ControlNet:
    """A ControlNet that begins as another one, such as phase 1's, and sees garments in the way named; None: in its own.

    with_positions: two more channels of the hint tell where each pixel lies. Raises Error for an unknown way, or if it
    already has another.
    """
    way = way or way_of(start)
    if way not in ("joint", *WAYS):
        raise Error(f"there is no way {way!r} to see a garment; expected joint, {', '.join(WAYS)}")
    if way_of(start) not in ("joint", way):
        raise Error(f"this ControlNet sees a garment in the way {way_of(start)!r} and learns no other: not {way!r}")
    with_positions |= start.conditioning_channels in (5, 8)
    channels = 3 + 2 * with_positions + 3 * (way == "plain")
    if start.conditioning_channels not in (3, channels):
        raise Error(f"a hint of {start.conditioning_channels} channels cannot begin one of {channels}; expected 3")
    control = start if channels == start.conditioning_channels else widened(start, channels)
    if way_of(control) == way:
        return control
    made = empty_of(way, control.to_config()).to(control.conv_in.weight)
    made.load_state_dict(made.state_dict() | control.state_dict())
    return made


def empty_of(way: str, config: dict[str, Any]) -> GarmentControlNet:
    """A ControlNet of this way and shape; its added layers' first weights are those of one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        control = WAYS[way].from_config(config)
    assert isinstance(control, GarmentControlNet)
    return control


def from_config(config: dict[str, Any]) -> ControlNet:
    """A ControlNet of this shape and way, its weights not yet loaded. Raises Error for a way that is not known."""
    way = config.get(WAY)
    if way is None:
        return ControlNet.from_config(config)
    if way not in WAYS:
        raise Error(f"config: {WAY} is {way!r}, expected one of {', '.join(WAYS)}, or nothing")
    return empty_of(way, config)


def found(context: Context, module: nn.Module) -> Any:
    """What a context has under a module; None if nothing."""
    return context.get(module) if isinstance(context, dict) else None


def joined(a: KeyValue, b: KeyValue) -> KeyValue:
    """Keys and values of two lists of tokens as one list's."""
    count = max(len(a[0]), len(b[0]))
    k, v = (torch.cat([x.expand(count, -1, -1, -1) for x in pair], dim=2) for pair in zip(a, b, strict=True))
    return k, v


def left(x: Tensor) -> Tensor:
    """The character's half of a canvas."""
    return x[..., : (x.shape[-1] + 1) // 2]
