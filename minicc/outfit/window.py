"""What of a picture the models look at, and at which size: a window, and the way back out of it."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from minicc.data.ground import figure_box
from minicc.data.masks import Box, neighbourhood
from minicc.data.pixel_art import in_squares, square_side
from minicc.data.tensors import mask_tensor, on_white, to_tensor
from minicc.errors import PictureError
from minicc.outfit.compose import paste


@dataclass(frozen=True)
class Window:
    """The part of a picture that the models work on: a box of it, scaled, padded to whole latent cells.

    A pixel is scaled with its own cell and no other (PIL's box filter), so that nothing of what the mask hides comes
    into what is known.
    """

    box: Box
    size: tuple[int, int]  # (width, height) after scaling, before padding
    padded: tuple[int, int]  # (width, height), multiples of the stride
    corner: tuple[int, int] = (0, 0)  # where the box lies in what is padded

    @property
    def shrinks(self) -> bool:
        """Whether the box is worked on at less than full resolution."""
        return self.size[0] < self.box[2] - self.box[0] or self.size[1] < self.box[3] - self.box[1]

    def take(self, image: Image.Image) -> Tensor:
        """(1, 3, H, W) in [-1, 1]; the padding repeats the edge, so that no line appears where the picture ends."""
        x = to_tensor(on_white(image.crop(self.box)).resize(self.size, Image.Resampling.BOX))
        return self._pad(x)

    def take_mask(self, mask: np.ndarray) -> Tensor:
        """(1, 1, H, W), 1 where masked: each cell that shows any masked pixel, and the padding beside such cells."""
        left, top, right, bottom = self.box
        width, height = self.size
        return self._pad(F.adaptive_max_pool2d(mask_tensor(mask[top:bottom, left:right]), (height, width)))

    def take_map(self, values: np.ndarray) -> Tensor:
        """Numbers of a picture's pixels, (height, width) → of the padded window's, (1, 1, H, W) float32."""
        left, top, right, bottom = self.box
        width, height = self.size
        x = torch.from_numpy(np.ascontiguousarray(values[None, None, top:bottom, left:right], np.float32))
        return self._pad(F.adaptive_avg_pool2d(x, (height, width)))

    def _pad(self, x: Tensor) -> Tensor:
        (left, top), (width, height) = self.corner, self.size
        pads = (left, self.padded[0] - width - left, top, self.padded[1] - height - top)
        return F.pad(x, pads, mode="replicate")

    def spread(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps of the padded window, (1, C, H, W) → of the whole picture, (C, height, width); 0 outside the box.

        size: (width, height) of the picture.
        """
        (left, top), (width, height) = self.corner, self.size
        x0, y0, x1, y1 = self.box
        out = torch.zeros(x.shape[1], size[1], size[0])
        inner = x[..., top : top + height, left : left + width]
        out[:, y0:y1, x0:x1] = F.interpolate(inner, (y1 - y0, x1 - x0), mode="bilinear")[0].cpu()
        return out

    def put(self, image: Image.Image, generated: Image.Image, mask: np.ndarray) -> Image.Image:
        """The picture with the generated window pasted inside the mask; outside it, every value is the original's.

        Pixel art keeps its squares.
        """
        (left, top), (width, height) = self.corner, self.size
        piece = generated.crop((left, top, left + width, top + height))
        x0, y0, x1, y1 = self.box
        canvas = on_white(image)
        canvas.paste(piece.resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS), (x0, y0))
        return paste(image, in_squares(canvas, square_side(image)), mask)


def window(mask: np.ndarray, stride: int, margin: int, max_side: int) -> Window:
    """Where to work: the whole picture if no side exceeds max_side, else the mask's neighbourhood at full resolution.

    A neighbourhood that is itself larger than max_side is scaled down to it. margin: pixels of context around the mask.
    """
    if max_side < stride:
        raise PictureError(f"max_side={max_side}: expected {stride} pixels or more, the side of one latent")
    height, width = mask.shape
    box: Box = (0, 0, width, height)
    if max(width, height) > max_side:
        box = neighbourhood(mask, margin)
    size = scaled(box, min(1.0, max_side / max(box[2] - box[0], box[3] - box[1])))
    return Window(box, size, (round_up(size[0], stride), round_up(size[1], stride)))


def whole(size: tuple[int, int], side: int, stride: int) -> Window:
    """The whole picture, its longer side scaled to `side`, up or down. size: (width, height)."""
    box: Box = (0, 0, *size)
    inner = scaled(box, side / max(size))
    return Window(box, inner, (round_up(inner[0], stride), round_up(inner[1], stride)))


def figure_window(image: Image.Image, side: int, mask: np.ndarray | None = None) -> Window:
    """Where a model works that has learned whole figures of one size: what it is shown is as large as what it knows.

    On a plain or transparent ground that is the figure, and the mask, before another one the whole picture. Its longer
    side becomes `side`; the shorter is padded, alike on both sides.
    """
    box: Box = figure_box(image, side, mask) or (0, 0, *image.size)
    size = scaled(box, side / max(box[2] - box[0], box[3] - box[1]))
    return Window(box, size, (side, side), ((side - size[0]) // 2, (side - size[1]) // 2))


def scaled(box: Box, scale: float) -> tuple[int, int]:
    """The box's (width, height), scaled, at least one pixel each."""
    return max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale))


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
