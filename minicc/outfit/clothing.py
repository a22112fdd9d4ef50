"""Finding the clothes: a light head reads, pixel by pixel, what the locked models already know.

Label-efficient segmentation with diffusion models (Baranchuk et al. 2021, arXiv 2112.03126): the activations of a U-Net
on a slightly noisy picture tell parts of things apart, so a few labelled pictures are enough. Edges come from the VAE's
encoder, whose first level is as fine as the picture. It works the same on any Stable Diffusion.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minicc.data.samples import CLASSES, CLOTHES
from minicc.data.tensors import to_tensor
from minicc.errors import Error, WeightsError
from minicc.outfit.names import Name, Names, pooled
from minicc.outfit.window import figure_window, whole
from minicc.pipeline import SHIPPED, StableDiffusion
from minicc.weights.export import write_safetensors
from minicc.weights.fill import finite
from minicc.weights.source import not_shipped

T = 50  # timestep at which the U-Net looks: the least noise of the paper's 50, 150, 250
LOG_DOUBT = -3.5  # where the doubt of an untrained head begins: 3 % of the side
Look = Callable[[Tensor], list[Tensor]]  # pictures → feature maps


@torch.no_grad()
def features(sd: StableDiffusion, images: Tensor, t: int = T, empty: Tensor | None = None) -> list[Tensor]:
    """What the locked models see in pictures, the finest map first: the VAE encoder's levels, the U-Net decoder's.

    images: (B, 3, H, W) in [-1, 1], sides multiples of the stride. t: the timestep; the noise is always the same, the
    sentence empty. empty: its context, (1, 77, D), for who asks often. Returns maps (B, C, h, w) of several sizes.
    """
    sd.check_sides(images.shape[-1], images.shape[-2])
    levels, q = sd.vae.encode_levels(images.to(sd.device, sd.dtype))
    z = sd.vae.config.scaling_factor * q.mean  # (B, 4, h, w)
    x_t = sd.schedule.add_noise(z, same_noise(z), t)
    temb = sd.unet.embed_time(torch.full((len(z),), t, device=z.device))
    context = (sd.encode_text([""]) if empty is None else empty.to(z)).expand(len(z), -1, -1)
    h, skips = sd.unet.encode(x_t, temb, context)
    maps = [*levels, *sd.unet.decoder_levels(h, skips, temb, context)]
    finite(maps[-1], sd.vae, sd.unet)  # all others went into it
    return maps


def looking(sd: StableDiffusion, t: int = T) -> Look:
    """`features` as a function of pictures alone; the empty sentence is encoded here, once."""
    return partial(features, sd, t=t, empty=sd.encode_text([""]))


def same_noise(z: Tensor) -> Tensor:
    """Noise of one seed, the same for every picture: (1, 4, h, w)."""
    return torch.randn((1, *z.shape[1:]), generator=torch.Generator().manual_seed(0)).to(z)


class Head(nn.Module):
    """Maps of several sizes → logits for each pixel: every map by its own 1×1 convolution, enlarged, added up, read.

    A 1×1 convolution and enlarging commute, so the narrow result is enlarged and not the wide map, and those of one
    size are added up before. Channels-last is the layout in which a CPU enlarges fast.
    """

    def __init__(self, channels: Sequence[int], width: int = 48, classes: int = len(CLASSES)):
        """channels: of the maps. width: between the layers."""
        super().__init__()
        self.width = width
        self.narrow = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.read = nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 1), nn.SiLU(), nn.Conv2d(width, classes, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """maps: (B, C_i, h_i, w_i), the finest first. Returns (B, classes, h_0, w_0)."""
        size, small = maps[0].shape[-2:], dict[torch.Size, Tensor]()
        for conv, m in zip(self.narrow, maps, strict=True):
            narrow = conv(m.contiguous(memory_format=torch.channels_last))
            small[m.shape[-2:]] = narrow + small.get(m.shape[-2:], 0)
        first, *others = (F.interpolate(m, size, mode="bilinear") for m in small.values())
        return self.read(sum(others, first))


@dataclass(frozen=True)
class Clothes:
    """What was found in a picture; all of the picture's height and width."""

    probabilities: np.ndarray  # (len(CLASSES), H, W) float32, the ensemble's mean
    uncertainty: np.ndarray  # (H, W) float32 in [0, 1]: the entropy of that mean over its largest value
    # (3, H, W) float32: which point (x, y) of its garment each pixel shows, and by how much this may be off, in parts
    # of the garment's longer side (`Extent.parts`). None from a detector that has not learned it.
    points: np.ndarray | None = None

    @classmethod
    def certain(cls, index: np.ndarray) -> "Clothes":
        """What a part mask, (H, W) of CLASSES' numbers, says, as if a detector had found it and had no doubts."""
        return cls(np.eye(len(CLASSES), dtype=np.float32)[index].transpose(2, 0, 1), np.zeros(index.shape, np.float32))

    @cached_property
    def index(self) -> np.ndarray:
        """(H, W) uint8: the likeliest of CLASSES."""
        return self.probabilities.argmax(0).astype(np.uint8)

    def layer(self, *classes: str) -> np.ndarray:
        """(H, W) bool: where the named classes are; without names, all clothes. Raises Error for an unknown name."""
        if unknown := sorted(set(classes) - set(CLASSES)):
            raise Error(f"there is no class {unknown[0]!r}; expected some of {', '.join(CLASSES)}")
        wanted = [CLASSES.index(name) for name in classes] or list(CLOTHES)
        return np.isin(self.index, wanted)

    def uncertainty_picture(self) -> Image.Image:
        """White where the heads do not know."""
        return Image.fromarray((255 * self.uncertainty).round().astype(np.uint8))


class ClothingDetector(nn.Module):
    """Several heads over the features of one Stable Diffusion; each began and learned differently, their mean decides.

    One more head may tell which point of its garment's picture each pixel shows, as DensePose tells that of a body's
    surface (Güler et al. 2018, arXiv 1802.00434), and a layer what a garment is called (`Names`). The features are
    brought to mean 0 and deviation 1, channel by channel, by numbers measured before the training.
    """

    def __init__(
        self, channels: Sequence[int], heads: int = 5, width: int = 48, t: int = T, points: int = 0,
        names: Sequence[Sequence[str]] = (),
    ):  # fmt: skip
        """channels: of the maps that `features` gives. t: the timestep at which it looks. points: the width of the head
        that tells them; 0: there is none. names: what garments may be called, (words, class) each; none: it calls
        nothing by a name.
        """
        super().__init__()
        self.channels, self.width, self.t = tuple(channels), width, t
        self.heads = nn.ModuleList(Head(channels, width) for _ in range(heads))
        self.points = Head(channels, points, classes=3) if points else None
        self.names = Names(sum(channels), names) if names else None
        self.mean, self.deviation = (nn.ParameterList(v(c) for c in channels) for v in (zeros, ones))

    def standardised(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps as the heads read them. Raises Error for maps of other models."""
        if tuple(m.shape[1] for m in maps) != self.channels:
            raise Error("the detector does not read these models: train one for them with minicc train detector --sd …")
        numbers = zip(maps, self.mean, self.deviation, strict=True)
        return [((m.to(mean) - mean) / deviation) for m, mean, deviation in numbers]

    @torch.no_grad()
    def measure(self, maps: Sequence[Tensor]) -> None:
        """Take means and deviations from the maps of some pictures."""
        for m, mean, deviation in zip(maps, self.mean, self.deviation, strict=True):
            mean.copy_(m.mean((0, 2, 3), keepdim=True)[0])
            deviation.copy_(m.std((0, 2, 3), keepdim=True)[0].clamp(min=1e-4))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits of every head: (heads, B, classes, H, W). Raises Error for maps of other models."""
        maps = self.standardised(maps)
        return torch.stack([head(maps) for head in self.heads])

    @torch.no_grad()
    def probabilities(self, look: Look, images: Tensor) -> Tensor:
        """The mean over the heads, and over what they say of pictures and of their mirror images: (B, classes, H, W).

        look: pictures (B, 3, H, W) in [-1, 1] → maps.
        """
        return self.classes_in(both_ways(look, images))

    def classes_in(self, maps: Sequence[Tensor]) -> Tensor:
        """The same of the maps of pictures and of their mirror images, 2B: (B, classes, H, W)."""
        own, mirrored = self(maps).softmax(2).mean(0).chunk(2)
        return (own + mirrored.flip(-1)) / 2

    def points_in(self, maps: Sequence[Tensor]) -> Tensor | None:
        """What `Clothes.points` holds, of the maps of pictures and of their mirror images, 2B: (B, 3, H, W)."""
        if self.points is None:
            return None
        own, mirrored = self.points_of(self.points(self.standardised(maps))).chunk(2)
        x, y, doubt = ((own + mirrored_points(mirrored)) / 2).unbind(1)
        return torch.stack([x, y, doubt.exp()], 1)

    @staticmethod
    def points_of(out: Tensor) -> Tensor:
        """What the head gives, (B, 3, …) → x, y, and the logarithm of how far they may be off."""
        return out + out.new_tensor([0.5, 0.5, LOG_DOUBT]).view(1, 3, *[1] * (out.ndim - 2))

    @torch.no_grad()
    def find(self, sd: StableDiffusion, image: Image.Image) -> Clothes:
        """Where the clothes are in a picture of any size and mode.

        The longer side is scaled to what the models were trained on. A small model sees it through `figure_window`;
        what lies outside of that is ground: "none", and no doubt about it. Raises Error if the detector was trained on
        the features of other models.
        """
        place = figure_window(image, sd.side) if sd.knows_one_size else whole(image.size, sd.side, sd.vae.stride)
        maps = both_ways(looking(sd, self.t), place.take(image))
        p, points = place.spread(self.classes_in(maps), image.size), self.points_in(maps)
        p[CLASSES.index("none"), p.sum(0) == 0] = 1
        entropy = -(p * p.clamp(min=1e-9).log()).sum(0) / np.log(len(p))
        there = None if points is None else place.spread(points, image.size).numpy()
        return Clothes(p.numpy(), entropy.numpy(), there)

    @torch.no_grad()
    def name(self, sd: StableDiffusion, garment: Image.Image) -> Name | None:
        """What the garment in a picture is called, which `garment_picture` laid; None from a detector that is not sure,
        or has learned no names.
        """
        if self.names is None:
            return None
        maps = looking(sd, self.t)(to_tensor(garment))
        return self.names.likeliest(pooled(self.standardised(maps)))

    def save(self, folder: str | Path) -> Path:
        """To model.safetensors in the folder, in half precision; whole, or not at all and WeightsError."""
        config: dict[str, object] = {
            "channels": self.channels, "heads": len(self.heads), "width": self.width, "t": self.t,
        }  # fmt: skip
        if self.points is not None:
            config["points"] = self.points.width
        if self.names is not None:
            config["names"] = [(one.words, one.kind) for one in self.names.known]
        notes = {"format": "pt", "config": json.dumps(config)}
        return write_safetensors(self.state_dict(), Path(folder) / "model.safetensors", notes, torch.float16).parent

    @classmethod
    def load(cls, source: str | Path) -> "ClothingDetector":
        """The shipped detector ("tiny"), or a folder that `minicc train detector` saved. Raises Error if it is none."""
        folder = SHIPPED / "tiny-detector" if str(source) == "tiny" else Path(source)
        file = folder / "model.safetensors"
        if str(source) == "tiny" and not folder.is_dir():
            raise WeightsError(not_shipped("tiny-detector"))
        try:
            with safe_open(file, framework="pt") as opened:
                detector = cls(**json.loads(opened.metadata()["config"]))
                state = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118 (not a dict)
            detector.load_state_dict(state)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as problem:
            raise Error(
                f"{file} is no clothing detector ({problem}); train one with: minicc train detector"
            ) from problem
        return detector.eval().requires_grad_(False)


def both_ways(look: Look, images: Tensor) -> list[Tensor]:
    """The maps of pictures and of their mirror images: 2B."""
    return look(torch.cat([images, images.flip(-1)]))


def mirrored_points(points: Tensor) -> Tensor:
    """Points told of mirrored pictures, (B, 3, H, W), as they are of the pictures themselves, and back."""
    x, y, doubt = points.flip(-1).unbind(1)
    return torch.stack([1 - x, y, doubt], 1)


def zeros(channels: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(channels, 1, 1), requires_grad=False)


def ones(channels: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(channels, 1, 1), requires_grad=False)
