"""Where all of a garment lies in its picture: to parts of a pixel, at any place and scale, and where it is cut off."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from minicc.data import dolls
from minicc.data.dolls.wardrobe import PATTERNED
from minicc.data.tensors import to_image, to_tensor
from minicc.outfit.extent import Extent, completed
from minicc.outfit.garment import placed
from minicc.training.phase2_stage import moved, moved_points

SHIRT = Extent(12.3, 20.6, 75.5, 81.4)
FINE = 8  # the shirt is drawn so many times larger, and then scaled down


def shirt(size: tuple[int, int] = (96, 96), mode: str = "RGB") -> Image.Image:
    """A shirt with sleeves of which SHIRT is the box."""
    left, top, right, bottom = (FINE * n for n in (SHIRT.left, SHIRT.top, SHIRT.right, SHIRT.bottom))
    sheet = Image.new("RGB", [FINE * n for n in size], "white")
    draw, arm = ImageDraw.Draw(sheet), 16 * FINE
    draw.rectangle((round(left), round(top), round(right) - 1, round(top) + arm), "#334455")
    draw.rectangle((round(left + arm), round(top), round(right - arm) - 1, round(bottom) - 1), "#334455")
    small = sheet.resize(size, Image.Resampling.BOX)
    if mode == "RGBA":
        alpha = Image.fromarray(255 - np.asarray(small).min(-1)).point(lambda a: min(255, a * 255 // 204))
        small.putalpha(alpha)
    return small


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_garments_box_is_known_to_a_fifth_of_a_pixel(mode):
    extent = placed(shirt(mode=mode), 64).extent
    assert vars(extent) == pytest.approx(vars(SHIRT), abs=0.2)


@pytest.mark.parametrize("cut", [18, 27])
def test_where_the_left_or_right_edge_cuts_it_off_the_other_side_tells_the_width(cut):
    for sheet, moved_by in ((shirt().crop((cut, 0, 96, 96)), cut), (shirt().crop((0, 0, 88 - cut, 96)), 0)):
        extent = placed(sheet, 64).extent
        assert (extent.left + moved_by, extent.right + moved_by) == pytest.approx((SHIRT.left, SHIRT.right), abs=0.3)
        assert (extent.top, extent.bottom) == pytest.approx((SHIRT.top, SHIRT.bottom), abs=0.2)


@pytest.mark.parametrize("cut", [18, 27])
@pytest.mark.parametrize(("mode", "alike"), [("RGB", 0.98), ("RGBA", 0.94)])
def test_what_is_cut_off_is_completed_by_its_mirror_image(cut, mode, alike):
    """And nothing else: what is given stays as it is, where `moved` says that it lies. alike: the share of pixels; the
    others are at the outline, which is a pixel off where half transparent pixels count as shown.
    """
    whole = placed(shirt(mode=mode), 64)
    for box, moved_by in (((cut, 0, 96, 96), cut), ((0, 0, 88 - cut, 96), 0)):
        part = placed(shirt(mode=mode).crop(box), 64)
        off = abs(np.asarray(part.picture).astype(int) - np.asarray(whole.picture)).max(-1)
        assert (off <= 40).mean() > alike
        assert (part.shown == whole.shown).mean() > alike
        assert part.completed
        assert not whole.completed
        point = np.array([50.0, 45.0])
        assert part.moved(point - (moved_by, 0)) == pytest.approx(whole.moved(point), abs=0.02)


def test_a_whole_garment_is_left_as_it_is():
    pixels, shown = np.asarray(shirt()), np.asarray(shirt()).min(-1) < 200
    same, where, moved = completed(pixels, shown, (12.0, 76.0))
    assert same is pixels
    assert where is shown
    assert moved == 0


def test_cut_off_at_the_lower_edge_too_it_is_as_wide_as_it_was():
    """How long it is nobody knows, so it has no extent; but its breadth it has."""
    part = placed(shirt().crop((18, 0, 96, 70)), 64)
    assert part.extent is None
    assert part.box[0] == pytest.approx(SHIRT.left - 18, abs=1)


@pytest.mark.parametrize("box", [(45, 0, 96, 96), (0, 30, 96, 96), (0, 0, 96, 70), (18, 30, 96, 96), (18, 0, 70, 96)])
def test_where_too_much_is_cut_off_nobody_knows(box):
    """More than half of the width; the top; the bottom; two edges; both sides."""
    assert placed(shirt(mode="RGBA").crop(box), 64).extent is None


def test_what_is_not_alike_on_both_sides_has_no_axis():
    """The left edge cuts off a train that hangs to one side, lower and lower."""
    sheet = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(sheet).polygon([(0, 20), (20, 10), (60, 10), (90, 80), (30, 80)], "#334455")
    assert placed(sheet, 64).extent is None


def test_what_is_longer_on_one_side_is_not_taken_for_cut_off():
    """A belt that hangs out to the left edge: its mirror image would end within the picture."""
    sheet = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(sheet).rectangle((30, 10, 65, 80), "#334455")
    ImageDraw.Draw(sheet).rectangle((0, 40, 65, 46), "#334455")
    one = placed(sheet, 64)
    assert one.extent is None
    assert not one.completed


def test_a_trimmed_picture_shows_all_of_it():
    sheet = shirt(mode="RGBA").crop((12, 20, 76, 82))
    assert vars(placed(sheet, 64).extent) == pytest.approx(
        {"left": 0.3, "top": 0.6, "right": 63.5, "bottom": 61.4}, abs=0.6
    )


def test_points_are_the_same_parts_at_any_place_and_scale():
    points = np.array([[12.3, 20.6], [43.9, 51.0], [75.5, 81.4]])
    parts = SHIRT.parts(points)
    assert parts[1] == pytest.approx((0.5, 0.5))
    assert (parts[0, 0], parts[2, 0]) == pytest.approx((0, 1))
    assert SHIRT.pixels(parts) == pytest.approx(points)
    elsewhere = Extent(*(2 * n + 7 for n in vars(SHIRT).values()))
    assert elsewhere.parts(2 * points + 7) == pytest.approx(parts)


@pytest.mark.parametrize("scale", [0.8, 1.05])
def test_a_dolls_garment_moved_and_cut_off_is_found_where_it_is(scale):
    """What training's variation does to a garment's picture, and part of it beyond the right edge."""
    doll = dolls.draw(5, split="test")
    for slot in (slot for slot in doll.slots if slot in PATTERNED):
        flat = doll.flat(slot)
        whole, theta = placed(flat, 128).extent, torch.tensor([[1 / scale, 0, -0.25], [0, 1 / scale, 0.02]])
        picture = to_image(moved(to_tensor(flat)[0], theta))
        found = placed(picture, 128)
        assert found.extent is not None
        parts = np.array([[0.2, 0.3], [0.5, 0.5], [0.6, 0.7]])
        there = moved_points(torch.from_numpy(whole.pixels(parts) / 128), theta).numpy() * 128
        assert found.extent.pixels(parts) == pytest.approx(there, abs=0.3)
        assert found.lying(parts) == pytest.approx(found.moved(there), abs=0.005)
