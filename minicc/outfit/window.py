"""What of a picture the models look at, and at which size: a window, and the way back out of it."""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from minicc.data.folder import plain_ground
from minicc.data.tensors import mask_tensor, on_white, to_tensor
from minicc.outfit.compose import paste

Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom not included, as in PIL
GROUND = 0.8  # of the border that has one colour, at least: a skirt may be cut off by it
TOLERANCE = 12  # of 255: how far from the ground's colour a pixel of a figure is at least
SMALL = 1 / 3  # of the picture's longer side: what is no longer is a small figure, and the picture mostly ground


@dataclass(frozen=True)
class Window:
    """The part of a picture that the models work on: a box of it, scaled, padded to whole latent cells."""

    box: Box
    size: tuple[int, int]  # (width, height) after scaling, before padding
    padded: tuple[int, int]  # (width, height), multiples of the stride
    corner: tuple[int, int] = (0, 0)  # where the box lies in what is padded
    shows: str = "the mask's neighbourhood"

    @property
    def shrinks(self) -> bool:
        """Whether the box is worked on at less than full resolution."""
        return self.size[0] < self.box[2] - self.box[0] or self.size[1] < self.box[3] - self.box[1]

    def take(self, image: Image.Image) -> Tensor:
        """(1, 3, H, W) in [-1, 1]; the padding repeats the edge, so that no line appears where the picture ends."""
        x = to_tensor(on_white(image.crop(self.box)).resize(self.size, Image.Resampling.LANCZOS))
        return self._pad(x, "replicate")

    def take_mask(self, mask: np.ndarray) -> Tensor:
        """(1, 1, H, W), 1 where masked; scaling down keeps every masked pixel's place masked. Padding is not masked."""
        left, top, right, bottom = self.box
        m = mask_tensor(mask[top:bottom, left:right])
        width, height = self.size
        m = F.adaptive_max_pool2d(m, (height, width)) if self.shrinks else F.interpolate(m, (height, width))
        return self._pad(m, "constant")

    def _pad(self, x: Tensor, mode: str) -> Tensor:
        (left, top), (width, height) = self.corner, self.size
        return F.pad(x, (left, self.padded[0] - width - left, top, self.padded[1] - height - top), mode=mode)

    def unpad(self, x: Tensor) -> Tensor:
        """(…, H, W) of the padded window → the box's part of it."""
        (left, top), (width, height) = self.corner, self.size
        return x[..., top : top + height, left : left + width]

    def put(self, image: Image.Image, generated: Image.Image, mask: np.ndarray) -> Image.Image:
        """The picture with the generated window pasted inside the mask; outside it, every value is the original's."""
        (left, top), (width, height) = self.corner, self.size
        piece = generated.crop((left, top, left + width, top + height))
        x, y, right, bottom = self.box
        canvas = on_white(image)
        canvas.paste(piece.resize((right - x, bottom - y), Image.Resampling.LANCZOS), (x, y))
        return paste(image, canvas, mask)


def window(mask: np.ndarray, stride: int, margin: int, max_side: int) -> Window:
    """Where to work: the whole picture if no side exceeds max_side, else the mask's neighbourhood at full resolution.

    A neighbourhood that is itself larger than max_side is scaled down to it. margin: pixels of context around the mask.
    """
    height, width = mask.shape
    box: Box = (0, 0, width, height)
    if max(width, height) > max_side:
        box = neighbourhood(mask, margin)
    size = scaled(box, min(1.0, max_side / max(box[2] - box[0], box[3] - box[1])))
    return Window(box, size, (round_up(size[0], stride), round_up(size[1], stride)))


def figure_window(image: Image.Image, mask: np.ndarray, side: int) -> Window:
    """Where a model works that has learned whole figures of one size: the whole picture, scaled to the side.

    Its longer side becomes `side` and the shorter is padded, alike on both sides: the figure is then about as large as
    those that the model knows. Only where a figure is small before a plain ground, the rest of the ground is left out.
    """
    around = figure(image) | mask
    box: Box = (0, 0, *image.size)
    if around.any() and max(extent(around)) <= SMALL * max(image.size):
        box = neighbourhood(around, margin=max(extent(around)) // 16)
    size = scaled(box, side / max(box[2] - box[0], box[3] - box[1]))
    corner = ((side - size[0]) // 2, (side - size[1]) // 2)
    return Window(box, size, (side, side), corner, "the figure")


def figure(image: Image.Image) -> np.ndarray:
    """(H, W) bool: what is not the picture's plain ground; everything, if it has none."""
    picture = on_white(image)
    ground = plain_ground(picture, share=GROUND)
    if ground is None:
        return np.ones(image.size[::-1], bool)
    return abs(np.asarray(picture).astype(int) - ground).max(-1) > TOLERANCE


def extent(mask: np.ndarray) -> tuple[int, int]:
    """(width, height) of the box around what is masked."""
    left, top, right, bottom = neighbourhood(mask, margin=0)
    return right - left, bottom - top


def neighbourhood(mask: np.ndarray, margin: int) -> Box:
    """The mask's bounding box with a margin, inside the picture."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return (
        max(0, int(columns[0]) - margin),
        max(0, int(rows[0]) - margin),
        min(width, int(columns[-1]) + 1 + margin),
        min(height, int(rows[-1]) + 1 + margin),
    )


def scaled(box: Box, scale: float) -> tuple[int, int]:
    """The box's (width, height), scaled, at least one pixel each."""
    return max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale))


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
