"""Pieces that dolls and clothes are cut from, and how they are laid on a canvas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from minicc.data.dolls import curves
from minicc.data.dolls.canvas import Box, Canvas, Paint
from minicc.data.dolls.colours import Colour, ink, light, mix, shade
from minicc.data.dolls.curves import Affine, Path
from minicc.data.dolls.patterns import Logo, falling, levels, table

LINE = 0.0105  # width of outlines
BELOW = {"upper": 0.04, "lower": 0.15, "leg": 0.245}  # how far below the neck's base a limb's bone begins
Palette = Mapping[str, Colour]  # what a piece's fill means


@dataclass(frozen=True)
class Piece:
    """One shape on one bone, in the bone's coordinates."""

    bone: str
    path: Path
    fill: str = "main"  # a key of the palette; "main" takes the pattern
    layer: str = "torso"  # what it is drawn with, see `doll.LAYERS`
    base: bool = True  # one of the shapes whose union the layer's outline surrounds; else drawn on top
    outline: bool = True
    clip: bool = False  # drawn only inside the same slot's pixels of this bone
    width: float = 0  # > 0: a line of this width
    closed: bool = True
    shaded: bool = True


@dataclass(frozen=True)
class Cloth:
    """What fills "main"."""

    colour: str
    pattern: str = "plain"
    logo: Logo | None = None
    span: tuple[float, float] = (0.0, 0.26)  # what a gradient runs over, below the neck's base


def detail(bone: str, path: Path, fill: str = "second", layer: str = "torso", **options: bool) -> Piece:
    """A shape on top of a garment, inside it."""
    return Piece(bone, path, fill, layer, base=False, **{"outline": False, "clip": True, "shaded": False} | options)


def seam(bone: str, *path: curves.Point, fill: str = "ink", layer: str = "torso", width: float = 0.008) -> Piece:
    """A line on a garment, inside it."""
    return Piece(bone, path, fill, layer, False, False, True, width, False, False)


def patch(bone: str, path: Path, fill: str = "second", layer: str = "torso", **options: bool) -> Piece:
    """A shape on top of a garment with an outline of its own; it may reach beyond."""
    return Piece(bone, path, fill, layer, base=False, **options)


def mirror(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces, and their mirror images on the other limb."""
    swap = {"_l": "_r", "_r": "_l"}
    other = [
        replace(p, path=curves.mirrored(p.path), bone=turned(p.bone, swap), layer=turned(p.layer, swap)) for p in pieces
    ]
    return [*pieces, *other]


def turned(name: str, swap: Mapping[str, str]) -> str:
    """upper_l ↔ upper_r; other names unchanged."""
    return name[:-2] + swap[name[-2:]] if name[-2:] in swap else name


def palette_of(main: Colour, second: Colour) -> dict[str, Colour]:
    """The colours of a garment's pieces."""
    return {
        "main": main,
        "second": second,
        "dark": mix(main, ink(main), 38),
        "shade": shade(main),
        "light": light(main),
        "ink": ink(main),
        "white": (250, 248, 244),
        "gold": (250, 206, 84),
        "steel": (206, 214, 226),
        "leather": (122, 78, 54),
        "night": (58, 54, 66),
    }


def lay(
    canvas: Canvas,
    pieces: Sequence[Piece],
    slot: str,
    rig: Mapping[str, Affine],
    palette: Palette,
    cloth: Cloth | None = None,
) -> None:
    """Draw a slot's pieces of one layer: outlines of the base first, then their insides, then what lies on top."""
    for base, group in groupby(pieces, key=lambda p: p.base):
        together = list(group)
        if base:
            for piece in together:
                contour(canvas, piece, slot, rig, palette)
            shaded = np.zeros_like(canvas.part, bool)
            for piece in together:
                box, mask = inside(canvas, piece, slot, rig, palette, cloth)
                if piece.shaded:
                    shaded[box] |= mask
            canvas.shadow(*around(shaded))
        else:
            for piece in together:
                contour(canvas, piece, slot, rig, palette)
                box, mask = inside(canvas, piece, slot, rig, palette, cloth)
                if piece.shaded and not piece.width:
                    canvas.shadow(box, mask)


def around(mask: np.ndarray) -> tuple[Box, np.ndarray]:
    """The mask cropped to what it covers, and where that is."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows):
        return (slice(0, 0), slice(0, 0)), mask[:0, :0]
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return box, mask[box]


def contour(canvas: Canvas, piece: Piece, slot: str, rig: Mapping[str, Affine], palette: Palette) -> None:
    """The line around a piece."""
    if not piece.outline or piece.width:
        return
    place = rig[piece.bone]
    number = canvas.number(slot, piece.bone, place)
    box, mask = canvas.area(piece.path, place, 2 * line_width(canvas))
    canvas.put(box, mask, ink(palette[piece.fill]), number, line=True)


def line_width(canvas: Canvas) -> float:
    """The outline's width: of small pictures, no less than a pixel."""
    return max(LINE, 1.05 / canvas.size) * canvas.zoom


def inside(
    canvas: Canvas, piece: Piece, slot: str, rig: Mapping[str, Affine], palette: Palette, cloth: Cloth | None
) -> tuple[Box, np.ndarray]:
    """The piece without its line; returns the canvas pixels it covers."""
    place = rig[piece.bone]
    number = canvas.number(slot, piece.bone, place)
    box, mask = canvas.area(piece.path, place, piece.width * canvas.zoom, piece.closed)
    if piece.clip:
        mask = canvas.within(box, mask, number)
    if piece.fill == "main" and cloth is not None and cloth.pattern != "plain":
        canvas.cloth(box, mask, painter(cloth, piece.bone), number)
    else:
        canvas.put(box, mask, palette[piece.fill], number)
    return box, mask


def painter(cloth: Cloth, bone: str) -> Paint:
    """The colours of a cloth at coordinates of a bone."""
    logo = cloth.logo[1:] if cloth.logo and cloth.logo[0] == bone else None
    colours = table(cloth.colour, cloth.pattern)

    def paint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if cloth.pattern == "gradient":
            return colours[falling(y + BELOW.get(bone[:-2], 0.0), *cloth.span)]
        return colours[levels(cloth.pattern, x, y, logo)]

    return paint
