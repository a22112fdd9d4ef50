"""Pixel art is told from other drawings, and what is drawn into it has its squares."""

import numpy as np
import pytest
from PIL import Image

from minicc.data.dolls import draw
from minicc.data.pixel_art import in_squares, square_side


def sprite(side: int, size: tuple[int, int] = (24, 20), mode: str = "RGB") -> Image.Image:
    """Noise in squares."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
    return Image.fromarray(pixels, mode).resize((size[0] * side, size[1] * side), Image.Resampling.NEAREST)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("side", [1, 2, 3, 8])
def test_the_side_of_the_squares_is_found(side, mode):
    assert square_side(sprite(side, mode=mode)) == side


def test_other_drawings_are_no_pixel_art():
    assert square_side(draw(3).image) == 1
    assert square_side(sprite(2).resize((60, 50), Image.Resampling.BICUBIC)) == 1
    assert square_side(Image.new("RGB", (64, 64), "white")) == 1
    plain = Image.new("RGB", (64, 64), "white")
    plain.paste("#336699", (8, 16, 32, 48))  # four lines on a grid prove nothing
    assert square_side(plain) == 1


def test_one_pixel_off_the_grid_is_enough():
    art = sprite(2)
    art.putpixel((5, 7), (1, 2, 3))
    assert square_side(art) == 1


@pytest.mark.parametrize("at", [(31, 8), (40, 511), (9, 512), (2, 700)])
def test_a_tall_picture_is_looked_at_to_its_end(at):
    art = sprite(2, (24, 400))
    assert square_side(art) == 2
    art.putpixel(at, (1, 2, 3))
    assert square_side(art) == 1


def test_squares_have_the_mean_of_their_pixels_also_where_the_edge_cuts_them():
    picture = sprite(1, (7, 5))
    result = np.asarray(in_squares(picture, 2)).astype(float)
    pixels = np.asarray(picture).astype(float)
    assert result.shape == pixels.shape
    assert np.allclose(result[2:4, 2:4], pixels[2:4, 2:4].mean((0, 1)), atol=0.5)
    assert np.allclose(result[2:4, 6], pixels[2:4, 6].mean(0), atol=0.5)
    assert np.array_equal(np.asarray(in_squares(picture, 1)), np.asarray(picture))


def test_pixel_art_itself_is_what_its_squares_are():
    art = sprite(4)
    assert np.array_equal(np.asarray(in_squares(art, 4)), np.asarray(art))
