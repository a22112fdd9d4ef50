"""The end of phase 2: the garment's own pixels, laid where the drawing wears them.

A latent cell is eight pixels wide. What is drawn has a garment's cut and colours and its kind of pattern, but seldom
each dot in its place. The finished drawing shows where every point of the garment belongs, and the detector reads it
(`Clothes.points`). So the garment's picture is warped there, as virtual try-on did before diffusion (Wang et al. 2018,
CP-VTON, arXiv 1807.07688), and goes through the VAE with the rest, which makes one drawing of both.

Only what is sure is laid: the drawing stays where the detector doubts a point, at outlines, wherever the colours around
a pixel would become quite other ones, and altogether in a picture unlike those that the detector has learned. Points
are those of whole garments: where the garment's own picture cuts it off, it is laid only if the whole can be told.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import binary_erosion, binary_opening, gaussian_filter, map_coordinates
from skimage.color import rgb2lab
from torch import Tensor

from minicc.data.tensors import on_white, to_image
from minicc.models.attention_maps import attended
from minicc.models.blocks import KeysValues, Recording, keys_values
from minicc.models.controlnet import ControlNet
from minicc.outfit.clothing import ClothingDetector, same_noise
from minicc.outfit.detect import unfamiliar
from minicc.outfit.editing import DISK
from minicc.outfit.garment import Placed
from minicc.outfit.narrow import Narrowing
from minicc.outfit.phase1 import Ready
from minicc.pipeline import StableDiffusion

LOOKED_AT = 50  # the timestep at which attention tells a garment from its mirror image
DOUBT = 0.5  # pixels of the models' picture: the most by which a point may be off
OTHER = 25.0  # ΔE (1976) between the means around a pixel, before and after, beyond which the drawing stays
AROUND = 5.0  # such pixels: the deviation of the Gaussian of these means


@dataclass(frozen=True)
class Laying:
    """A batch's garments; called with the finished drawings, it lays them."""

    sd: StableDiffusion
    control: ControlNet
    detector: ClothingDetector
    ready: Sequence[Ready]
    narrow: Narrowing | None  # what has the masks of now, if they were narrowed
    hint: Tensor  # (1 or B, 3, H, W)
    seen: KeysValues  # of the garments
    garments: Sequence[Placed]  # one for each character
    kinds: Sequence[Sequence[str]]  # of each; only what is of one kind is laid

    def __call__(self, drawn: Tensor, z: Tensor) -> Tensor:
        """drawn: (B, 3, h, w) in [-1, 1], the windows; z: their latents. Returns the windows with the garments laid;
        those in which nothing is stay exactly as they are.
        """
        if not any(map(layable, self.garments, self.kinds)):
            return drawn
        looked, share = self.attention(z)
        masked = self.narrow.ready if self.narrow else self.ready
        rows = zip(masked, self.garments, self.kinds, drawn, looked, share, strict=True)
        return torch.cat([self.laid(*row).to(drawn) for row in rows])

    @torch.no_grad()
    def attention(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The x of the garment's picture at which every cell looks, and how much of its attention, (B, h, w) each."""
        empty = self.sd.encode_text([""]).to(z).expand(len(z), -1, -1)
        recording = Recording(keys_values(self.control, empty) | self.seen)
        x_t, t = self.sd.schedule.add_noise(z, same_noise(z), LOOKED_AT), torch.full((len(z),), LOOKED_AT)
        self.control(x_t, t.to(z.device), recording, self.hint.to(z).expand(len(z), -1, -1, -1))
        points, share = attended(self.control, recording, self.seen)
        return points[..., 0].view(len(z), *z.shape[-2:]), share.view(len(z), *z.shape[-2:])

    def laid(
        self, ready: Ready, garment: Placed, kinds: Sequence[str], drawn: Tensor, looked: Tensor, share: Tensor
    ) -> Tensor:
        """One window, (1, 3, h, w)."""
        if not layable(garment, kinds) or min(ready.character.size) < 2:
            return drawn[None]
        picture = ready.place.put(ready.character, to_image(drawn), ready.declared)
        now = self.detector.find(self.sd, picture)
        region = now.layer(*kinds) & ready.declared
        if now.points is None or not region.any() or unfamiliar(now):
            return drawn[None]
        x, y, doubt = now.points
        if self.mirrored(ready, x, region, looked, share):
            x = 1 - x
        left, _, right, _ = ready.place.box
        pixel = max(1.0, (right - left) / ready.place.size[0])  # of the models' picture, in the character's
        before, points = np.asarray(on_white(picture)), garment.lying(np.stack([x, y], -1))
        pixels = worn(before, garment, points, doubt * garment.part, region, pixel)
        return ready.place.take(Image.fromarray(pixels)) if (pixels != before).any() else drawn[None]

    def mirrored(self, ready: Ready, x: np.ndarray, region: np.ndarray, looked: Tensor, share: Tensor) -> bool:
        """Whether the picture shows the garment the other way round than it is worn: where attention looks further to
        the left, the worn garment is further to the right.
        """
        stride = self.sd.vae.stride
        where, there = (
            F.avg_pool2d(ready.place.take_map(m), stride)[0, 0] for m in (region.astype(np.float32), region * x)
        )
        weight = (where * share.to(where)).numpy()
        a, b = (there / where.clamp(min=1e-6)).numpy(), looked.to(where).numpy()
        middle = [np.average(v, weights=weight + 1e-9) for v in (a, b)]
        return bool((weight * (a - middle[0]) * (b - middle[1])).sum() < 0)


def layable(garment: Placed, kinds: Sequence[str]) -> bool:
    """Whether it is one garment, and where all of it lies in its picture is known."""
    return len(kinds) == 1 and garment.extent is not None


def worn(
    drawn: np.ndarray, garment: Placed, points: np.ndarray, doubt: np.ndarray, region: np.ndarray, pixel: float = 1.0
) -> np.ndarray:
    """A drawing (H, W, 3) uint8, and on it the garment's pixels where that is sure.

    points: (H, W, 2), which point of the garment's picture each pixel shows; doubt: (H, W), by how much that may be
    off, both in parts of its side; region: (H, W) bool, where the drawing shows the garment; pixel: how many of these
    pixels are one of those that the models see.
    """
    cloth, cover = sampled(garment, points)
    step = float(np.median(steps_between(points)[region]))  # of one pixel, in parts of the garment picture's side
    sure = region & (cover > 0.9) & (doubt < DOUBT * pixel * step)
    sure &= binary_erosion(region, DISK, iterations=round(pixel))
    before, after = (rgb2lab(around(picture, sure, AROUND * pixel) / 255) for picture in (drawn.astype(float), cloth))
    sure &= np.linalg.norm(before - after, axis=-1) < OTHER
    sure = binary_opening(sure, DISK, iterations=round(pixel))
    share = sure * np.minimum(1, 1.3 * gaussian_filter(sure.astype(float), 0.8 * pixel))  # 1 but for a soft rim
    mixed = drawn + share[..., None] * (cloth - drawn)
    return mixed.round().clip(0, 255).astype(np.uint8)


def sampled(garment: Placed, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The garment's colours at points (H, W, 2) of its picture, (H, W, 3), and how much of it there is, (H, W), 0 to 1.

    What surrounds the garment does not come into the colours at its edge.
    """
    side, shown = garment.picture.width, garment.shown.astype(float)
    colours = around(np.asarray(garment.picture).astype(float), garment.shown, 0.7)  # smoothed: worn, it is smaller
    where = [points[..., 1] * side - 0.5, points[..., 0] * side - 0.5]
    channels = [map_coordinates(c, where, order=1, mode="nearest") for c in colours.transpose(2, 0, 1)]
    return np.stack(channels, -1), map_coordinates(gaussian_filter(shown, 1.0), where, order=1)


def around(picture: np.ndarray, where: np.ndarray, deviation: float) -> np.ndarray:
    """The mean colour around each pixel of a picture (H, W, 3), of those pixels alone that are in `where`, by a
    Gaussian's weights.
    """
    weight = where.astype(float)[..., None]
    sigma = (deviation, deviation, 0)
    return gaussian_filter(picture * weight, sigma) / np.maximum(gaussian_filter(weight, sigma), 1e-6)


def steps_between(points: np.ndarray) -> np.ndarray:
    """How far the points of neighbouring pixels lie apart, (H, W): the root of the area that a pixel covers."""
    (x_y, x_x), (y_y, y_x) = (np.gradient(points[..., i]) for i in (0, 1))
    return np.sqrt(np.abs(x_x * y_y - x_y * y_x))
