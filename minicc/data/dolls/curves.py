"""Smooth closed shapes from a few points, and the affine maps that move them."""

from functools import lru_cache

import numpy as np

Point = tuple[float, ...]  # (x, y), or (x, y, 1) for a sharp corner
Path = tuple[Point, ...]
STEPS = 6  # straight pieces from one point of a path to the next


@lru_cache(maxsize=4096)
def smooth(path: Path, closed: bool = True) -> np.ndarray:
    """A Catmull–Rom curve through the points, (N, 2): cubic Hermite pieces with tangent m_i = (p_{i+1} − p_{i−1}) / 2.

    p(t) = (2t³ − 3t² + 1) p₀ + (t³ − 2t² + t) m₀ + (3t² − 2t³) p₁ + (t³ − t²) m₁. At a corner the tangent is one-sided.
    """
    p = np.array([point[:2] for point in path], float)
    corner = np.array([len(point) > 2 for point in path])
    if not closed:
        corner[[0, -1]] = True
    following, before = np.roll(p, -1, 0), np.roll(p, 1, 0)
    middle = (following - before) / 2
    leave = np.where(corner[:, None], following - p, middle)
    arrive = np.roll(np.where(corner[:, None], p - before, middle), -1, 0)
    t = (np.arange(STEPS) / STEPS)[None, :, None]  # (1, T, 1)
    t2, t3 = t * t, t * t * t
    curve = (2 * t3 - 3 * t2 + 1) * p[:, None] + (t3 - 2 * t2 + t) * leave[:, None]
    curve = curve + (3 * t2 - 2 * t3) * following[:, None] + (t3 - t2) * arrive[:, None]  # (P, T, 2)
    if closed:
        return curve.reshape(-1, 2)
    return np.concatenate([curve[:-1].reshape(-1, 2), p[-1:]])


def both(*right: Point) -> Path:
    """The closed path that is its own mirror image, from its right half, top to bottom; x = 0 is the mirror."""
    left = tuple((-point[0], *point[1:]) for point in reversed(right) if point[0] != 0)
    return right + left


def mirrored(path: Path) -> Path:
    """The path, left and right exchanged."""
    return tuple((-point[0], *point[1:]) for point in path)


def moved(path: Path, dx: float, dy: float) -> Path:
    """The path, further right and down."""
    return tuple((point[0] + dx, point[1] + dy, *point[2:]) for point in path)


def ellipse(x: float, y: float, rx: float, ry: float | None = None) -> Path:
    """Eight points of an ellipse."""
    ry = rx if ry is None else ry
    c = 0.7071
    ring = ((0, -1), (c, -c), (1, 0), (c, c), (0, 1), (-c, c), (-1, 0), (-c, -c))
    return tuple((x + rx * a, y + ry * b) for a, b in ring)


Affine = np.ndarray  # (2, 3): p ↦ A[:, :2] p + A[:, 2]


def affine(xx: float, xy: float, yx: float, yy: float, x: float, y: float) -> Affine:
    """p ↦ (xx·px + xy·py + x, yx·px + yy·py + y)."""
    return np.array([[xx, xy, x], [yx, yy, y]])


def apply(a: Affine, points: np.ndarray) -> np.ndarray:
    """The map of points (..., 2); written out, so that no library may reorder the sums."""
    x, y = points[..., 0], points[..., 1]
    return np.stack([a[0, 0] * x + a[0, 1] * y + a[0, 2], a[1, 0] * x + a[1, 1] * y + a[1, 2]], -1)


def after(outer: Affine, inner: Affine) -> Affine:
    """The map p ↦ outer(inner(p))."""
    columns = apply(outer, inner.T)
    columns[:2] -= outer[:, 2]
    return columns.T


def inverse(a: Affine) -> Affine:
    """The map back."""
    (p, q, x), (r, s, y) = a.tolist()
    d = p * s - q * r
    return np.array([[s / d, -q / d, (q * y - s * x) / d], [-r / d, p / d, (r * x - p * y) / d]])


def along(start: Point, end: Point, length: float, width: float = 1.0) -> Affine:
    """The map that lays a bone of this length, which points down from 0, from `start` to `end`."""
    ux, uy = (end[0] - start[0]) / length, (end[1] - start[1]) / length
    norm = float(np.sqrt(ux * ux + uy * uy))
    nx, ny = uy / norm * width, -ux / norm * width  # across: the bone's x axis
    return affine(nx, ux, ny, uy, start[0], start[1])
