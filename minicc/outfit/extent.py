"""Where all of a garment lies in its picture, to parts of a pixel, also where the picture's edge cuts it off."""

from dataclasses import dataclass

import numpy as np

REACH = 4  # pixels from where a garment begins within which its outline is as clear as it gets
UNCUT = 0.2  # of a garment's rows, at least so many must be whole to tell its axis
ASKEW = 0.03  # of its width: as far as the middles of half of them may lie apart


@dataclass(frozen=True)
class Extent:
    """A garment's box in pixels of its picture, that of all of it: it may reach beyond the picture."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def middle(self) -> np.ndarray:
        """(x, y)."""
        return np.array([self.left + self.right, self.top + self.bottom]) / 2

    @property
    def longer(self) -> float:
        """The longer side, in pixels: what points are measured in, so that they are the same at any place and scale."""
        return max(self.right - self.left, self.bottom - self.top)

    def parts(self, points: np.ndarray) -> np.ndarray:
        """Points (…, 2) of the picture, in pixels (x, y) → in parts of the longer side; (0.5, 0.5) is the middle."""
        return (points - self.middle) / self.longer + 0.5

    def pixels(self, parts: np.ndarray) -> np.ndarray:
        """The other way round."""
        return (parts - 0.5) * self.longer + self.middle


def extent_of(shown: np.ndarray, clear: np.ndarray) -> Extent | None:
    """Of a garment, from where it is seen, (H, W) bool, and how clearly, (H, W), 0 to 1.

    Where the picture's left or right edge cuts it off, it reaches as far beyond as the other side lies from the axis:
    garments seen from the front are alike on both sides. None if it is not known how much is missing.
    """
    touched = [bool(edge.any()) for edge in (shown[:, 0], shown[0], shown[:, -1], shown[-1])]
    (left, right), (top, bottom) = ends(np.any(shown, axis=0), clear.max(0)), ends(np.any(shown, axis=1), clear.max(1))
    if all(touched) or not any(touched):  # trimmed, or with ground on all sides
        return Extent(left, top, right, bottom)
    if sum(touched) > 1 or touched[1] or touched[3] or (middle := axis(shown, clear)) is None:
        return None
    left, right = (2 * middle - right, right) if touched[0] else (left, 2 * middle - left)
    return Extent(left, top, right, bottom)


def ends(shown: np.ndarray, clear: np.ndarray) -> tuple[float, float]:
    """Where something begins and ends along a line of pixels, (N,) bool and (N,)."""
    return begin(shown, clear), len(shown) - begin(shown[::-1], clear[::-1])


def begin(shown: np.ndarray, clear: np.ndarray) -> float:
    """Where it is half as clear as its outline; between the middles of two pixels by a straight line."""
    first = int(shown.argmax())
    level = clear[first : first + REACH].max() / 2
    at = first + int((clear[first:] >= level).argmax())
    if at == 0:
        return 0.0
    before, here = clear[at - 1], clear[at]
    return at - 0.5 + float(np.clip((level - before) / max(here - before, 1e-6), 0, 1))


def axis(shown: np.ndarray, clear: np.ndarray) -> float | None:
    """The x about which most rows are symmetrical, of those that no edge cuts off; None if these are few, or differ."""
    rows = np.flatnonzero(shown.any(1) & ~shown[:, 0] & ~shown[:, -1])
    if len(rows) < UNCUT * shown.any(1).sum():
        return None
    quarter, middle, other = np.quantile([np.mean(ends(shown[y], clear[y])) for y in rows], [0.25, 0.5, 0.75])
    return float(middle) if other - quarter <= ASKEW * shown.any(0).sum() else None
