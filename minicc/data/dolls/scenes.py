"""What stands behind a doll: plain colours, gradients, simple scenes, or nothing."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from minicc.data.dolls.canvas import SCALE
from minicc.data.dolls.colours import Colour, mix

PASTELS: dict[str, Colour] = {
    "mint": (206, 240, 220),
    "peach": (255, 224, 202),
    "sky blue": (206, 230, 252),
    "lavender": (226, 216, 248),
    "cream": (255, 246, 216),
    "rose": (252, 214, 224),
}
Draw = ImageDraw.ImageDraw


def meadow(draw: Draw, n: int) -> None:
    """Sky, two hills, a sun, flowers."""
    draw.rectangle((0, 0, n, n), fill=(200, 232, 252))
    disc(draw, n, 0.86, 0.13, 0.08, (255, 236, 150))
    draw.ellipse((-0.5 * n, 0.66 * n, 0.8 * n, 1.5 * n), fill=(178, 222, 150))
    draw.ellipse((0.2 * n, 0.72 * n, 1.5 * n, 1.6 * n), fill=(156, 208, 132))
    for x, y in ((0.1, 0.9), (0.24, 0.82), (0.76, 0.9), (0.9, 0.82)):
        disc(draw, n, x, y, 0.014, (255, 250, 240))


def beach(draw: Draw, n: int) -> None:
    """Sky, sea, sand, a parasol's shadow of a cloud."""
    draw.rectangle((0, 0, n, n), fill=(190, 230, 250))
    draw.rectangle((0, 0.55 * n, n, 0.78 * n), fill=(112, 190, 220))
    draw.rectangle((0, 0.76 * n, n, 0.79 * n), fill=(240, 250, 252))
    draw.rectangle((0, 0.79 * n, n, n), fill=(248, 228, 180))
    cloud(draw, n, 0.16, 0.16)
    cloud(draw, n, 0.84, 0.26)


def city(draw: Draw, n: int) -> None:
    """A skyline with lit windows, a street."""
    draw.rectangle((0, 0, n, n), fill=(250, 226, 214))
    for x, top, wide, tint in ((0.0, 0.36, 0.2, 0), (0.18, 0.5, 0.16, 1), (0.66, 0.46, 0.17, 1), (0.8, 0.3, 0.2, 0)):
        draw.rectangle((x * n, top * n, (x + wide) * n, n), fill=((196, 190, 216), (178, 174, 206))[tint])
        for row in range(5):
            for column in (0.25, 0.65):
                left, high = (x + wide * column) * n, (top + 0.06 + 0.09 * row) * n
                draw.rectangle((left, high, left + 0.022 * n, high + 0.035 * n), fill=(255, 244, 196))
    draw.rectangle((0, 0.86 * n, n, n), fill=(168, 166, 178))


def room(draw: Draw, n: int) -> None:
    """A wall with a window, a floor of boards."""
    draw.rectangle((0, 0, n, n), fill=(250, 236, 214))
    draw.rectangle((0.68 * n, 0.12 * n, 0.95 * n, 0.46 * n), fill=(255, 255, 252))
    draw.rectangle((0.7 * n, 0.14 * n, 0.93 * n, 0.44 * n), fill=(196, 228, 250))
    draw.rectangle((0.808 * n, 0.14 * n, 0.822 * n, 0.44 * n), fill=(255, 255, 252))
    draw.rectangle((0, 0.8 * n, n, n), fill=(222, 186, 146))
    draw.rectangle((0, 0.79 * n, n, 0.815 * n), fill=(255, 250, 240))
    for y in (0.87, 0.94):
        draw.rectangle((0, y * n, n, (y + 0.006) * n), fill=(200, 160, 122))


def night(draw: Draw, n: int) -> None:
    """A dark sky, moon and stars over a hill."""
    draw.rectangle((0, 0, n, n), fill=(66, 70, 124))
    disc(draw, n, 0.86, 0.15, 0.075, (255, 246, 206))
    disc(draw, n, 0.83, 0.13, 0.066, (66, 70, 124))
    for x, y in ((0.08, 0.1), (0.2, 0.26), (0.06, 0.46), (0.92, 0.4), (0.72, 0.06), (0.3, 0.06), (0.95, 0.6)):
        disc(draw, n, x, y, 0.009, (255, 252, 226))
    draw.ellipse((-0.3 * n, 0.8 * n, 1.3 * n, 1.7 * n), fill=(52, 84, 100))


def disc(draw: Draw, n: int, x: float, y: float, r: float, colour: Colour) -> None:
    """A filled circle."""
    draw.ellipse(((x - r) * n, (y - r) * n, (x + r) * n, (y + r) * n), fill=colour)


def cloud(draw: Draw, n: int, x: float, y: float) -> None:
    """Three white circles."""
    for dx, r in ((-0.07, 0.04), (0, 0.06), (0.07, 0.042)):
        disc(draw, n, x + dx, y, r, (248, 252, 255))


SCENES: dict[str, Callable[[Draw, int], None]] = {
    "meadow": meadow, "beach": beach, "city": city, "room": room, "night": night,
}  # fmt: skip
BACKGROUNDS = ("none", *PASTELS, *(f"{name} gradient" for name in PASTELS), *SCENES)


@lru_cache(maxsize=64)
def background(name: str, size: int) -> np.ndarray:
    """(size, size, 3) uint8: one of BACKGROUNDS other than "none"."""
    if name in PASTELS:
        return np.full((size, size, 3), PASTELS[name], np.uint8)
    if name.endswith(" gradient"):
        return gradient(PASTELS[name.removesuffix(" gradient")], size)
    picture = Image.new("RGB", (size * SCALE, size * SCALE))
    SCENES[name](ImageDraw.Draw(picture), size * SCALE)
    return np.asarray(picture.reduce(SCALE))


def gradient(colour: Colour, size: int) -> np.ndarray:
    """From the colour at the top to a darker, cooler one below."""
    rows = [mix(colour, (150, 160, 214), 60 * y // size) for y in range(size)]
    return np.repeat(np.array(rows, np.uint8)[:, None], size, 1)
