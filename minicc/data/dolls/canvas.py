"""A canvas that remembers, for every pixel, which part was painted there last."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from minicc.data.dolls.colours import SHADE, Colour
from minicc.data.dolls.curves import Affine, Path, apply, inverse, smooth

SCALE = 3  # canvas pixels along a picture's pixel
LIGHT = (0.017, 0.013)  # light falls from the upper left: how far from the lower right edge shadows reach
Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]  # coordinates of a part → colours (N, 3)
Box = tuple[slice, slice]


@dataclass(frozen=True)
class Part:
    """What a pixel belongs to: a slot's piece on one bone."""

    slot: str  # "top" … "hair", "skin"
    bone: str
    back: Affine  # picture → the bone's own coordinates


class Canvas:
    """Colours and part numbers, three times as fine as the picture; coordinates run from 0 to 1 over it."""

    def __init__(self, size: int, zoom: float = 1) -> None:
        self.size, self.side = size, size * SCALE
        self.zoom = zoom  # of lines and shadows
        self.rgb = np.zeros((self.side, self.side, 3), np.uint8)
        self.part = np.zeros((self.side, self.side), np.uint8)
        self.line = np.zeros((self.side, self.side), bool)  # outlines, which details leave alone
        self.parts: list[Part | None] = [None]
        self._numbers: dict[tuple[str, str], int] = {}

    def number(self, slot: str, bone: str, place: Affine) -> int:
        """The number of a slot's part on a bone."""
        key = slot, bone
        if key not in self._numbers:
            self._numbers[key] = len(self.parts)
            self.parts.append(Part(slot, bone, inverse(place)))
        return self._numbers[key]

    def find(self, slot: str, bone: str) -> int:
        """The number of a part that was drawn; 255 if it was not."""
        return self._numbers.get((slot, bone), 255)

    def area(self, path: Path, place: Affine, width: float = 0, closed: bool = True) -> tuple[Box, np.ndarray]:
        """The box of canvas pixels around a shape (or a line of this width), and which of them it covers."""
        return covered(path, place.tobytes(), self.side, max(1, round(width * self.side)) if width else 0, closed)

    def put(self, box: Box, mask: np.ndarray, colour: Colour | np.ndarray, part: int, line: bool = False) -> None:
        """Colour the covered pixels, as an outline or as what it surrounds."""
        self.rgb[box][mask] = colour
        np.copyto(self.part[box], np.uint8(part), where=mask)
        np.copyto(self.line[box], line, where=mask)

    def within(self, box: Box, mask: np.ndarray, part: int) -> np.ndarray:
        """Those of the covered pixels that belong to the part already, without its outline."""
        return mask & (self.part[box] == part) & ~self.line[box]

    def cloth(self, box: Box, mask: np.ndarray, paint: Paint, part: int) -> None:
        """Colour the covered pixels by their coordinates in the part."""
        rows, columns = np.nonzero(mask)
        centres = np.stack([columns + box[1].start + 0.5, rows + box[0].start + 0.5], -1) / self.side
        known = self.parts[part]
        assert known is not None
        local = apply(known.back, centres)
        self.put(box, mask, paint(local[:, 0], local[:, 1]), part)

    def shadow(self, box: Box, mask: np.ndarray) -> None:
        """Cel shading: what lies within LIGHT of the lower right edge grows darker, with a sharp border."""
        dx, dy = (round(reach * self.zoom * self.side) for reach in LIGHT)
        lit = np.zeros_like(mask)
        lit[: mask.shape[0] - dy, : mask.shape[1] - dx] = mask[dy:, dx:]
        dark = mask & ~lit
        colours = self.rgb[box]
        colours[dark] = (colours[dark].astype(np.uint16) * np.array(SHADE, np.uint16) >> 8).astype(np.uint8)

    def picture(self) -> Image.Image:
        """The picture, RGBA: every pixel the mean of its canvas pixels."""
        cover = folded(self.part > 0).astype(np.int64)  # (n, n)
        total = folded(self.rgb)  # (n, n, 3); where nothing was painted, 0
        weight = np.maximum(cover, 1)[..., None]
        rgb = (total + weight // 2) // weight
        alpha = (cover * 255 + SCALE * SCALE // 2) // (SCALE * SCALE)
        return Image.fromarray(np.concatenate([rgb, alpha[..., None]], -1).astype(np.uint8), "RGBA")


@lru_cache(maxsize=16384)  # dolls share bodies and garments: nearly every shape was seen before
def covered(path: Path, place: bytes, side: int, width: int, closed: bool) -> tuple[Box, np.ndarray]:
    """What a smooth shape, or a line `width` > 0 pixels wide, covers of a canvas; place: the bytes of an Affine."""
    p = apply(np.frombuffer(place).reshape(2, 3), smooth(path, closed)) * side
    low = np.clip(np.floor(p.min(0)).astype(int) - width - 1, 0, side)
    high = np.clip(np.ceil(p.max(0)).astype(int) + width + 2, 0, side)
    box = slice(low[1], high[1]), slice(low[0], high[0])
    if (high <= low).any():
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), bool)
    mask = Image.new("L", (int(high[0] - low[0]), int(high[1] - low[1])))
    xy = [tuple(q) for q in np.round(p - low, 3).tolist()]
    draw = ImageDraw.Draw(mask)
    if width:
        draw.line(xy + xy[:1] if closed else xy, fill=255, width=width)
        for x, y in (p - low)[bends(p, width, closed)].tolist():
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    else:
        draw.polygon(xy, fill=255)
    return box, np.asarray(mask) > 0


def folded(fine: np.ndarray) -> np.ndarray:
    """The sum over each picture pixel's canvas pixels: (3n, 3n, …) → (n, n, …) integers."""
    kind = np.uint8 if fine.dtype == bool else np.uint16
    total = np.zeros((fine.shape[0] // SCALE, fine.shape[1] // SCALE, *fine.shape[2:]), kind)
    for i in range(SCALE):
        for j in range(SCALE):
            total += fine[i::SCALE, j::SCALE]
    return total


def bends(points: np.ndarray, width: int, closed: bool) -> np.ndarray:
    """(N,) bool: where a line turns by an angle φ > 1.2 / width, so that a notch would show: cos φ ≈ 1 − φ² / 2."""
    ahead, before = np.roll(points, -1, 0) - points, points - np.roll(points, 1, 0)
    cosine = (ahead * before).sum(-1) / np.sqrt((ahead**2).sum(-1) * (before**2).sum(-1) + 1e-9)
    turns = cosine < 1 - (1.2 / width) ** 2 / 2
    if not closed:
        turns[[0, -1]] = False
    return turns
