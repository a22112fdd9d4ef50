"""Masks and pastes: outside the declared mask, nothing changes."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from minicc.data.pictures import open_mask
from minicc.errors import PictureError
from minicc.outfit.compose import (
    background,
    blank,
    grow,
    latent_mask,
    make_hint,
    paste,
    read_mask,
    seamless,
)
from minicc.outfit.detect import part_picture


def picture(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise of a mode; in RGBA also the alpha is noise."""
    channels = len(mode)
    array = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.fromarray(array, mode)


def square(size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of one rectangle: left, top, right, bottom."""
    mask = np.zeros((size[1], size[0]), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def test_inside_the_mask_every_value_is_the_generated_ones():
    mask = square((20, 30), (5, 6, 15, 25))
    character, generated = picture((20, 30)), picture((20, 30), seed=1)
    result = np.asarray(paste(character, generated, mask))
    assert np.array_equal(result[mask], np.asarray(generated)[mask])


@pytest.mark.parametrize("feather", [0, 1, 5])
def test_feather_grows_the_mask_by_at_most_so_many_pixels_and_never_shrinks_it(feather):
    mask = square((40, 40), (15, 15, 20, 22))
    grown = grow(mask, feather)
    expected = square((40, 40), (15 - feather, 15 - feather, 20 + feather, 22 + feather))
    assert np.array_equal(grown, expected)


@pytest.mark.parametrize("pixels", [2, 300])
def test_what_is_grown_is_all_within_so_many_pixels_and_none_beyond(pixels):
    mask = np.random.default_rng(0).random((30, 24)) < 0.01
    rows, columns = np.indices(mask.shape)
    near = [np.maximum(abs(rows - y), abs(columns - x)) <= pixels for y, x in np.argwhere(mask)]
    assert np.array_equal(grow(mask, pixels), np.any(near, axis=0))


def test_a_latent_cell_is_generated_if_any_of_its_pixels_is_masked():
    m = torch.zeros(1, 1, 16, 24)
    m[..., 7, 8] = 1
    assert latent_mask(m, 8)[0, 0].tolist() == [[0, 1, 0], [0, 0, 0]]


def test_the_hint_has_masked_pixels_at_minus_one_and_the_rest_in_zero_to_one(generator):
    """Trap 10: ControlNet 1.1 inpaint's convention."""
    x = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
    m = (torch.rand(2, 1, 8, 8, generator=generator) < 0.5).float()
    hint = make_hint(x, m)
    inside = m.expand_as(x) > 0
    assert (hint[inside] == -1).all()
    torch.testing.assert_close(hint[~inside], ((x + 1) / 2)[~inside])
    assert (blank(x, m)[inside] == 0).all()


def test_what_was_transparent_stays_so_and_new_clothes_become_opaque():
    """A white margin that reaches the transparent outside is background; white inside the clothes is cloth."""
    transparent = np.ones((12, 12), bool)
    transparent[4:8, 4:8] = False  # the character
    mask = square((12, 12), (2, 2, 10, 10))
    generated = np.full((12, 12, 3), 255, np.uint8)
    generated[3:9, 3:9] = 90  # new clothes, wider than the character
    generated[5:7, 5:7] = 255  # with a white patch
    found = background(transparent, generated, mask)
    assert not found[3:9, 3:9].any()
    assert found[2, 2:10].all()
    character = Image.fromarray(np.dstack([generated, np.where(transparent, 0, 255)]).astype(np.uint8), "RGBA")
    alpha = np.asarray(paste(character, Image.fromarray(generated), mask))[..., 3]
    assert (alpha[3:9, 3:9] == 255).all()
    assert (alpha[2, 2:10] == 0).all()


def test_an_opaque_picture_never_becomes_transparent():
    character = Image.new("RGBA", (16, 16), (255, 255, 255, 255))
    result = paste(character, Image.new("RGB", (16, 16), "white"), square((16, 16), (2, 2, 12, 12)))
    assert np.asarray(result)[..., 3].min() == 255


# The seam


def hole(side: int, margin: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[..., margin:-margin, margin:-margin] = 1
    return mask


def test_a_seam_is_gone_where_the_decoder_is_off_by_the_same_everywhere(generator):
    image, mask = torch.rand(1, 3, 24, 24, generator=generator) - 0.5, hole(24, 8)
    joined = seamless(image + 0.2, image, mask)
    assert (joined - image)[(mask > 0).expand_as(image)].abs().max() < 0.01
    assert torch.equal(joined[(mask == 0).expand_as(image)], image[(mask == 0).expand_as(image)])


def test_between_two_edges_the_correction_is_harmonic():
    image, mask = torch.zeros(1, 3, 4, 12), torch.zeros(1, 1, 4, 12)
    mask[..., 1:-1] = 1
    generated = torch.zeros_like(image)
    generated[..., 0], generated[..., -1] = 0.11, -0.11  # errors of −0.11 and 0.11: between them, a straight line
    line = torch.linspace(-0.11, 0.11, 12)[1:-1]
    assert torch.allclose(seamless(generated, image, mask, reach=30)[..., 1:-1], line.expand(1, 3, 4, 10), atol=1e-5)


def test_the_middle_of_a_large_mask_keeps_its_colours():
    image, mask = torch.zeros(1, 3, 96, 96), hole(96, 8)
    generated = torch.full_like(image, 0.5)
    change = (seamless(generated, image, mask) - generated)[0, 0, 48].abs()
    assert change[8] > 0.4
    assert change[8 + 3 * 8 : 96 - 8 - 3 * 8].max() < 0.005


def test_variants_of_one_character_are_joined_each_by_itself(generator):
    image, made = torch.rand(1, 3, 16, 16, generator=generator), torch.rand(3, 3, 16, 16, generator=generator)
    alone = torch.cat([seamless(one[None], image, hole(16, 4)) for one in made])
    assert torch.equal(seamless(made, image, hole(16, 4)), alone)
    assert torch.equal(seamless(made, image.expand(3, -1, -1, -1), hole(16, 4).expand(3, -1, -1, -1)), alone)


def test_with_nothing_known_or_nothing_wrong_nothing_is_joined(generator):
    image, made = (torch.rand(1, 3, 16, 16, generator=generator) for _ in range(2))
    assert torch.equal(seamless(made, image, torch.ones(1, 1, 16, 16)), made)
    right = torch.where(hole(16, 4) > 0, made, image)
    assert torch.equal(seamless(right, image, hole(16, 4)), right)


# What users paint


def test_a_mask_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(PictureError, match="mask is 512×512 but character is 512×768"):
        read_mask(Image.new("L", (512, 512), 255), (512, 768))


def test_an_empty_mask_is_refused():
    with pytest.raises(PictureError, match="the mask is empty"):
        read_mask(Image.new("L", (8, 8)), (8, 8))


def test_a_full_mask_is_used_with_a_warning():
    with pytest.warns(UserWarning, match="covers the whole picture"):
        assert read_mask(Image.new("L", (8, 8), 255), (8, 8)).all()


def test_a_mask_that_looks_inverted_is_doubted():
    inverted = Image.fromarray(~square((32, 32), (10, 10, 20, 20)) * np.uint8(255))
    with pytest.warns(UserWarning, match="is it inverted"):
        read_mask(inverted, (32, 32))


def test_a_soft_mask_is_cut_at_half_with_a_warning():
    soft = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))
    with pytest.warns(UserWarning, match="grey"):
        assert np.array_equal(read_mask(soft, (32, 32)), np.asarray(soft) >= 128)


def test_a_mask_painted_on_a_transparent_sheet_is_read_by_its_alpha():
    sheet = np.zeros((16, 16, 4), np.uint8)
    sheet[4:8, 4:8] = (0, 0, 0, 255)  # black paint
    assert np.array_equal(read_mask(Image.fromarray(sheet, "RGBA"), (16, 16)), square((16, 16), (4, 4, 8, 8)))


def test_an_index_mask_is_painted_where_it_is_not_zero():
    index = Image.fromarray(square((16, 16), (4, 4, 8, 8)).astype(np.uint8) * 3, "L").convert("P")
    index.putdata([3 if v else 0 for v in square((16, 16), (4, 4, 8, 8)).ravel()])
    assert np.array_equal(read_mask(index, (16, 16)), square((16, 16), (4, 4, 8, 8)))


def test_a_mask_of_parts_covers_clothes_and_neither_hair_nor_skin():
    index = np.arange(8, dtype=np.uint8).repeat(8).reshape(8, 8)  # CLASSES, a row each
    parts = part_picture(index)
    assert np.array_equal(read_mask(parts, (8, 8)), (index > 0) & (index < 6))
    assert np.array_equal(read_mask(part_picture(index * (index > 5)), (8, 8)), index > 5), (
        "where there is nothing else"
    )


def test_a_mask_in_memory_is_read_as_its_file(tmp_path):
    """Black and white as a palette with white first, in which the numbers are the other way round."""
    mask = Image.fromarray((~HALF).astype(np.uint8))
    mask.putpalette([255, 255, 255, 0, 0, 0])
    mask.save(tmp_path / "m.png")
    for one in (mask, Image.open(tmp_path / "m.png"), open_mask(tmp_path / "m.png")):
        assert np.array_equal(read_mask(one, (8, 8)), HALF)
    assert np.array_equal(read_mask(Image.fromarray(HALF.astype(np.uint8)), (8, 8)), HALF), "0 and 1, as an array of it"


def test_a_negative_feather_is_refused():
    with pytest.raises(PictureError, match="feather=-1"):
        read_mask(Image.new("L", (8, 8), 200), (8, 8), feather=-1)


HALF = square((8, 8), (0, 0, 8, 4))


@pytest.mark.parametrize(
    "mask",
    [
        HALF, HALF.astype(np.uint8), HALF * np.uint8(255), np.where(HALF, 255, 3), HALF * 65535, HALF * 1.0,
        np.where(HALF, 0.9, 0.1), np.where(HALF, 255.0, 3.0), np.where(HALF, 5, 0),
    ],
    ids=["bool", "0-1", "0-255", "as a JPEG", "16 bit", "float", "shares", "float 255", "classes"],
)  # fmt: skip
def test_a_mask_as_an_array_is_read_as_the_picture_of_it(mask):
    assert np.array_equal(read_mask(mask, (8, 8)), HALF)


@pytest.mark.parametrize("mask", [np.zeros((8, 8, 3), np.uint8), np.ones(8), np.full((8, 8), "x"), np.zeros((0, 8))])
def test_an_array_that_is_no_mask_is_refused(mask):
    with pytest.raises(PictureError, match=r"expected \(height, width\), booleans or grey values"):
        read_mask(mask, (8, 8))


def test_a_mask_of_16_bits_is_painted_where_it_is_half_bright():
    values = np.where(HALF, 40_000, 200).astype(np.uint16)  # 200 of 65,535 is black
    assert np.array_equal(read_mask(Image.fromarray(values), (8, 8)), HALF)


def test_a_file_of_48_bits_a_pixel_is_read_before_anything_else(tmp_path):
    values = np.where(HALF, 40_000, 200).astype(">u2")
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, 1).tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert np.array_equal(read_mask(Image.open(tmp_path / "mask.png"), (8, 8)), HALF)


def test_the_background_is_what_white_joins_to_the_transparent_outside(generator):
    """By the definition: flooded from pixel to pixel, in eight directions, until nothing is added."""
    white = torch.rand(24, 30, generator=generator).numpy() < 0.5
    generated = np.repeat(np.where(white, 255, 200)[..., None], 3, -1).astype(np.uint8)
    mask = square((30, 24), (4, 3, 28, 22))
    transparent = np.zeros((24, 30), bool)
    transparent[:, :6] = True
    outside = flood = transparent & ~mask
    while True:
        padded = np.pad(flood, 1)
        near = np.any([padded[y : y + 24, x : x + 30] for y in range(3) for x in range(3)], axis=0)
        flood, before = outside | (near & white & mask) | flood, flood
        if np.array_equal(flood, before):
            break
    found = background(transparent, generated, mask)
    assert np.array_equal(found, flood)
    assert outside.sum() < found.sum() < (outside | (white & mask)).sum()
