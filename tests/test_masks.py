"""Masks as hands paint them: over the clothes, loose in every manner, and the same for the same draws."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minicc.data.masks import KINDS, bounds, paint
from minicc.errors import PictureError


def doll(side: int = 128) -> np.ndarray:
    """(H, W) bool: a shirt with sleeves, and two legs below it."""
    y, x = np.mgrid[:side, :side] / side
    shirt = (abs(x - 0.5) < 0.15) & (abs(y - 0.45) < 0.15)
    sleeves = (abs(x - 0.5) < 0.25) & (abs(y - 0.36) < 0.05)
    legs = (abs(abs(x - 0.5) - 0.08) < 0.05) & (abs(y - 0.7) < 0.15)
    return shirt | sleeves | legs


def many(kind: str, n: int = 40) -> list[np.ndarray]:
    return [paint(doll(), np.random.default_rng(seed), kind) for seed in range(n)]


def covered(mask: np.ndarray, layer: np.ndarray) -> float:
    return float((mask & layer).sum() / layer.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_draws_paint_the_same_mask_and_others_another(kind: str):
    first, again, other = (paint(doll(), np.random.default_rng(seed), kind) for seed in (1, 1, 2))
    assert first.shape == (128, 128)
    assert first.dtype == bool
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (kind == "exact")


@pytest.mark.parametrize(
    ("kind", "least"), [("strokes", 0.9), ("loose", 1.0), ("tight", 0.85), ("box", 0.9), ("exact", 1)]
)
def test_all_kinds_but_part_cover_the_clothes(kind: str, least: float):
    assert min(covered(mask, doll()) for mask in many(kind)) >= least


def test_a_part_leaves_a_part_of_the_clothes_bare():
    shares = [covered(mask, doll()) for mask in many("part")]
    assert max(shares) < 1
    assert min(shares) > 0.2
    assert np.ptp(shares) > 0.3


def test_a_loose_outline_is_wider_than_a_tight_one_which_is_near_the_exact_layer():
    area = {kind: np.median([mask.sum() for mask in many(kind)]) / doll().sum() for kind in ("loose", "tight")}
    assert 1.2 < area["loose"] < 2.5
    assert 0.95 < area["tight"] < 1.15


def test_a_loose_outline_s_distance_is_uneven_as_a_hand_s():
    """A dilation keeps one distance; here the right edge of the shirt is reached at many."""
    mask = many("loose", 1)[0]
    rows = range(60, 72)
    reach = [np.flatnonzero(mask[row]).max() - np.flatnonzero(doll()[row]).max() for row in rows]
    left = [np.flatnonzero(doll()[row]).min() - np.flatnonzero(mask[row]).min() for row in rows]
    assert reach != left


def test_a_box_is_a_filled_rectangle_about_the_clothes():
    for mask in many("box"):
        left, top, right, bottom = bounds(mask)
        assert mask[top:bottom, left:right].all()


def test_strokes_spill_over_the_edge_of_the_clothes():
    spilled = [(mask & ~doll()).sum() / doll().sum() for mask in many("strokes")]
    assert min(spilled) > 0.05
    assert max(spilled) < 2


def test_masks_grow_with_the_picture():
    """The brush is measured in clothes, not in pixels."""
    for kind in ("strokes", "loose", "box"):
        shares = [
            np.mean([paint(doll(side), np.random.default_rng(s), kind).mean() for s in range(30)]) for side in (64, 256)
        ]
        assert abs(shares[0] / shares[1] - 1) < 0.15, kind


def test_kinds_are_drawn_by_their_weights():
    assert sum(weight for _, weight in KINDS.values()) == pytest.approx(1)
    exact = sum(np.array_equal(paint(doll(), np.random.default_rng(seed)), doll()) for seed in range(400))
    assert 5 <= exact <= 45  # 20 expected


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from([None, *KINDS]), st.data())
def test_any_layer_gets_a_mask_of_its_shape_that_is_not_empty(height, width, seed, kind, data):
    layer = np.random.default_rng(seed).random((height, width)) < data.draw(st.sampled_from([0.02, 0.5, 1]))
    layer[seed % height, seed % width] = True
    before = layer.copy()
    mask = paint(layer, np.random.default_rng(seed), kind)
    assert mask.shape == layer.shape
    assert mask.any()
    assert np.array_equal(layer, before)
    mask[:] = False  # the caller's own
    assert np.array_equal(layer, before)


def test_nothing_reads_or_moves_numpy_s_global_state():
    np.random.seed(1)
    first = many("strokes", 2)
    np.random.seed(2)
    state = np.random.get_state()[1].copy()
    second = many("strokes", 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(np.random.get_state()[1], state)


def test_an_empty_layer_and_an_unknown_kind_are_refused():
    with pytest.raises(PictureError, match="nothing to paint over"):
        paint(np.zeros((8, 8), bool), np.random.default_rng(0))
    with pytest.raises(PictureError, match="expected one of strokes"):
        paint(doll(), np.random.default_rng(0), "lasso")


def test_two_hundred_masks_a_second_at_128_pixels():
    start = time.process_time()
    for seed in range(200):
        paint(doll(), np.random.default_rng(seed))
    assert time.process_time() - start < 1


def test_real_characters_are_covered_too(shared):
    files = sorted((shared / "characters").glob("*/val/mask_a/*.png"))[::9]
    assert files
    for file, seed in itertools.product(files, range(3)):
        layer = np.asarray(Image.open(file)) > 0
        if layer.any():
            mask = paint(layer, np.random.default_rng(seed), "loose")
            assert covered(mask, layer) == 1
