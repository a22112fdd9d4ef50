"""Pixel art: pictures drawn in squares of one colour each, and how a result is kept in the same squares."""

import numpy as np
from PIL import Image

LARGEST = 16  # pixels: the side of a square, at most
ROWS = 256  # looked at at once
FEWEST_LINES = 16  # columns and rows in which a colour changes: with fewer, that all lie on a grid is mere chance


def square_side(image: Image.Image) -> int:
    """The side of the squares that a picture is drawn in, in pixels; 1: it is not pixel art, or its pixels are small.

    The squares lie on a grid that begins in the upper left corner, as when a sprite is enlarged. A photograph is told
    by its first rows.
    """
    columns, rows = np.zeros(image.width, bool), np.zeros(image.height, bool)  # where a colour changes
    for top in range(0, image.height, ROWS):
        start = max(0, top - 1)
        pixels = np.asarray(image.crop((0, start, image.width, min(image.height, top + ROWS))).convert("RGBA"))
        columns[1:] |= (pixels[:, 1:] != pixels[:, :-1]).any((0, 2))
        rows[start + 1 : start + len(pixels)] |= (pixels[1:] != pixels[:-1]).any((1, 2))
        lines = np.concatenate([np.flatnonzero(columns), np.flatnonzero(rows)])
        side = int(np.gcd.reduce(lines))
        if side == 1:
            return 1
    return side if len(lines) >= FEWEST_LINES and side <= LARGEST else 1


def in_squares(image: Image.Image, side: int) -> Image.Image:
    """The picture with each square of side × side pixels in its mean colour; those at the edge may be cut off."""
    small = image.reduce(side)
    squares = small.resize((small.width * side, small.height * side), Image.Resampling.NEAREST)
    return squares.crop((0, 0, *image.size))
