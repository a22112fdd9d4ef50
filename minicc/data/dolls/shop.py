"""A garment alone, as a shop shows it, and which of its pixels a worn one shows."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from PIL import Image

from minicc.data.dolls import cut, rig
from minicc.data.dolls.canvas import SCALE, Canvas
from minicc.data.dolls.curves import Affine, apply
from minicc.data.dolls.pieces import lay
from minicc.data.dolls.wardrobe import Garment

ORDER = ("back", "feet", "legs", "torso", "arm_l", "arm_r", "face", "hat")


def lay_garment(canvas: Canvas, garment: Garment, slot: str, layer: str, bones: Mapping[str, Affine]) -> None:
    """Draw one layer of a garment."""
    pieces = [piece for piece in cut.pieces_of(garment) if piece.layer == layer]
    lay(canvas, pieces, slot, bones, cut.palette(garment), cut.cloth(garment))


@lru_cache(maxsize=32)
def drawn(garment: Garment, size: int) -> Canvas:
    """The garment alone, enlarged as `rig.SHOP` says."""
    canvas = Canvas(size, zoom=rig.SHOP[view(garment)][2])
    for layer in ORDER:
        lay_garment(canvas, garment, garment.slot, layer, rig.shop(view(garment)))
    return canvas


def view(garment: Garment) -> str:
    """The key of `rig.SHOP` that suits the garment."""
    return garment.kind if garment.kind in rig.SHOP else garment.slot


def picture(garment: Garment, size: int, white: bool) -> Image.Image:
    """The garment alone: RGB on white, else RGBA."""
    alone = drawn(garment, size).picture()
    if not white:
        return alone
    sheet = Image.new("RGBA", alone.size, "white")
    return Image.alpha_composite(sheet, alone).convert("RGB")


def correspondence(canvas: Canvas, garment: Garment, slot: str) -> np.ndarray:
    """For each pixel of a worn garment the pixel of its flat picture: (size, size, 2) float32, NaN where there is none.

    A worn pixel lies on a bone; in the bone's own coordinates it is the same point of cloth in both pictures.
    """
    flat, bones = drawn(garment, canvas.size), rig.shop(view(garment))
    middle = canvas.part[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]  # (size, size): the part at each pixel's centre
    result = np.full((canvas.size, canvas.size, 2), np.nan, np.float32)
    for number, part in enumerate(canvas.parts):
        if part is None or part.slot != slot:
            continue
        rows, columns = np.nonzero(middle == number)
        local = apply(part.back, np.stack([columns + 0.5, rows + 0.5], -1) / canvas.size)
        there = apply(bones[part.bone], local) * canvas.size  # (N, 2), pixels of the flat picture
        shown = shows(flat, there, slot, part.bone)
        result[rows[shown], columns[shown]] = there[shown]
    return result


def shows(flat: Canvas, points: np.ndarray, slot: str, bone: str) -> np.ndarray:
    """(N,) bool: whether the flat picture shows this bone's cloth at these pixels."""
    fine = np.floor(points * SCALE).astype(int)
    inside = ((fine >= 0) & (fine < flat.side)).all(-1)
    column, row = np.clip(fine, 0, flat.side - 1).T
    return inside & (flat.part[row, column] == flat.find(slot, bone))
