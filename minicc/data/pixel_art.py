"""Pixel art: pictures drawn in squares of one colour each, and how a result is kept in the same squares."""

import numpy as np
from PIL import Image

LARGEST = 16  # pixels: the side of a square, at most
FEWEST_LINES = 16  # columns and rows in which a colour changes: with fewer, that all lie on a grid is mere chance


def square_side(image: Image.Image) -> int:
    """The side of the squares that a picture is drawn in, in pixels; 1: it is not pixel art, or its pixels are small.

    The squares lie on a grid that begins in the upper left corner, as when a sprite is enlarged.
    """
    pixels = np.asarray(image.convert("RGBA"))
    columns = 1 + np.flatnonzero((pixels[:, 1:] != pixels[:, :-1]).any((0, 2)))
    rows = 1 + np.flatnonzero((pixels[1:] != pixels[:-1]).any((1, 2)))
    lines = np.concatenate([columns, rows])
    if len(lines) < FEWEST_LINES:
        return 1
    side = int(np.gcd.reduce(lines))
    return side if side <= LARGEST else 1


def in_squares(image: Image.Image, side: int) -> Image.Image:
    """The picture with each square of side × side pixels in its mean colour; those at the edge may be cut off."""
    if side == 1:
        return image
    width, height = (-(-n // side) for n in image.size)
    pads = [(0, height * side - image.height), (0, width * side - image.width), (0, 0)]
    pixels = np.pad(np.asarray(image), pads, mode="edge").reshape(height, side, width, side, -1)
    means = pixels.mean((1, 3)).round().astype(np.uint8)
    squares = means.repeat(side, axis=0).repeat(side, axis=1)
    return Image.fromarray(squares[: image.height, : image.width], image.mode)
