"""How well points are told: true ones are told without error, and a stretched box is worse."""

import numpy as np
import pytest
from PIL import Image

from minicc.data import dolls
from minicc.data.dolls.wardrobe import CLASSES, PATTERNED
from minicc.evaluation.points import points_told, stretched
from minicc.outfit.clothing import Clothes, ClothingDetector
from minicc.outfit.extent import Extent
from minicc.outfit.garment import placed

DOLLS = [dolls.draw(seed, split="test") for seed in (3, 4)]


class Tells(ClothingDetector):
    """Tells the dolls' true points, moved to the right by some pixels of the doll's picture, as surely as is asked."""

    def __init__(self, off: float, doubt: float):
        super().__init__([1], points=4)
        self.off, self.doubt, self.turn = off, doubt, 0

    def find(self, sd: object, image: Image.Image) -> Clothes:
        doll = DOLLS[self.turn]
        self.turn += 1
        points = np.full((3, doll.size, doll.size), self.doubt, np.float32)
        for slot in (slot for slot in doll.slots if slot in PATTERNED):
            extent = placed(doll.flat(slot), doll.size).extent
            true = extent.parts(doll.correspondence(slot))
            worn = doll.index == CLASSES[slot]
            step = np.nanmedian(np.abs(np.gradient(true[..., 0], axis=1)))
            points[0][worn], points[1][worn] = true[worn][:, 0] + self.off * step, true[worn][:, 1]
        return Clothes(np.zeros((8, doll.size, doll.size)), np.zeros((doll.size, doll.size)), points)


def test_true_points_have_no_error_and_moved_ones_the_way_they_were_moved():
    exact = points_told(None, Tells(0, 1e-6), DOLLS)
    assert exact["error"] == pytest.approx(0, abs=1e-3)
    assert exact["within_one"] == exact["sure"] == exact["sure_within_one"] == 1
    moved = points_told(None, Tells(2, 1.0), DOLLS)
    assert 1.5 < moved["error"] < 2.5
    assert moved["sure"] == 0
    assert np.isnan(moved["sure_within_one"])
    assert moved["box"] == exact["box"] > 1


def test_a_detector_that_has_not_learned_points_has_no_figures():
    assert points_told(None, ClothingDetector([1]), DOLLS) == {}


def test_a_box_is_stretched_corner_to_corner():
    worn = np.zeros((8, 8), bool)
    worn[2:6, 1:5] = True
    points = stretched(worn, Extent(0, 4, 16, 12))
    assert points[2, 1] == pytest.approx((2 / 16, 5 / 16))
    assert points[5, 4] == pytest.approx((14 / 16, 11 / 16))
