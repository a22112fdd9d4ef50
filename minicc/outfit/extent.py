"""Where all of a garment lies in its picture, to parts of a pixel, and the rest of it where the picture cuts it off."""

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


def extent_of(shown: np.ndarray, clear: np.ndarray, across: tuple[float, float] | None) -> Extent | None:
    """Of a garment, from where it is seen, (H, W) bool, and how clearly, (H, W), 0 to 1; across: its `breadth`. None if
    it is not known how much is missing.
    """
    _, top_cut, _, bottom_cut = touched = edges_touched(shown)
    if across is None or ((top_cut or bottom_cut) and not all(touched)):
        return None
    top, bottom = ends(np.any(shown, axis=1), clear.max(1))
    return Extent(across[0], top, across[1], bottom)


def edges_touched(shown: np.ndarray) -> tuple[bool, bool, bool, bool]:
    """Whether a garment reaches its picture's left, upper, right, lower edge. All of them: it is trimmed, and whole."""
    left, top, right, bottom = (bool(edge.any()) for edge in (shown[:, 0], shown[0], shown[:, -1], shown[-1]))
    return left, top, right, bottom


def breadth(shown: np.ndarray, clear: np.ndarray) -> tuple[float, float] | None:
    """From which x to which all of a garment reaches. As for `extent_of`.

    Where the picture's left or right edge cuts it off, it reaches as far beyond as the other side lies from the axis:
    garments seen from the front are alike on both sides.
    """
    left_cut, _, right_cut, _ = touched = edges_touched(shown)
    left, right = ends(np.any(shown, axis=0), clear.max(0))
    if left_cut == right_cut:
        return (left, right) if all(touched) or not left_cut else None
    if (middle := axis(shown, clear)) is None:
        return None
    mirrored = (2 * middle - right, right) if left_cut else (left, 2 * middle - left)
    slack = ASKEW * (right - left)
    return mirrored if mirrored[0] <= left + slack and mirrored[1] >= right - slack else None  # else one side is longer


def completed(pixels: np.ndarray, shown: np.ndarray, across: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, int]:
    """A garment that its picture's left or right edge cuts off, and the rest of it: the mirror image of its other side.

    pixels: (H, W, 3) uint8; shown: (H, W) bool; across: its `breadth`. Returns both, as wide as all of it, and by how
    many columns the picture moved to the right; just as they are if nothing is missing.
    """
    (left, right), width = across, shown.shape[1]
    before, after = max(0, round(-left)), max(0, round(right) - width)
    if not before and not after:
        return pixels, shown, 0
    x = np.arange(-before, width + after)
    mirrored = (round(left + right) - 1 - x).clip(0, width - 1)  # column x is from x to x + 1
    x = np.where((x >= 0) & (x < width), x, mirrored)
    return pixels[:, x], shown[:, x], before


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
