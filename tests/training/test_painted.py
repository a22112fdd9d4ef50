"""Masks of phase-1 training on folders: over the clothes of both outfits, where a second is known."""

import json

import numpy as np
import torch
from PIL import Image

from minicc.data.folder import PictureFolder
from minicc.data.folder import square as square_of
from minicc.data.ground import plain_ground
from minicc.data.masks import paint
from minicc.training.data import Painted
from minicc.training.draws import rng
from tests.outfit.test_compose import picture, square

SHORT, LONG = (10, 10, 22, 16), (10, 10, 22, 30)


def folder(root, size=(32, 32), mask_b: bytes | None = None):
    """One character in a short and in a long dress."""
    root.mkdir()
    for letter, box in (("a", SHORT), ("b", LONG)):
        picture(size, seed=ord(letter)).save(root / f"{letter}.png")
        Image.fromarray(square(size, box).astype(np.uint8) * 255).save(root / f"{letter}-mask.png")
    if mask_b is not None:
        (root / "b-mask.png").write_bytes(mask_b)
    row = {f"person_{x}": f"{x}.png" for x in "ab"} | {f"mask_{x}": f"{x}-mask.png" for x in "ab"}
    (root / "metadata.jsonl").write_text(json.dumps(row | {"outfit_a": "a short dress", "outfit_b": "a long dress"}))
    return PictureFolder(root, size=32)


def test_the_cover_is_both_outfits_and_the_mask_is_what_is_worn(tmp_path):
    data = folder(tmp_path / "pairs")
    short, long = data[0], data[1]
    assert np.array_equal(short["mask"][0].numpy() > 0, square((32, 32), SHORT))
    assert np.array_equal(long["mask"][0].numpy() > 0, square((32, 32), LONG))
    for sample in (short, long):
        assert np.array_equal(sample["cover"][0].numpy() > 0, square((32, 32), LONG))


def test_masks_are_painted_over_the_cover(tmp_path):
    data = Painted(folder(tmp_path / "pairs"), torch.zeros(2, 2, 4, 4, 4), torch.zeros(2, 77, 8), seed=0)
    for position in range(4):
        sample, random = data[0, position], rng(0, position, 3)
        cover = square((32, 32), LONG)
        cover = cover[:, ::-1] if random.integers(2) else cover
        assert np.array_equal(sample["mask"][0].numpy() > 0, paint(cover, random))
        assert "cover" not in sample


def test_a_second_mask_that_cannot_be_read_costs_nothing_but_itself(tmp_path):
    sample = folder(tmp_path / "pairs", mask_b=b"no picture")[0]
    assert torch.equal(sample["cover"], sample["mask"])


def test_a_cropped_photograph_keeps_cover_and_mask_in_register(tmp_path):
    root = tmp_path / "wide"
    sample = folder(root, size=(60, 32))[0]
    assert np.array_equal((sample["cover"] - sample["mask"])[0].numpy().any(1), rows(16, 30))


def rows(first: int, last: int) -> np.ndarray:
    """(32,) of 0 and 1: 1 from first to last, which is not included."""
    return np.array([int(first <= y < last) for y in range(32)])


def test_a_drawing_on_a_plain_ground_is_padded_with_its_index(tmp_path):
    """The detector learns from squares whose layer is not yes or no, but a number a class."""
    drawing = Image.new("RGB", (40, 20), (200, 220, 240))
    index = np.zeros((20, 40), np.uint8)
    index[5:9, 5:9] = 3
    image, padded = square_of(drawing, index, plain_ground(drawing))
    assert padded.shape == (40, 40)
    assert (padded == 3).sum() == 16
    assert (np.asarray(image) == (200, 220, 240)).all()
