"""A picture of a garment, made ready: on white, centred, as the trainable copy was trained to see it."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minicc.data.ground import OPAQUE, clearness, foreground
from minicc.data.masks import bounds
from minicc.data.tensors import on_white, to_tensor
from minicc.errors import PictureError
from minicc.models.blocks import KeysValues
from minicc.models.controlnet import ControlNet
from minicc.models.garment import together
from minicc.models.garment_ways import look
from minicc.outfit.extent import Extent, breadth, completed, extent_of
from minicc.pipeline import StableDiffusion

MARGIN = 0.06  # of the side, around the garment


@dataclass(frozen=True)
class Placed:
    """A garment on white, ready to be seen, and which part of the picture that was given lies where on it."""

    picture: Image.Image  # RGB, side × side
    shown: np.ndarray  # (side, side) bool: where the garment is
    box: tuple[int, int, int, int]  # left, top, right, bottom of the garment in the given picture, or beyond
    corner: tuple[int, int]  # where the box's upper left corner lies now
    scale: float
    extent: Extent | None = None  # of all of it, in the given picture; None: that cuts it off, none knows where
    completed: bool = False  # an edge cut it off, and its mirror image is in the place of what was missing

    def moved(self, points: np.ndarray) -> np.ndarray:
        """Points (…, 2) of the given picture, in pixels (x, y) → where they lie in `picture`, in parts of its side."""
        return ((points - self.box[:2]) * self.scale + self.corner) / self.picture.width

    def lying(self, parts: np.ndarray) -> np.ndarray:
        """`Extent.parts` of all of it, (…, 2) → where they lie in `picture`, in parts of its side."""
        assert self.extent is not None
        return self.moved(self.extent.pixels(parts))

    @property
    def part(self) -> float:
        """What `Extent.parts` are measured in, the longer side of all of it, in parts of the side of `picture`."""
        assert self.extent is not None
        return self.extent.longer * self.scale / self.picture.width


def garment_picture(garment: Image.Image, side: int) -> Image.Image:
    """A garment of any size and mode → RGB on white, side × side, the garment in its middle. As `placed`."""
    return placed(garment, side).picture


def placed(garment: Image.Image, side: int) -> Placed:
    """A garment of any size and mode, cut out and laid on white, as large as fits.

    What is transparent, or has the colour of a plain ground, is cut away. Where the left or right edge cuts the garment
    off, its mirror image completes it, if it is known about which axis (`breadth`). Raises PictureError if there is
    nothing to see, or if the ground is busy: what is garment and what is not cannot be told there.
    """
    pixels, shown, moved, extent = with_rest(garment)
    left, top, right, bottom = box = bounds(shown)
    piece, mask = Image.fromarray(pixels).crop(box), Image.fromarray(shown).crop(box)
    scale = side * (1 - 2 * MARGIN) / max(piece.size)
    width, height = (max(1, round(n * scale)) for n in piece.size)
    corner = ((side - width) // 2, (side - height) // 2)
    sheet, where = Image.new("RGB", (side, side), "white"), Image.new("1", (side, side))
    sheet.paste(piece.resize((width, height), Image.Resampling.LANCZOS), corner)
    where.paste(mask.resize((width, height), Image.Resampling.NEAREST), corner)
    if not np.asarray(where).any():
        raise PictureError("nothing but specks of the garment is opaque: make it opaque")
    box, wider = (left - moved, top, right - moved, bottom), shown.shape[1] > garment.width
    return Placed(sheet, np.asarray(where), box, corner, scale, extent, completed=wider)


def with_rest(garment: Image.Image) -> tuple[np.ndarray, np.ndarray, int, Extent | None]:
    """A garment on white, (H, W, 3) uint8, and where it is, (H, W) bool, completed where that is possible; by how many
    columns its picture moved to the right, and its extent there, before it moved.
    """
    picture, shown = cut_out(garment)
    if not shown.any():
        if "A" in garment.getbands() and 0 < np.asarray(garment.getchannel("A")).max() < OPAQUE:
            raise PictureError(f"the garment is nearly transparent, alpha below {OPAQUE} everywhere: make it opaque")
        raise PictureError(
            "the garment's picture is empty, or filled to its edges: "
            "expected a garment on a plain or transparent ground, with a margin around it"
        )
    pixels = np.where(shown[..., None], np.asarray(picture), 255).astype(np.uint8)
    clear = clearness(garment)
    across = breadth(shown, clear)
    extent = extent_of(shown, clear, across)
    return (pixels, shown, 0, extent) if across is None else (*completed(pixels, shown, across), extent)


def cut_out(garment: Image.Image) -> tuple[Image.Image, np.ndarray]:
    """The picture on white, and where the garment is, (H, W) bool."""
    shown = foreground(garment)
    if shown is None:
        raise PictureError(
            "the garment's ground is busy: cut the garment out (transparent PNG), or show it on one plain colour"
        )
    return on_white(garment), shown


@torch.no_grad()
def seen(sd: StableDiffusion, control: ControlNet, garments: list[Image.Image], hint: Tensor) -> KeysValues:
    """What the copy sees of one garment, or of several worn together. hint: of the character, (1, 3, H, W)."""
    pictures = (to_tensor(garment_picture(garment, sd.side)) for garment in garments)
    return together(*(looked_at(sd, control, picture, hint) for picture in pictures))


def looked_at(sd: StableDiffusion, control: ControlNet, pictures: Tensor, hint: Tensor) -> KeysValues:
    """What the copy sees of garments in [-1, 1], (B, 3, H, W), one for each character; in its own way."""
    weight = control.conv_in.weight
    latents, empty = sd.encode_image(pictures).to(weight), sd.encode_text([""]).to(weight)
    return look(control, latents, (pictures.to(weight) + 1) / 2, hint.to(weight), empty, sd.unet)
