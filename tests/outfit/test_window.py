"""Windows: what of a picture the models look at, and that the way back changes nothing outside the mask."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minicc.data import dolls
from minicc.data.masks import extent, neighbourhood
from minicc.data.pixel_art import square_side
from minicc.data.samples import CLASSES
from minicc.data.tensors import to_image, to_tensor
from minicc.outfit import phase1
from minicc.outfit.clothing import ClothingDetector
from minicc.outfit.compose import blank, seamless
from minicc.outfit.window import Window, figure_window, whole, window
from minicc.pipeline import StableDiffusion
from minicc.small import small_stable_diffusion
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


@pytest.mark.parametrize(
    ("size", "inner", "padded"), [((30, 20), (64, 43), (64, 48)), ((300, 100), (64, 21), (64, 24))]
)
def test_a_whole_picture_is_scaled_to_the_side_up_or_down(size, inner, padded):
    place = whole(size, 64, 8)
    assert (place.box, place.size, place.padded) == ((0, 0, *size), inner, padded)


@settings(deadline=None, max_examples=60)
@given(sizes, st.sampled_from(["RGB", "RGBA"]), st.integers(0, 10**6), st.sampled_from([16, 24, 40, 64]))
def test_outside_the_mask_every_value_is_bit_identical_whatever_the_size(size, mode, seed, max_side):
    random = np.random.default_rng(seed)
    mask = random.random((size[1], size[0])) < 0.3
    mask[random.integers(size[1]), random.integers(size[0])] = True
    character = picture(size, mode, seed)
    assert_only_the_mask_can_change(window(mask, 8, margin=8, max_side=max_side), character, mask, seed)
    assert_only_the_mask_can_change(figure_window(character, max_side, mask), character, mask, seed)


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


def test_a_picture_that_its_figure_fills_is_seen_as_it_is():
    doll = dolls.draw(3, size=64, background="none").image
    place = figure_window(doll, 64)
    assert torch.equal(place.take(doll), to_tensor(doll))
    assert not place.shrinks


@pytest.mark.parametrize(("height", "whole"), [(30, False), (48, True), (53, True)])
def test_pixel_art_that_is_large_enough_keeps_its_pixels_whole(height, whole):
    sprite = on_ground((64, 64), (20, 5, 45, 5 + height))
    art = sprite.resize((128, 128), Image.Resampling.NEAREST)
    place = figure_window(art, 128)
    assert (place.box == (0, 0, 128, 128)) is whole
    assert torch.equal(place.take(art), to_tensor(art)) is whole
    smooth = sprite.resize((128, 128), Image.Resampling.BICUBIC)
    assert figure_window(smooth, 128).box != (0, 0, 128, 128)
    assert figure_window(art.resize((512, 512), Image.Resampling.NEAREST), 128).box != (0, 0, 512, 512)


@pytest.mark.parametrize(("size", "side"), [(128, 2), (384, 6)])
def test_what_is_drawn_into_pixel_art_has_its_squares_and_the_rest_stays(size, side):
    art = on_ground((64, 64), (20, 5, 45, 58)).resize((size, size), Image.Resampling.NEAREST)
    mask = square((size, size), (size // 4, size // 4, size // 2, size // 2))
    result = figure_window(art, 128, mask).put(art, picture((128, 128)), mask)
    assert square_side(result) == side
    assert np.array_equal(np.asarray(result)[~mask], np.asarray(art)[~mask])
    assert (np.asarray(result)[mask] != np.asarray(art)[mask]).any()


def test_a_tall_picture_stands_in_the_middle_of_a_square():
    tall = on_ground((100, 450), (10, 20, 90, 390))
    place = figure_window(tall, 128)
    assert (place.box, place.size, place.padded, place.corner) == ((1, 11, 99, 399), (32, 128), (128, 128), (48, 0))
    taken = place.take(tall)
    assert torch.equal(taken[..., :48], taken[..., 48:49].expand(-1, -1, -1, 48))
    back = place.spread(taken, tall.size)
    assert back.shape == (3, 450, 100)
    assert (back - to_tensor(tall)[0])[:, 11:399, 1:99].mean((1, 2)).abs().max() < 0.02
    assert (back[:, :11] == 0).all()


def test_beside_a_masked_edge_the_padding_is_masked_too():
    mask = square((100, 400), (0, 100, 50, 200))
    taken = figure_window(picture((100, 400)), 128, mask).take_mask(mask)
    assert taken[0, 0, 40].tolist() == [1] * (48 + 16) + [0] * (16 + 48)


@pytest.mark.parametrize("size", [(64, 64), (40, 90), (32, 24), (33, 77)])
def test_nothing_of_what_the_mask_hides_is_seen_at_any_scale(size):
    mask = square(size, (0, size[1] // 3, size[0] // 2 + 1, size[1]))
    one = np.asarray(picture(size))
    other = Image.fromarray(np.where(mask[..., None], 255 - one, one))
    for place in (figure_window(picture(size), 48, mask), window(mask, 8, margin=4, max_side=32)):
        m = place.take_mask(mask)
        assert torch.equal(*(blank(place.take(image), m) for image in (picture(size), other)))


def test_a_seam_that_is_closed_stays_closed_when_the_window_is_enlarged():
    flat = Image.new("RGB", (256, 256), (90, 160, 40))
    mask = square((256, 256), (64, 64, 192, 192))
    place = figure_window(flat, 64, mask)
    known, m = place.take(flat), place.take_mask(mask)
    result = np.asarray(place.put(flat, to_image(seamless(known + 0.2, known, m)), mask)).astype(int)
    rim = mask & ~square((256, 256), (66, 66, 190, 190))
    assert abs(result - np.asarray(flat))[rim].mean() < 4  # of 255; the decoder is off by 25


def test_a_small_figure_is_seen_without_the_ground_around_it():
    sheet = on_ground((600, 300), (200, 100, 260, 180))
    place = figure_window(sheet, 128, square((600, 300), (210, 110, 220, 120)))
    assert place.box == (198, 98, 262, 182)
    assert place.size == (98, 128)
    assert place.shrinks is False


def test_white_clothes_on_nothing_belong_to_the_figure():
    sheet = Image.new("RGBA", (600, 600), (0, 0, 0, 0))
    sheet.paste("white", (200, 200, 320, 360))
    sheet.paste("brown", (240, 200, 260, 220))
    assert figure_window(sheet, 128).box == (196, 196, 324, 364)


def test_before_a_busy_ground_the_whole_picture_is_seen():
    assert figure_window(picture((600, 300)), 128, square((600, 300), (210, 110, 220, 120))).box == (0, 0, 600, 300)


def test_a_figure_is_shown_as_large_as_dolls_are_whatever_surrounds_it():
    doll, small = dolls.draw(5, background="none").image, dolls.draw(5, size=96, background="none").image
    for one, sheet, at in (
        (doll, (128, 128), (0, 0)), (doll, (200, 180), (50, 20)), (doll, (500, 700), (300, 11)),
        (small, (128, 128), (20, 30)),  # as large as what the model knows, but for the figure
    ):  # fmt: skip
        wide = Image.new("RGBA", sheet, (0, 0, 0, 0))
        wide.paste(one, at)
        shown = (figure_window(wide, 128).take(wide) < 0.95).any(1)[0].numpy()
        width, height = extent(shown)
        assert 119 <= max(width, height) <= 128


def test_what_a_mask_adds_to_a_figure_is_in_the_window():
    sheet = on_ground((600, 300), (100, 50, 350, 280))
    assert figure_window(sheet, 128).box == (94, 44, 356, 286)
    assert figure_window(sheet, 128, square((600, 300), (20, 110, 120, 120))).box == (12, 42, 358, 288)


def test_a_small_picture_is_enlarged_and_an_empty_one_is_no_trouble():
    place = figure_window(picture((32, 32)), 64)
    assert (place.size, place.shrinks) == ((64, 64), False)
    assert figure_window(Image.new("RGB", (300, 200), "white"), 64).box == (0, 0, 300, 200)


def test_only_a_small_model_sees_whole_figures_and_an_asked_for_side_goes_before(sd, monkeypatch):
    character, mask = picture((1000, 900)), square((1000, 900), (500, 500, 520, 530))
    assert phase1.prepare(sd, character, mask).place.box != (0, 0, 1000, 900)
    monkeypatch.setattr(StableDiffusion, "knows_one_size", True)
    with pytest.warns(UserWarning, match="scaled up"):
        assert phase1.prepare(sd, character, mask).place.box == (0, 0, 1000, 900)
    assert phase1.prepare(sd, character, mask, max_side=200).place.box != (0, 0, 1000, 900)


@pytest.mark.filterwarnings("ignore:.*scaled up", "ignore:the mask")
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 64), (97, 250), (300, 210)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_by_a_small_model_only_the_mask_changes_at_any_size(sd, control, size, mode, monkeypatch):
    monkeypatch.setattr(StableDiffusion, "knows_one_size", True)
    mask = square(size, (size[0] // 4, size[1] // 4, size[0] // 2 + 1, size[1] // 2 + 1))
    ready = [phase1.prepare(sd, picture(shape, mode), m) for shape, m in ((size, mask), ((9, 9), mask_of(9)))]
    for r, made in zip(ready, phase1.batch(sd, control, ready, ["a hat"] * 2, [0, 1], steps=1), strict=True):
        before, after = np.asarray(r.character), np.asarray(made.image)
        assert np.array_equal(before[~r.declared], after[~r.declared])


def mask_of(side: int) -> np.ndarray:
    return square((side, side), (2, 2, side - 2, side - 2))


def test_around_a_small_figure_a_detector_finds_nothing(sd, monkeypatch):
    monkeypatch.setattr(StableDiffusion, "knows_one_size", True)
    certain = torch.eye(len(CLASSES))[CLASSES.index("top")].view(1, -1, 1, 1)
    all_top = lambda self, maps: certain.expand(-1, -1, *maps[0].shape[-2:])  # noqa: E731
    monkeypatch.setattr(ClothingDetector, "classes_in", all_top)
    found = ClothingDetector([4]).find(sd, on_ground((600, 300), (200, 100, 260, 180)))
    top = found.index == CLASSES.index("top")
    assert neighbourhood(top, 0) == (198, 98, 262, 182)
    assert top.sum() == 64 * 84
    assert found.uncertainty.max() == 0


def test_a_small_masks_window_is_as_large_as_what_the_model_knows_and_a_large_masks_has_its_margin():
    sd = small_stable_diffusion()
    side = sd.side
    for mask_side, expected in ((10, side), (side, side + 2 * (side // 4))):
        mask = np.zeros((6 * side, 6 * side), bool)
        mask[2 * side : 2 * side + mask_side, 2 * side : 2 * side + mask_side] = True
        place = phase1.prepare(sd, picture((6 * side, 6 * side), "RGB"), mask).place
        assert place.size == (expected, expected)
