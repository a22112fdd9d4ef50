"""Painting a mask over a character, in Jupyter and in Colab, with a mouse, a pen or a finger.

The browser sends strokes and no pixels: the mask is drawn from them here (`strokes.py`), so that it can be kept in a
notebook as a few numbers, painted again anywhere, and tested without a browser.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minicc.painter.strokes import Stroke, mask_from_strokes

__all__ = ["MaskPainter", "mask_from_strokes"]

HERE = Path(__file__).parent
SHOWN = 1024  # the longest side of the picture sent to the browser; strokes are in the character's own pixels
STORED = 512  # the longest side of the picture that is kept in the notebook, for readers who do not run it
TINT = (213, 94, 0)  # figures.VERMILION: what is painted
WITHOUT_BROWSER = (
    "To paint with the mouse, open the notebook in Jupyter or Colab with anywidget installed "
    "(pip install 'minicc[course]'). Without: painter.strokes = [{'points': [[x, y], …], 'size': 20}, …]"
)


class MaskPainter:
    """A character to paint on; `mask` is what has been painted so far.

    character: any mode and size. brush: diameter at the start, in the character's pixels (default: a twelfth of the
    longer side). Show it as the last line of a cell, paint, and use `painter.mask` in the next cell:

        painter = MaskPainter(character)
        painter
        minicc.phase1.generate(sd, control, character, painter.mask, "a red dress")
    """

    def __init__(self, character: Image.Image, brush: float | None = None) -> None:
        self.character = character
        self.brush = float(brush or max(2, round(max(character.size) / 12)))
        self._strokes: list[Stroke] = []
        self._widget: Any = None

    @property
    def strokes(self) -> list[Stroke]:
        """What has been painted, oldest first: see `mask_from_strokes`. Assign to paint without a hand."""
        return list(self._strokes if self._widget is None else self._widget.strokes)

    @strokes.setter
    def strokes(self, strokes: Sequence[Stroke]) -> None:
        mask_from_strokes(strokes, self.character.size)  # refuses what is no stroke
        self._strokes = [dict(stroke) for stroke in strokes]
        if self._widget is not None:
            self._widget.strokes = self._strokes

    @property
    def mask(self) -> Image.Image:
        """The mask as it is painted now: mode L, 255 to change and 0 to keep, of the character's size."""
        return mask_from_strokes(self.strokes, self.character.size)

    @property
    def widget(self) -> Any:
        """The widget that the browser shows, made when it is first asked for. Raises ImportError without anywidget."""
        if self._widget is None:
            self._widget = front_end(self.character, self.brush, self._strokes)
        return self._widget

    def preview(self) -> Image.Image:
        """The character on white with the mask laid over it, RGB."""
        sheet = Image.new("RGBA", self.character.size, "white")
        sheet.alpha_composite(self.character.convert("RGBA"))
        tint = Image.new("RGBA", sheet.size, TINT)
        return Image.composite(Image.blend(sheet, tint, 0.5), sheet, self.mask).convert("RGB")

    def __repr__(self) -> str:
        painted = np.asarray(self.mask).mean() / 255
        width, height = self.character.size
        return f"MaskPainter({width}×{height}, strokes: {len(self.strokes)}, painted: {painted:.0%})"

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a notebook shows, and its metadata: the widget; where there is none, the picture and how to paint."""
        small = self.preview()
        small.thumbnail((STORED, STORED))
        data: dict[str, Any] = {"text/plain": repr(self), "image/png": png(small)}
        try:
            shown, metadata = self.widget._repr_mimebundle_()
        except ImportError:
            return {**data, "text/plain": f"{self!r}\n{WITHOUT_BROWSER}"}, {}
        return {**shown, **data}, metadata


def front_end(character: Image.Image, brush: float, strokes: list[Stroke]) -> Any:
    """The anywidget whose browser half is front.js. anywidget is imported here: minicc does without it."""
    import anywidget
    import traitlets

    class Painter(anywidget.AnyWidget):
        _esm = (HERE / "front.js").read_text("utf-8")
        _css = (HERE / "front.css").read_text("utf-8")
        picture = traitlets.Bytes().tag(sync=True)  # PNG, at most SHOWN pixels a side
        width = traitlets.Int().tag(sync=True)  # the character's size
        height = traitlets.Int().tag(sync=True)
        brush = traitlets.Float().tag(sync=True)
        strokes: traitlets.List = traitlets.List().tag(sync=True)

    small = character.convert("RGBA")
    small.thumbnail((SHOWN, SHOWN))
    width, height = character.size
    return Painter(picture=png(small), width=width, height=height, brush=brush, strokes=strokes)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
