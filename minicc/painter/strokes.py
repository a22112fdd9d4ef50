"""Strokes of a round brush → a mask. A pure function: what was painted in the browser is drawn here, pixel by pixel."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from minicc.data.masks import mask_picture
from minicc.errors import PictureError

Stroke = Mapping[str, Any]  # {"points": [[x, y], …], "size": brush's diameter, "erase": False}; all in pixels


def mask_from_strokes(strokes: Sequence[Stroke], size: tuple[int, int]) -> Image.Image:
    """The mask that strokes paint, one over the other.

    strokes: in the order in which they were painted; "points" are the brush's way in pixels of the picture, (0, 0) its
    upper left corner; "size" is the brush's diameter; "erase" (default False) takes away. size: width and height.
    Returns mode L: 255 where a pixel's centre came under the brush, else 0. Raises PictureError for a stroke that is
    none.
    """
    mask = np.zeros((size[1], size[0]), dtype=bool)
    for i, stroke in enumerate(strokes):
        points, radius, erase = read(stroke, i)
        for a, b in segments(points):
            window, covered = capsule(a, b, radius, mask.shape)
            mask[window] = mask[window] & ~covered if erase else mask[window] | covered
    return mask_picture(mask)


def read(stroke: Stroke, i: int) -> tuple[np.ndarray, float, bool]:
    """points (N, 2), radius, whether it erases; i is for the error."""
    try:
        points = np.asarray(stroke["points"], dtype=np.float64).reshape(-1, 2)
        radius = float(stroke["size"]) / 2
        if not (len(points) and np.isfinite(points).all() and np.isfinite(radius) and radius > 0):
            raise ValueError(f"{len(points)} points, size {stroke['size']}")
        return points, radius, bool(stroke.get("erase", False))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        expected = '{"points": [[x, y], …], "size": pixels, "erase": False}'
        raise PictureError(f"stroke {i} is no stroke ({error!r}): expected {expected}") from error


def segments(points: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The pieces of a brush's way; a single point is a piece without length."""
    yield points[0], points[0]
    yield from pairwise(points)


def capsule(
    a: np.ndarray, b: np.ndarray, radius: float, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """The pixels within `radius` of the segment from a to b: a window of the picture, and which of its pixels.

    The distance of p to the segment is |p − a − h (b − a)|, h = ⟨p − a, b − a⟩/|b − a|² cut to [0, 1].
    """
    low = np.floor(np.minimum(a, b) - radius).astype(int).clip(0)
    high = np.ceil(np.maximum(a, b) + radius).astype(int).clip(0)
    window = np.s_[low[1] : min(high[1], shape[0]), low[0] : min(high[0], shape[1])]
    rows, columns = np.ogrid[window]
    x, y = columns + 0.5 - a[0], rows + 0.5 - a[1]  # pixels' centres, seen from a
    along = b - a
    h = ((x * along[0] + y * along[1]) / max(float(along @ along), 1e-12)).clip(0, 1)
    return window, (x - h * along[0]) ** 2 + (y - h * along[1]) ** 2 <= radius**2
