"""Fabric patterns: from the coordinates of cloth to one of a few levels, and from levels to colours."""

from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image, ImageDraw

from minicc.data.dolls.colours import CLOTH, SECOND, Colour, mix

TILE = 96  # pixels of a pattern's repeat
# Of the frame, of which a cell of the latents, 8 pixels of 128, is 0.0625: a repeat has to be larger, or it is lost.
PERIOD = {"stripes": 0.075, "dots": 0.1, "checks": 0.1, "plaid": 0.115, "stars": 0.125}
GRADIENT = 32  # steps of colour
Logo = tuple[str, float, float, float]  # bone, x, y, half width


def star(x: float, y: float, r: float) -> list[tuple[float, float]]:
    """A five-pointed star's corners."""
    outer = ((0.0, -1.0), (0.951, -0.309), (0.588, 0.809), (-0.588, 0.809), (-0.951, -0.309))
    inner = ((0.27, -0.37), (0.435, 0.141), (0.0, 0.457), (-0.435, 0.141), (-0.27, -0.37))
    return [(x + r * a, y + r * b) for pair in zip(outer, inner, strict=True) for a, b in pair]


@lru_cache
def tile(pattern: str) -> np.ndarray:
    """One repeat of a pattern, (TILE, TILE) of levels 0 main, 1 second, 2 between."""
    picture = Image.new("L", (TILE, TILE))
    draw = ImageDraw.Draw(picture)
    half = TILE // 2
    if pattern == "stripes":
        draw.rectangle((0, half, TILE, TILE), fill=1)
    elif pattern == "dots":
        for x, y in ((0, 0), (0, TILE), (TILE, 0), (TILE, TILE), (half, half)):
            draw.ellipse((x - 22, y - 22, x + 22, y + 22), fill=1)
    elif pattern == "checks":
        draw.rectangle((0, 0, half - 1, half - 1), fill=1)
        draw.rectangle((half, half, TILE, TILE), fill=1)
    elif pattern == "plaid":
        draw.rectangle((0, 10, TILE, 46), fill=2)
        draw.rectangle((10, 0, 46, TILE), fill=2)
        draw.rectangle((10, 10, 46, 46), fill=1)
        draw.rectangle((0, 66, TILE, 76), fill=1)
        draw.rectangle((66, 0, 76, TILE), fill=1)
    elif pattern == "stars":
        for x, y in product((-half, half, TILE + half), repeat=2):  # and their neighbours' points
            draw.polygon(star(x - 24, y - 24, 29), fill=1)
            draw.polygon(star(x + 24, y + 24, 29), fill=1)
    return np.asarray(picture)


@lru_cache
def heart() -> np.ndarray:
    """The logo, (TILE, TILE) of 0 and 1."""
    picture = Image.new("L", (TILE, TILE))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((2, 8, 52, 56), fill=1)
    draw.ellipse((44, 8, 94, 56), fill=1)
    draw.polygon([(6, 42), (90, 42), (48, 92)], fill=1)
    return np.asarray(picture)


def levels(pattern: str, x: np.ndarray, y: np.ndarray, logo: tuple[float, float, float] | None) -> np.ndarray:
    """The level at each coordinate of a garment's part, gradients excepted."""
    if pattern == "logo":
        return np.zeros(x.shape, int) if logo is None else at_logo(x, y, *logo)
    if pattern == "plain":
        return np.zeros(x.shape, int)
    scale = TILE / PERIOD[pattern]
    column = np.floor(x * scale).astype(int) % TILE
    row = np.floor(y * scale).astype(int) % TILE
    return tile(pattern)[row, column].astype(int)


def falling(y: np.ndarray, top: float, bottom: float) -> np.ndarray:
    """The levels of a gradient that runs from `top` to `bottom`."""
    return np.clip(((y - top) / (bottom - top) * GRADIENT).astype(int), 0, GRADIENT - 1)


def at_logo(x: np.ndarray, y: np.ndarray, x0: float, y0: float, r: float) -> np.ndarray:
    """1 inside the logo at (x0, y0), 0 around it."""
    column = np.floor((x - x0 + r) / (2 * r) * TILE).astype(int)
    row = np.floor((y - y0 + r) / (2 * r) * TILE).astype(int)
    inside = (column >= 0) & (column < TILE) & (row >= 0) & (row < TILE)
    return np.where(inside, heart()[row % TILE, column % TILE], 0)


@lru_cache
def table(colour: str, pattern: str) -> np.ndarray:
    """The colour of each level, (levels, 3) uint8."""
    main, second = CLOTH[colour], SECOND[colour]
    rows: list[Colour] = [main, second, mix(main, second, 42)]
    if pattern == "gradient":
        rows = [mix(main, second, 100 * i // (GRADIENT - 1)) for i in range(GRADIENT)]
    return np.array(rows, np.uint8)
