"""A canvas that remembers, for every pixel, which part was painted there last."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from minicc.data.dolls.colours import SHADE, Colour
from minicc.data.dolls.curves import Affine, apply, inverse

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
        self.parts: list[Part | None] = [None]
        self._numbers: dict[tuple[str, str], int] = {}

    def number(self, slot: str, bone: str, place: Affine) -> int:
        """The number of a slot's part on a bone."""
        key = slot, bone
        if key not in self._numbers:
            self._numbers[key] = len(self.parts)
            self.parts.append(Part(slot, bone, inverse(place)))
        return self._numbers[key]

    def area(self, points: np.ndarray, width: float = 0, closed: bool = True) -> tuple[Box, np.ndarray]:
        """The box of canvas pixels around a shape (or a line of this width), and which of them it covers."""
        p = points * self.side
        w = max(1, round(width * self.side)) if width else 0
        low = np.clip(np.floor(p.min(0)).astype(int) - w - 1, 0, self.side)
        high = np.clip(np.ceil(p.max(0)).astype(int) + w + 2, 0, self.side)
        box = slice(low[1], high[1]), slice(low[0], high[0])
        if (high <= low).any():
            return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), bool)
        mask = Image.new("L", (int(high[0] - low[0]), int(high[1] - low[1])))
        xy = [tuple(q) for q in np.round(p - low, 3).tolist()]
        draw = ImageDraw.Draw(mask)
        if width:
            draw.line(xy + xy[:2] if closed else xy, fill=255, width=w, joint="curve")
        else:
            draw.polygon(xy, fill=255)
        return box, np.asarray(mask) > 0

    def put(self, box: Box, mask: np.ndarray, colour: Colour | np.ndarray, part: int, clip: bool = False) -> None:
        """Colour the covered pixels; with `clip`, only those that belong to the part already."""
        if clip:
            mask = mask & (self.part[box] == part)
            if isinstance(colour, np.ndarray):
                raise TypeError("clipped colours must be plain")
        self.rgb[box][mask] = colour
        self.part[box][mask] = part

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
        n = self.size
        cover = (self.part > 0).reshape(n, SCALE, n, SCALE).sum((1, 3))  # (n, n)
        total = (self.rgb * (self.part > 0)[..., None]).reshape(n, SCALE, n, SCALE, 3).sum((1, 3), dtype=np.int64)
        weight = np.maximum(cover, 1)[..., None]
        rgb = (total + weight // 2) // weight
        alpha = (cover * 255 + SCALE * SCALE // 2) // (SCALE * SCALE)
        return Image.fromarray(np.concatenate([rgb, alpha[..., None]], -1).astype(np.uint8), "RGBA")
