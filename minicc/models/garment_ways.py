"""Other ways for a ControlNet to see a garment, to be compared with the joint attention of `models.garment`.

| way | the garment enters | after |
|---|---|---|
| joint | the copy's self-attention, keys and values joined | OOTDiffusion (arXiv 2403.01779) |
| plain | the hint, as three more channels | ControlNet's own hint (arXiv 2302.05543) |
| canvas | the copy's picture, side by side; cropped before the zero convolutions | CatVTON (arXiv 2407.15886) |
| decoder | as joint, and by zero-initialised cross-attention into the locked decoder | StableVITON (arXiv 2312.01725) |
| words | the copy's sentence, as more tokens | IP-Adapter (arXiv 2308.06721), in the copy |

What a way makes of a garment is a `KeysValues` that is joined to the text's, of the copy and of the locked U-Net; each
module finds there what is under its own name. Without a garment each is the plain ControlNet.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minicc.errors import Error
from minicc.models.blocks import Attention, Context, KeysValues, KeyValue, keys_values, tokens, transformers
from minicc.models.controlnet import Control, ControlNet, completed, positions, widened
from minicc.models.garment import see, see_deeply
from minicc.models.unet import UNet

FILE = "diffusion_pytorch_model.safetensors"


class GarmentControlNet(ControlNet):
    """A ControlNet that sees garments in a way of its own."""

    way = ""

    def look(self, garment: Tensor, picture: Tensor, hint: Tensor, empty: Tensor) -> KeysValues:
        """What is seen of a garment, once for all steps.

        garment: scaled latents of its picture, (1 or B, 4, h, w); picture: the same, (1 or B, 3, H, W) in [0, 1];
        hint: of the character, (1 or B, 3, H', W'); empty: the empty sentence's context, (1, 77, D).
        """
        raise NotImplementedError

    def save(self, path: str | Path, layout: str = "diffusers", dtype: torch.dtype | None = None) -> Path:
        """To a folder that `load_way` reads; no other tool knows these layers, so there is one layout."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {k: v.to(dtype or v.dtype).contiguous() for k, v in self.state_dict().items()},
            folder / FILE,
            {"format": "pt"},
        )
        (folder / "config.json").write_text(json.dumps(self.to_config() | {"garment_way": self.way}, indent=2) + "\n")
        return folder


class PlainHint(GarmentControlNet):
    """The garment as three more channels of the hint: it lies over the character, wherever its picture has it."""

    way = "plain"

    def look(self, garment: Tensor, picture: Tensor, hint: Tensor, empty: Tensor) -> KeysValues:
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

    def look(self, garment: Tensor, picture: Tensor, hint: Tensor, empty: Tensor) -> KeysValues:
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

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        width = self.config.cross_attention_dim
        self.words = nn.Conv2d(self.config.in_channels + 2, width, 2, stride=2)
        self.norm = nn.LayerNorm(width)  # as the text encoder ends with one

    def look(self, garment: Tensor, picture: Tensor, hint: Tensor, empty: Tensor) -> KeysValues:
        words = self.norm(tokens(self.words(torch.cat([garment, positions(garment)], dim=1))))  # (B, hw/4, D)
        return {self.words: keys_values(self, words)}

    def control(self, x: Tensor, t: Tensor, context: Context, features: Tensor) -> Control:
        words = found(context, self.words)
        if words is not None:
            assert isinstance(context, dict)
            context = context | {attention: joined(context[attention], words[attention]) for attention in words}
        return super().control(x, t, context, features)


class Added(Attention):
    """Z(softmax(q kᵀ/√d) v): cross-attention to the garment whose last projection Z starts at zero."""

    def __init__(self, channels: int, heads: int):
        super().__init__(channels, heads)
        self.norm = nn.LayerNorm(channels)
        for parameter in self.to_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Any = None, beside: KeyValue | None = None) -> Tensor:
        """context: the garment's features of this level, (1 or B, M, C)."""
        return super().forward(self.norm(x), context.expand(len(x), -1, -1))


class Decoder(GarmentControlNet):
    """Joint attention, and one layer after each cross-attention of the locked decoder that sees the garment's skips."""

    way = "decoder"

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        widths, each = self.config.block_out_channels, self.config.layers_per_block + 1
        self.levels = [level for level in reversed(range(len(widths) - 1)) for _ in range(each)]  # coarse to fine
        self.added = nn.ModuleList(Added(widths[n], self.config.heads_of(widths[n])) for n in self.levels)
        self.locked: list[nn.Module] = []  # the decoder's blocks: a list, since they are not this module's

    def beside(self, unet: UNet) -> "Decoder":
        """Say which locked U-Net's decoder the layers are added to; returns self."""
        self.locked = list(transformers(unet.up_blocks))
        return self

    def look(self, garment: Tensor, picture: Tensor, hint: Tensor, empty: Tensor) -> KeysValues:
        seen, skips = see_deeply(self, garment, empty)
        each = self.config.layers_per_block + 1
        features = [tokens(skips[level * each + each - 1]) for level in self.levels]  # the level's last, not yet halved
        layers = (partial(layer, context=f) for layer, f in zip(self.added, features, strict=True))
        return seen | dict(zip(self.locked, layers, strict=True))


WAYS: dict[str, type[GarmentControlNet]] = {way.way: way for way in (PlainHint, Canvas, Decoder, Words)}


def look(control: ControlNet, garment: Tensor, picture: Tensor, hint: Tensor, empty: Tensor) -> KeysValues:
    """What any ControlNet sees of a garment, in its own way; arguments as for `GarmentControlNet.look`."""
    if isinstance(control, GarmentControlNet):
        return control.look(garment, picture, hint, empty)
    return see(control, garment, empty)


def in_way(start: ControlNet, unet: UNet, way: str = "joint", with_positions: bool = False) -> ControlNet:
    """A ControlNet that begins as another one, such as phase 1's, and sees garments in the way named.

    with_positions: two more channels of the hint tell where each pixel lies. Raises Error for an unknown way.
    """
    if way not in ("joint", *WAYS):
        raise Error(f"there is no way {way!r} to see a garment; expected joint, {', '.join(WAYS)}")
    channels = 3 + 2 * with_positions + 3 * (way == "plain")
    if start.conditioning_channels not in (3, channels):
        raise Error(f"a hint of {start.conditioning_channels} channels cannot begin one of {channels}; expected 3")
    control = start if channels == start.conditioning_channels else widened(start, channels)
    if way == "joint":
        return control
    made = empty_of(way, control.to_config(), unet).to(control.conv_in.weight)
    made.load_state_dict(made.state_dict() | control.state_dict())
    return made


def load_way(
    source: str | Path, unet: UNet, dtype: torch.dtype | None = None, *, look: bool = False
) -> ControlNet:  # fmt: skip
    """What `ControlNet.load` reads, and the folders of other ways, which say so in their config; dtype: None is the
    U-Net's. look: at every number, see there. Raises Error.
    """
    config = Path(source) / "config.json"
    way = json.loads(config.read_text()).get("garment_way") if config.is_file() else None
    if way is None:
        return ControlNet.load(source, unet=unet, dtype=dtype, look=look)
    try:
        control = empty_of(way, json.loads(config.read_text()), unet)
        control.load_state_dict(load_file(config.with_name(FILE)))
    except (KeyError, OSError, SafetensorError, RuntimeError) as problem:
        raise Error(f"{source} is no ControlNet of the way {way!r} ({problem}); train it again") from problem
    control.check_fits(unet)
    return control.to(unet.conv_in.weight.device, dtype or unet.conv_in.weight.dtype)


def empty_of(way: str, config: dict[str, Any], unet: UNet) -> GarmentControlNet:
    """A ControlNet of this way and shape; its added layers' first weights are those of one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        control = WAYS[way].from_config(config)
    assert isinstance(control, GarmentControlNet)
    return control.beside(unet) if isinstance(control, Decoder) else control


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
