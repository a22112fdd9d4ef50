"""The garment's own pixels at the end of phase 2: laid where it is sure, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from minicc.data.samples import CLASSES
from minicc.models.attention_maps import attended
from minicc.models.blocks import Recording, keys_values
from minicc.outfit import phase2
from minicc.outfit.clothing import Clothes, ClothingDetector, mirrored_points
from minicc.outfit.garment import looked_at, placed
from minicc.outfit.laying import Laying, around, sampled, steps_between, worn
from minicc.outfit.phase1 import fill, prepare
from minicc.outfit.window import Window
from tests.outfit.test_compose import picture
from tests.outfit.test_narrow import red_garment

SIDE = 64
TOP = CLASSES.index("top")
ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE] + 0.5
# a picture of 64 × 64 shows the garment half as large as its own picture of 64 × 64 does, in its middle
HALF = np.stack([(COLUMNS - 32) * 2 + 32, (ROWS - 32) * 2 + 32], -1) / SIDE
SURE = np.full((SIDE, SIDE), 0.001)


def striped() -> Image.Image:
    """A garment in its own picture: stripes of 8 pixels, red and dark red."""
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[4:60, 4:60] = np.where((np.arange(56) // 8 % 2)[:, None, None] == 0, (200, 0, 0), (120, 0, 0))
    return Image.fromarray(pixels)


def drawing() -> tuple[np.ndarray, np.ndarray]:
    """What was drawn: the mean of these colours where the garment is worn, and where that is."""
    region = np.zeros((SIDE, SIDE), bool)
    region[18:46, 18:46] = True
    drawn = np.full((SIDE, SIDE, 3), 90, np.uint8)
    drawn[region] = (160, 0, 0)
    return drawn, region


def test_the_pattern_is_laid_in_its_place_and_outlines_and_all_beside_stay():
    drawn, region = drawing()
    laid = worn(drawn, placed(striped(), SIDE), HALF, SURE, region)
    assert np.array_equal(laid[~region], drawn[~region])
    assert np.array_equal(laid[18], drawn[18])  # the outermost pixels of the garment
    middles = laid[20:44, 32, 0].astype(int)  # stripes of four rows now, from row 18 on
    expected = np.where((np.arange(20, 44) - 18) // 4 % 2 == 0, 200, 120)
    inner = (np.arange(20, 44) - 18) % 4 % 3 > 0  # not the rows in which two stripes meet
    assert np.abs(middles - expected)[inner].max() < 25
    assert abs(laid[region].mean() - drawn[region].mean()) < 4


@pytest.mark.parametrize("why", ["doubt", "colour", "nothing there"])
def test_what_is_not_sure_stays_as_drawn(why):
    drawn, region = drawing()
    doubt, points = SURE.copy(), HALF.copy()
    part = (slice(None), slice(32, None))  # the right half
    if why == "doubt":
        doubt[part] = 0.1
    elif why == "colour":
        drawn[part] = np.where(region[part][..., None], np.array((0, 0, 200), np.uint8), drawn[part])
    else:
        points[part] = 0.0  # the picture's corner, where there is no garment
    laid = worn(drawn, placed(striped(), SIDE), points, doubt, region)
    assert np.array_equal(laid[:, 42:], drawn[:, 42:])
    assert (laid[24:40, 22:26] != drawn[24:40, 22:26]).any(-1).mean() > 0.9


def test_a_larger_picture_of_the_same_is_treated_alike():
    """`pixel` is the models' pixel in the character's: doubts, outlines and surroundings are measured in it."""
    drawn, region = drawing()
    doubt = SURE + 0.012 * (COLUMNS > 32)  # 0.38 pixels of the small picture
    small = worn(drawn, placed(striped(), SIDE), HALF, doubt, region)
    twice = [np.repeat(np.repeat(x, 2, 0), 2, 1) for x in (drawn, doubt, region)]
    rows, columns = np.mgrid[0 : 2 * SIDE, 0 : 2 * SIDE] + 0.5
    points = np.stack([(columns / 2 - 32) * 2 + 32, (rows / 2 - 32) * 2 + 32], -1) / SIDE
    large = worn(twice[0], placed(striped(), SIDE), points, twice[1], twice[2], pixel=2.0)
    changed = [(a != b).any(-1) for a, b in ((small, drawn), (large, twice[0]))]
    assert changed[0][:, 36:44].any()
    assert (changed[1][::2, ::2] == changed[0]).mean() > 0.97
    unscaled = worn(twice[0], placed(striped(), SIDE), points, twice[1], twice[2])
    assert not (unscaled != twice[0])[:, 72:88].any()  # there 0.38 pixels are 0.77


def test_white_around_a_garment_never_comes_into_its_colours():
    one = placed(red_garment(), SIDE)
    rows, columns = np.nonzero(one.shown)
    points = np.stack([(columns + 0.5) / SIDE, (rows + 0.5) / SIDE], -1)[None]
    colours, cover = sampled(one, points)
    assert np.abs(colours - (255, 0, 0)).max() < 2
    assert cover.max() > 0.99
    assert sampled(one, np.zeros((1, 1, 2)))[1][0, 0] < 0.01


def test_means_are_of_the_pixels_named_alone():
    pixels = np.zeros((32, 32, 3))
    pixels[:, 16:] = 200
    assert np.abs(around(pixels, COLUMNS[:32, :32] > 16, 3.0)[:, 16:] - 200).max() < 1e-6
    assert 90 < around(pixels, np.ones((32, 32), bool), 3.0)[16, 15:17, 0].mean() < 110


def test_a_pixel_covers_the_area_that_an_affine_map_gives_it():
    matrix = np.array([[2.0, 0.5], [-0.3, 1.5]])
    points = np.stack([COLUMNS, ROWS], -1) @ matrix.T
    assert steps_between(points) == pytest.approx(abs(np.linalg.det(matrix)) ** 0.5)


def laying(sd, control, character, mask, garment, detector) -> Laying:
    ready = [prepare(sd, character, mask)]
    one = placed(garment, sd.side)
    seen = looked_at(sd, control, torch.zeros(1, 3, sd.side, sd.side), ready[0].hint)
    return Laying(sd, control, detector, ready, None, ready[0].hint, seen, [one], [["top"]])


class Knows(ClothingDetector):
    """Takes everything in the middle for a top, whose points it knows."""

    def __init__(self, points: np.ndarray | None):
        super().__init__([1], points=0 if points is None else 8)
        self.told = points

    def find(self, sd: object, image: Image.Image) -> Clothes:
        index = np.zeros(image.size[::-1], int)
        index[18:46, 18:46] = TOP
        p = np.zeros((len(CLASSES), *index.shape), np.float32)
        np.put_along_axis(p, index[None], 1, 0)
        points = None if self.told is None else np.concatenate([self.told.transpose(2, 0, 1), SURE[None]])
        return Clothes(p, np.zeros(index.shape, np.float32), points)


MIDDLE = np.zeros((SIDE, SIDE), bool)
MIDDLE[10:54, 10:54] = True


@pytest.mark.parametrize("turned", [False, True])
def test_attention_tells_a_garment_from_its_mirror_image(sd, control, turned):
    lay = laying(sd, control, picture((SIDE, SIDE), "RGB"), MIDDLE, striped(), Knows(HALF))
    cells = SIDE // sd.vae.stride
    looked = torch.linspace(1, 0, cells) if turned else torch.linspace(0, 1, cells)
    share = torch.ones(cells, cells)
    region = lay.detector.find(sd, picture((SIDE, SIDE), "RGB")).layer("top")
    found = lay.mirrored(lay.ready[0], HALF[..., 0], region, looked.expand(cells, cells), share)
    assert found == turned


def test_a_batch_is_laid_and_what_lies_outside_the_mask_is_the_characters(sd, control):
    character = picture((SIDE, SIDE), "RGB")
    lay = laying(sd, control, character, MIDDLE, striped(), Knows(HALF))
    drawn = torch.zeros(1, 3, SIDE, SIDE)
    drawn[:, 0] = 0.25  # (159, 0, 0)
    drawn[:, 1:] = -1
    z = torch.zeros(1, 4, SIDE // sd.vae.stride, SIDE // sd.vae.stride)
    laid = lay(drawn, z)
    assert laid.shape == drawn.shape
    assert torch.equal(laid[0][:, ~torch.from_numpy(MIDDLE)], lay.ready[0].image[0][:, ~torch.from_numpy(MIDDLE)])
    rows = laid[0, 0, 24:40, 32]
    assert rows.max() - rows.min() > 0.4  # stripes
    cut_off = replace(lay.garments[0], extent=None)
    for other in ({"kinds": [["top", "bottom"]]}, {"garments": [cut_off]}):  # an outfit; nobody knows what is missing
        assert torch.equal(replace(lay, **other)(drawn, z), drawn)
    unsure = replace(lay, detector=Knows(np.zeros_like(HALF)))  # where there is no garment
    assert torch.equal(unsure(drawn, z), drawn)


def test_phase_2_lays_one_garment_and_asks_nobody_who_does_not_know(sd, control):
    character, options = picture((SIDE, SIDE), "RGB"), {"mask": MIDDLE, "steps": 2, "seed": 3}
    told, untold, none = (
        np.asarray(phase2.generate(sd, control, character, striped(), detector=detector, **options).image)
        for detector in (Knows(HALF), Knows(None), None)
    )
    assert np.array_equal(untold, none)
    assert np.array_equal(told[~MIDDLE], np.asarray(character)[~MIDDLE])
    outfit = phase2.generate(sd, control, character, [striped(), striped()], detector=Knows(HALF), **options).image
    alone = phase2.generate(sd, control, character, [striped(), striped()], **options).image
    assert outfit.tobytes() == alone.tobytes()


@pytest.mark.parametrize("size", [(1, 40), (40, 1)])
def test_a_picture_one_pixel_wide_has_no_room_for_a_pattern(sd, control, size):
    class Top(Knows):
        def find(self, sd: object, image: Image.Image) -> Clothes:
            p = np.zeros((len(CLASSES), image.height, image.width), np.float32)
            p[TOP] = 1
            return Clothes(p, p[0] * 0, np.full((3, image.height, image.width), 0.5, np.float32))

    mask = np.ones(size[::-1], bool)
    mask[-1, -1] = False
    result = phase2.generate(sd, control, picture(size, "RGB"), striped(), mask=mask, detector=Top(HALF), steps=1)
    assert result.image.size == size


def test_attention_that_is_even_looks_at_the_middle(sd, control):
    ready = prepare(sd, picture((SIDE, SIDE), "RGB"), MIDDLE)
    seen = looked_at(sd, control, torch.zeros(1, 3, sd.side, sd.side), ready.hint)
    blind = {module: (torch.zeros_like(k), v) for module, (k, v) in seen.items()}
    recording = Recording(keys_values(control, sd.encode_text([""])) | blind)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    control(z, torch.tensor([50]), recording, ready.hint)
    points, share = attended(control, recording, blind)
    assert points.shape == (1, 64, 2)
    assert torch.allclose(points, torch.full_like(points, 0.5), atol=1e-5)
    assert (share > 0).all()
    assert (share < 1).all()


def test_points_of_mirror_images_are_mirrored_and_back():
    points = torch.rand(2, 3, 8, 8)
    there = mirrored_points(points)
    assert torch.allclose(there[:, 0], 1 - points[:, 0].flip(-1))
    assert torch.equal(there[:, 1:], points[:, 1:].flip(-1))
    assert torch.allclose(mirrored_points(there), points)


def test_a_windows_map_holds_the_means_of_what_it_shrinks():
    values = np.arange(16 * 16, dtype=np.float32).reshape(16, 16)
    window = Window((4, 0, 12, 8), (4, 4), (8, 8), (2, 2))
    taken = window.take_map(values)
    assert taken.shape == (1, 1, 8, 8)
    assert taken[0, 0, 2, 2] == values[:2, 4:6].mean()
    assert taken[0, 0, 7, 7] == taken[0, 0, 5, 5]  # padding repeats the edge


def test_only_pictures_on_which_something_is_laid_go_through_the_vae_again(sd):
    image, mask = torch.zeros(1, 3, SIDE, SIDE), torch.ones(1, 1, SIDE, SIDE)
    drawn = fill(sd, image, mask, [""], [1, 2], steps=1, closed=False)

    def lay(picture: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([picture[:1], picture[1:] * 0.5])

    first, second = fill(sd, image, mask, [""], [1, 2], steps=1, closed=False, lay=lay)
    assert torch.equal(first, drawn[0])
    again = sd.decode_latents(sd.encode_image(drawn[1:] * 0.5))
    assert torch.allclose(second, again[0], atol=1e-5)
    untouched = fill(sd, image, mask, [""], [1, 2], steps=1, closed=False, lay=lambda picture, z: picture)
    assert torch.equal(untouched, drawn)
