"""Masks as hands paint them: from the exact layer of the clothes, what a person with a mouse would have covered.

A model that only ever saw exact layers would learn that the mask's outline is the garment's. So training paints anew
for every sample, as inpainting's free-form masks do (Yu et al. 2018, arXiv 1806.03589, algorithm 1), but over
the clothes: strokes, a loose or a tight outline, a box, a part of the garment. All draws come from one generator.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from minicc.errors import PictureError

Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom not included, as in PIL

Mask = TypeVar("Mask", np.ndarray, Tensor)
Painter = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # (H, W) bool, draws → (H, W) bool


def clothes_in(index: Mask) -> Mask:
    """A part mask (…, H, W) → True where it shows clothes, shoes, a hat or an accessory."""
    return (index > 0) & (index < 6)


def paint(layer: np.ndarray, rng: np.random.Generator, kind: str | None = None) -> np.ndarray:
    """A mask as a hand would paint it over a layer.

    layer: (H, W) bool, the exact pixels of the clothes. kind: one of KINDS; None: drawn, by KINDS' weights.
    Returns (H, W) bool, never empty. Raises PictureError for an empty layer or another kind.
    """
    layer = np.asarray(layer, dtype=bool)
    if layer.ndim != 2 or not layer.any():
        raise PictureError(f"layer of shape {layer.shape} has nothing to paint over; expected (H, W) with some True")
    if kind is None:
        kind = str(rng.choice(list(KINDS), p=[weight for _, weight in KINDS.values()]))
    if kind not in KINDS:
        raise PictureError(f"mask kind {kind!r}: expected one of {', '.join(KINDS)}")
    painted = KINDS[kind][0](layer, rng)
    return painted if painted.any() else layer.copy()


def strokes(layer: np.ndarray, rng: np.random.Generator, covered: float = 0.97, most: int = 40) -> np.ndarray:
    """A round brush along wobbly paths, each begun where clothes are still bare, until nearly all are covered."""
    size = math.sqrt(layer.sum())
    radius = max(1.5, size * rng.uniform(0.07, 0.2))
    canvas = blank(layer)
    for _ in range(most):
        bare = np.flatnonzero(layer & ~bits(canvas))
        if bare.size <= (1 - covered) * layer.sum():
            break
        stroke(canvas, wobbly_path(layer, int(rng.choice(bare)), radius, rng), radius * rng.uniform(0.8, 1.2))
    return bits(canvas)


def wobbly_path(layer: np.ndarray, start: int, radius: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Points of one stroke: steps of a brush's radius whose direction wanders, turned back outside the layer."""
    height, width = layer.shape
    y, x = divmod(start, width)
    points, angle = [(float(x), float(y))], rng.uniform(0, 2 * math.pi)
    for turn in rng.normal(0, 0.5, size=int(rng.integers(4, 14))):
        angle += turn
        x, y = points[-1][0] + radius * math.cos(angle), points[-1][1] + radius * math.sin(angle)
        inside = 0 <= y < height and 0 <= x < width and layer[int(y), int(x)]
        angle += 0 if inside else math.pi * rng.uniform(0.6, 1.4)
        points.append((x, y))
    return points


def stroke(canvas: Image.Image, points: list[tuple[float, float]], radius: float) -> None:
    """Draw one stroke with round ends."""
    draw = ImageDraw.Draw(canvas)
    draw.line(points, fill=255, width=max(1, round(2 * radius)), joint="curve")
    for x, y in (points[0], points[-1]):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def loose(layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A generous outline: blurred, cut low so that it grows beyond the clothes, its distance uneven as a hand's."""
    width = math.sqrt(layer.sum()) * rng.uniform(0.1, 0.25)
    return outline(layer, rng, width, level=rng.uniform(0.1, 0.3), uneven=0.1) | layer


def tight(layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A careful outline: a pixel or two beside the true one, now outside, now inside, its corners rounded."""
    width = max(1.0, math.sqrt(layer.sum()) * rng.uniform(0.01, 0.04))
    return outline(layer, rng, width, level=rng.uniform(0.3, 0.5), uneven=0.15)


def outline(layer: np.ndarray, rng: np.random.Generator, width: float, level: float, uneven: float) -> np.ndarray:
    """The layer blurred by `width` pixels and cut at `level` ± `uneven`, which drifts along the outline."""
    soft = np.asarray(mask_picture(layer).filter(ImageFilter.GaussianBlur(width)), dtype=np.float32) / 255
    return soft > (level + uneven * drift((layer.shape[0], layer.shape[1]), rng)).clip(0.04, 0.9)


def drift(shape: tuple[int, int], rng: np.random.Generator, cells: int = 6) -> np.ndarray:
    """A slow random field in [-1, 1], (H, W): a few random values, enlarged smoothly."""
    coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)).clip(-1, 1)


def box(layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The bounding box, pulled out on each side by up to an eighth, now and then a little in."""
    left, top, right, bottom = bounds(layer)
    out = rng.uniform(-0.03, 0.125, 4) * [right - left, bottom - top, right - left, bottom - top]
    first = np.maximum(0, np.round([left - out[0], top - out[1]])).astype(int)
    last = np.round([right + out[2], bottom + out[3]]).astype(int)
    mask = np.zeros_like(layer)
    mask[first[1] : last[1], first[0] : last[0]] = True
    return mask


def part(layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of the garment: a hem, a sleeve, one side. What lies beyond a line across it, outlined in any manner."""
    ys, xs = np.nonzero(layer)
    angle = rng.uniform(0, 2 * math.pi)
    along = xs * math.cos(angle) + ys * math.sin(angle)
    keep = along <= np.quantile(along, rng.uniform(0.3, 0.8))
    piece = np.zeros_like(layer)
    piece[ys[keep], xs[keep]] = True
    painter: Painter = (strokes, loose, tight)[int(rng.integers(3))]
    return painter(piece, rng)


def bounds(layer: np.ndarray) -> Box:
    """The box around what is True."""
    rows, columns = np.flatnonzero(layer.any(1)), np.flatnonzero(layer.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def extent(mask: np.ndarray) -> tuple[int, int]:
    """(width, height) of the box around what is masked."""
    left, top, right, bottom = bounds(mask)
    return right - left, bottom - top


def neighbourhood(mask: np.ndarray, margin: int) -> Box:
    """The mask's bounding box with a margin, inside the picture."""
    (left, top, right, bottom), (height, width) = bounds(mask), mask.shape
    return max(0, left - margin), max(0, top - margin), min(width, right + margin), min(height, bottom + margin)


def blank(layer: np.ndarray) -> Image.Image:
    return Image.new("L", layer.shape[::-1])


def bits(canvas: Image.Image) -> np.ndarray:
    return np.asarray(canvas) > 0


def mask_picture(mask: np.ndarray) -> Image.Image:
    """(H, W) bool → mode L, white on black."""
    return Image.fromarray(mask.astype(np.uint8) * 255)


KINDS: dict[str, tuple[Painter, float]] = {  # how each is painted, and how often
    "strokes": (strokes, 0.3),
    "loose": (loose, 0.25),
    "tight": (tight, 0.15),
    "box": (box, 0.1),
    "part": (part, 0.15),
    "exact": (lambda layer, rng: layer.copy(), 0.05),
}
