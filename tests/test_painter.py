"""The mask painter without a browser; the browser's half is tested in tests/browser/test_painter.py."""

import builtins
import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minicc.data import dolls
from minicc.errors import PictureError
from minicc.outfit.compose import read_mask
from minicc.painter import MaskPainter, mask_from_strokes

CHARACTER = dolls.draw(0, size=64).image


def bits(mask: Image.Image) -> np.ndarray:
    return np.asarray(mask) > 0


def test_a_point_paints_the_pixels_whose_centre_is_within_the_brush():
    rows, columns = np.mgrid[:40, :60] + 0.5
    expected = (columns - 20.3) ** 2 + (rows - 15) ** 2 <= 7**2
    mask = mask_from_strokes([{"points": [[20.3, 15]], "size": 14}], (60, 40))
    assert (mask.mode, mask.size) == ("L", (60, 40))
    assert (bits(mask) == expected).all()
    assert set(np.unique(mask)) == {0, 255}


def test_a_straight_stroke_is_a_bar_with_round_ends():
    mask = bits(mask_from_strokes([{"points": [[10, 20], [50, 20]], "size": 8}], (64, 40)))
    assert mask[16:24, 10:50].all()
    assert not mask[:16].any()
    assert not mask[24:].any()
    assert mask.sum() == pytest.approx(8 * 40 + np.pi * 16, rel=0.03)


coordinate = st.floats(-30, 90, allow_nan=False)
a_stroke = st.fixed_dictionaries(
    {
        "points": st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=4),
        "size": st.floats(0.5, 60),
        "erase": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(a_stroke, max_size=4))
def test_every_pixel_follows_the_last_stroke_that_touched_it(strokes):
    rows, columns = np.mgrid[:48, :56] + 0.5
    expected = np.zeros((48, 56), dtype=bool)
    for stroke in strokes:
        near = np.full((48, 56), np.inf)
        points = np.asarray(stroke["points"], dtype=float)
        for a, b in zip(points, [*points[1:], points[-1]], strict=True):
            d = b - a
            h = np.clip(((columns - a[0]) * d[0] + (rows - a[1]) * d[1]) / max(d @ d, 1e-12), 0, 1)
            near = np.minimum(near, (columns - a[0] - h * d[0]) ** 2 + (rows - a[1] - h * d[1]) ** 2)
        expected = np.where(near <= (stroke["size"] / 2) ** 2, not stroke["erase"], expected)
    assert (bits(mask_from_strokes(strokes, (56, 48))) == expected).all()


def test_no_stroke_is_an_empty_mask():
    assert not bits(mask_from_strokes([], (8, 9))).any()


@pytest.mark.parametrize(
    "wrong",
    [{}, {"points": []}, {"points": [], "size": 3}, {"points": [[1, 2]], "size": 0}, {"points": [[1]], "size": 2},
     {"points": [[1, float("nan")]], "size": 2}, {"points": "abc", "size": 2}, [1, 2], None],
)  # fmt: skip
def test_what_is_no_stroke_is_refused_with_its_number(wrong):
    with pytest.raises(PictureError, match="stroke 1 is no stroke"):
        mask_from_strokes([{"points": [[1, 1]], "size": 2}, wrong], (8, 8))


def test_a_painter_has_a_mask_of_the_characters_size_that_phase_1_takes():
    painter = MaskPainter(CHARACTER)
    painter.strokes = [{"points": [[20, 30], [40, 30]], "size": 12}]
    assert painter.mask == mask_from_strokes(painter.strokes, CHARACTER.size)
    assert (read_mask(painter.mask, CHARACTER.size) == bits(painter.mask)).all()


def test_the_widget_is_made_when_it_is_needed_and_takes_what_was_painted_before():
    pytest.importorskip("anywidget")
    painter = MaskPainter(CHARACTER, brush=9)
    painter.strokes = [{"points": [[20, 30]], "size": 12}]
    assert painter.widget.strokes == painter.strokes
    painter.widget.strokes = [*painter.strokes, {"points": [[9, 9]], "size": 4}]  # as the browser does it
    assert len(painter.strokes) == 2
    painter.strokes = []
    assert painter.widget.strokes == []
    assert (painter.widget.width, painter.widget.height, painter.widget.brush) == (64, 64, 9)
    assert Image.open(io.BytesIO(painter.widget.picture)).convert("RGBA") == CHARACTER.convert("RGBA")


def test_a_notebook_keeps_a_picture_and_a_line_that_nbval_can_compare():
    painter = MaskPainter(CHARACTER)
    painter.strokes = [{"points": [[32, 32]], "size": 20}]
    data, _ = painter._repr_mimebundle_()
    assert data["text/plain"] == "MaskPainter(64×64, strokes: 1, painted: 8%)"
    assert "application/vnd.jupyter.widget-view+json" in data
    shown = np.asarray(Image.open(io.BytesIO(data["image/png"]))).astype(int)
    plain = np.asarray(MaskPainter(CHARACTER).preview()).astype(int)
    assert ((shown != plain).any(-1) <= bits(painter.mask)).all()


def test_without_anywidget_it_says_how_to_paint_all_the_same(monkeypatch):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "anywidget":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    painter = MaskPainter(CHARACTER)
    data, _ = painter._repr_mimebundle_()
    assert "pip install 'minicc[course]'" in data["text/plain"]
    assert "painter.strokes = " in data["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" not in data
    painter.strokes = [{"points": [[32, 32]], "size": 20}]
    assert bits(painter.mask).any()


def test_minicc_itself_does_not_need_anywidget():
    command = "import sys, minicc, minicc.painter; assert not {'anywidget', 'ipywidgets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True)
