"""A contact sheet: the character, all that any variant may have changed, and every variant with its seed."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from minicc.data.tensors import on_white
from minicc.outfit.phase1 import Result

CELL = 512  # pixels; larger pictures are shown smaller
LABEL = 14  # pixels below each picture
MASKED = (255, 80, 80)  # what the mask is tinted with


def contact_sheet(character: Image.Image, results: Sequence[Result], columns: int = 6) -> Image.Image:
    """All on white, RGB, row by row."""
    used = np.any([np.asarray(result.mask) > 0 for result in results], axis=0)
    cells = [(on_white(character), "character"), (tinted(character, used), "mask")]
    cells += [(on_white(result.image), f"seed {result.seed}") for result in results]
    for picture, _ in cells:
        picture.thumbnail((CELL, CELL))
    width, height = cells[0][0].width + 8, cells[0][0].height + LABEL + 8
    columns = min(columns, len(cells))
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), "white")
    for i, (picture, label) in enumerate(cells):
        left, top = i % columns * width + 4, i // columns * height + 4
        sheet.paste(picture, (left, top))
        ImageDraw.Draw(sheet).text((left, top + picture.height + 1), label, fill="black")
    return sheet


def tinted(character: Image.Image, inside: np.ndarray) -> Image.Image:
    """The character with the mask, (H, W) bool, half red over it."""
    pixels = np.array(on_white(character))
    pixels[inside] = (pixels[inside].astype(int) + MASKED) // 2
    return Image.fromarray(pixels)
