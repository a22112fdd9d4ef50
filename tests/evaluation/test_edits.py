"""The figures of an edit, on pictures made so that the answer is known."""

import numpy as np
import pytest
from PIL import Image

from minicc.evaluation.edits import (
    colour_name,
    colours_right,
    filled_with_mean,
    mean_delta_e,
    outline_share,
    outside_change,
    seam,
)

SIDE = 64
MASK = np.zeros((SIDE, SIDE), bool)
MASK[16:48, 16:48] = True


def flat(colour, side: int = SIDE) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


@pytest.fixture
def truth() -> np.ndarray:
    """A smooth picture with one dark line through the mask's edge."""
    picture = np.stack([np.tile(np.linspace(60, 200, SIDE), (SIDE, 1))] * 3, -1).round().astype(np.uint8)
    picture[30:32] = 20
    return picture


def ratio(result, truth, mask=MASK) -> float:
    ours, true = seam(result, truth, mask)
    return ours / true


def test_a_change_outside_the_mask_is_seen_in_any_channel_and_inside_in_none():
    before = Image.fromarray(np.full((SIDE, SIDE, 4), 100, np.uint8), "RGBA")
    inside, alpha = np.array(before), np.array(before)
    inside[MASK] = 255
    alpha[0, 0, 3] = 93
    assert outside_change(before, Image.fromarray(inside), MASK) == 0
    assert outside_change(before, Image.fromarray(alpha), MASK) == 7
    assert outside_change(before, before.convert("RGB"), MASK) == 255


def test_the_truth_has_no_seam(truth):
    assert ratio(truth, truth) == 1


def test_a_seam_drawn_by_hand_raises_the_ratio(truth):
    lighter = truth.copy()
    lighter[MASK] += 8
    assert ratio(lighter, truth) > 1.5


def test_a_line_along_the_edge_raises_the_ratio(truth):
    line = truth.copy()
    line[16, 16:48] = 20
    assert ratio(line, truth) > 2


def test_a_lost_outline_does_not_pay_for_a_seam_elsewhere():
    """The truth has a strong edge on the left and none on the right; the result the other way round."""
    truth, result = flat(120), flat(120)
    truth[16:48, :16] = 20
    result[16:48, :16] = 20
    result[16:48, 16:20] = 20  # the outline is not where it belongs
    result[16:48, 44:48] = 220  # a seam
    assert ratio(result, truth) > 1.5


def test_what_happens_away_from_the_edge_is_no_seam(truth):
    inner = truth.copy()
    inner[24:40, 24:40] = 250
    assert ratio(inner, truth) == 1


def test_delta_e_is_of_the_region_alone_and_nan_where_there_is_none():
    result = flat(120)
    result[MASK] = 250
    assert mean_delta_e(result, flat(120), ~MASK) == 0
    assert mean_delta_e(result, flat(120), MASK) > 20
    assert np.isnan(mean_delta_e(result, result, np.zeros_like(MASK)))


def sleeve(length: int, colour, skin=(240, 200, 170)) -> np.ndarray:
    """An arm across the picture, clothed from the left up to a length."""
    picture = flat((250, 250, 250))
    picture[24:40] = skin
    picture[24:40, :length] = colour
    return picture


@pytest.mark.parametrize(("new", "old"), [(20, 50), (50, 20)])
def test_an_outline_is_new_old_or_in_between(new, old):
    """Short ← long and long ← short: the truth, the new clothes in the old outline, the old clothes, half of each."""
    blue, red = (60, 100, 210), (220, 60, 60)
    truth, relapse, before = sleeve(new, blue), sleeve(old, blue), sleeve(old, red)
    differs = np.zeros((SIDE, SIDE), bool)
    differs[24:40, 20:50] = True

    def share(result):
        return outline_share(result, truth, [relapse, before], differs)

    assert share(truth) == 1
    assert share(np.roll(truth, 1, axis=1)) > 0.9  # a pixel beside it is no trace of the old
    assert share(relapse) == 0
    assert share(before) == 0
    assert 0.3 < share(sleeve(35, blue)) < 0.7


def test_an_outline_that_differs_nowhere_is_not_judged():
    assert np.isnan(outline_share(flat(9), flat(9), [flat(9)], MASK))


def test_colours_have_the_dolls_names_whatever_the_outline():
    shirt = np.tile(np.array([58, 104, 214], np.uint8), (100, 1))
    shirt[:30] = (30, 20, 50)  # ink
    assert colour_name(shirt) == "blue"
    shirt[:70] = (30, 20, 50)  # pixel art: a garment is mostly outline and fold
    assert colour_name(shirt) == "blue"
    assert colour_name(np.full((5, 3), 255, np.uint8)) == "white"
    assert colour_name(np.zeros((5, 3), np.uint8)) == "black"


def test_a_garments_colour_is_right_or_wrong_each_for_itself():
    index = np.zeros((SIDE, SIDE), np.uint8)
    index[:20], index[20:40], index[40, :5] = 1, 2, 4  # the last too small to judge
    truth, result = flat((222, 56, 62)), flat((222, 56, 62))
    result[20:40] = (70, 168, 84)
    assert colours_right(result, truth, index) == [True, False]


def test_the_mean_fill_has_one_colour_inside_and_changes_nothing_outside(truth):
    for mode in ("RGB", "RGBA"):
        before = Image.fromarray(truth).convert(mode)
        filled = filled_with_mean(before, MASK)
        assert outside_change(before, filled, MASK) == 0
        assert len(np.unique(np.asarray(filled)[MASK], axis=0)) == 1
