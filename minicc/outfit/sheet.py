"""A contact sheet: the character, the mask as it was used, and every variant with its seed."""

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
    cells = [(on_white(character), "character"), (tinted(character, results[0].mask), "mask")]
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


def tinted(character: Image.Image, mask: Image.Image) -> Image.Image:
    """The character with the mask half red over it."""
    pixels, inside = np.array(on_white(character)), np.asarray(mask) > 0
    pixels[inside] = (pixels[inside].astype(int) + MASKED) // 2
    return Image.fromarray(pixels)
