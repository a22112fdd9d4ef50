"""Windows: what of a picture the models look at, and that the way back changes nothing outside the mask."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minicc.data import dolls
from minicc.data.samples import CLASSES
from minicc.data.tensors import to_tensor
from minicc.outfit import phase1
from minicc.outfit.clothing import ClothingDetector
from minicc.outfit.window import Window, figure, figure_window, neighbourhood, window
from minicc.pipeline import StableDiffusion
from tests.outfit.test_compose import picture, square

sizes = st.tuples(st.integers(1, 70), st.integers(1, 70))


def assert_only_the_mask_can_change(place: Window, character: Image.Image, mask: np.ndarray, seed: int) -> None:
    result = place.put(character, picture(place.padded, "RGB", seed + 1), mask)
    before, after = np.asarray(character), np.asarray(result)
    assert result.mode == character.mode
    assert before.shape == after.shape
    assert np.array_equal(before[~mask], after[~mask])
    assert place.take(character).shape[-2:] == place.take_mask(mask).shape[-2:] == place.padded[::-1]
    assert place.padded[0] % 8 == place.padded[1] % 8 == 0


@settings(deadline=None, max_examples=60)
@given(sizes, st.sampled_from(["RGB", "RGBA"]), st.integers(0, 10**6), st.sampled_from([16, 24, 40, 64]))
def test_outside_the_mask_every_value_is_bit_identical_whatever_the_size(size, mode, seed, max_side):
    random = np.random.default_rng(seed)
    mask = random.random((size[1], size[0])) < 0.3
    mask[random.integers(size[1]), random.integers(size[0])] = True
    character = picture(size, mode, seed)
    assert_only_the_mask_can_change(window(mask, 8, margin=8, max_side=max_side), character, mask, seed)
    assert_only_the_mask_can_change(figure_window(character, mask, max_side), character, mask, seed)


def test_a_masked_pixel_stays_masked_when_the_window_is_scaled_down():
    mask = np.zeros((400, 400), bool)
    mask[100, 100] = mask[301, 299] = True
    scaled = window(mask, 8, margin=10, max_side=64).take_mask(mask)
    assert scaled.sum() >= 2
    assert scaled.shape[-1] <= 64


def test_a_large_picture_is_worked_on_at_full_resolution_around_the_mask():
    mask = square((2000, 1500), (900, 700, 950, 760))
    place = window(mask, 8, margin=32, max_side=192)
    assert place.box == (868, 668, 982, 792)
    assert place.size == (114, 124)
    assert place.padded == (120, 128)


def test_the_neighbourhood_ends_at_the_picture():
    assert neighbourhood(square((50, 40), (0, 30, 10, 40)), margin=20) == (0, 10, 30, 40)


def on_ground(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """Noise in a box of a grey sheet."""
    sheet = Image.new("RGB", size, (120, 120, 120))
    sheet.paste(picture((box[2] - box[0], box[3] - box[1])), box[:2])
    return sheet


def test_a_picture_of_the_models_own_size_is_seen_as_it_is():
    doll = dolls.draw(3, size=64).image
    place = figure_window(doll, np.ones((64, 64), bool), 64)
    assert torch.equal(place.take(doll), to_tensor(doll))
    assert not place.shrinks


def test_a_tall_picture_stands_in_the_middle_of_a_square():
    tall = on_ground((100, 400), (10, 20, 90, 390))
    place = figure_window(tall, square((100, 400), (30, 100, 60, 200)), 128)
    assert (place.box, place.size, place.padded, place.corner) == ((0, 0, 100, 400), (32, 128), (128, 128), (48, 0))
    assert place.take_mask(np.ones((400, 100), bool))[0, 0].sum(0).tolist() == [0] * 48 + [128] * 32 + [0] * 48
    assert torch.equal(place.unpad(place.take(tall)), place.take(tall)[..., 48:80])


def test_a_small_figure_is_seen_without_the_ground_around_it():
    sheet = on_ground((600, 300), (200, 100, 260, 180))
    place = figure_window(sheet, square((600, 300), (210, 110, 220, 120)), 128)
    assert place.box == (195, 95, 265, 185)
    assert place.size == (100, 128)
    assert figure(sheet).sum() >= 0.95 * 60 * 80


@pytest.mark.parametrize("sheet", [picture((600, 300)), on_ground((600, 300), (100, 50, 350, 280))])
def test_before_a_busy_ground_or_where_the_figure_is_large_the_whole_picture_is_seen(sheet):
    assert figure_window(sheet, square((600, 300), (210, 110, 220, 120)), 128).box == (0, 0, 600, 300)


def test_a_small_picture_is_enlarged_and_an_empty_one_is_no_trouble():
    place = figure_window(picture((32, 32)), np.ones((32, 32), bool), 64)
    assert (place.size, place.shrinks) == ((64, 64), False)
    empty = Image.new("RGB", (300, 200), "white")
    assert figure_window(empty, np.zeros((200, 300), bool), 64).box == (0, 0, 300, 200)


def test_only_a_small_model_sees_whole_figures_and_an_asked_for_side_goes_before(sd, monkeypatch):
    character, mask = picture((1000, 900)), square((1000, 900), (500, 500, 520, 530))
    assert phase1.prepare(sd, character, mask).place.box != (0, 0, 1000, 900)
    monkeypatch.setattr(StableDiffusion, "knows_one_size", True)
    with pytest.warns(UserWarning, match="scaled up"):
        assert phase1.prepare(sd, character, mask).place.box == (0, 0, 1000, 900)
    assert phase1.prepare(sd, character, mask, max_side=200).place.box != (0, 0, 1000, 900)


def test_around_a_small_figure_a_detector_finds_nothing(sd, monkeypatch):
    monkeypatch.setattr(StableDiffusion, "knows_one_size", True)
    certain = torch.eye(len(CLASSES))[CLASSES.index("top")].view(1, -1, 1, 1)
    monkeypatch.setattr(ClothingDetector, "probabilities", lambda self, look, x: certain.expand(-1, -1, *x.shape[-2:]))
    found = ClothingDetector([4]).find(sd, on_ground((600, 300), (200, 100, 260, 180)))
    top = found.index == CLASSES.index("top")
    assert neighbourhood(top, 0) == (195, 95, 265, 185)
    assert top.sum() == 70 * 90
    assert found.uncertainty.max() == 0
