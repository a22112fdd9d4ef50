"""Every kind of picture that people have opens, or says in one sentence what is wrong with it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicc.data.pictures import MAX_SIDE, open_mask, open_picture
from minicc.errors import Error, PictureError


def ramp(height: int = 12, width: int = 20) -> np.ndarray:
    """(H, W, 3) uint8, every pixel its own colour."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 20, x * 12, np.full_like(x, 90)], -1).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def colour(image: Image.Image, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    return image.getpixel(at)  # type: ignore[return-value]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1"])
def test_a_plain_picture_opens_without_a_note(tmp_path: Path, mode: str):
    image = Image.fromarray(ramp()).convert(mode)
    opened = open_picture(saved(tmp_path / "p.png", image))
    assert opened.mode == ("RGBA" if mode.endswith("A") else "RGB")
    assert opened.info["notes"] == []
    assert np.array_equal(np.asarray(opened), np.asarray(image.convert(opened.mode)))


def test_cmyk_becomes_rgb_with_a_note(tmp_path: Path):
    path = saved(tmp_path / "p.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    opened = open_picture(path)
    assert opened.mode == "RGB"
    assert colour(opened)[0] > 200
    assert max(colour(opened)[1:]) < 60
    assert "CMYK" in opened.info["notes"][0]


def test_a_palette_becomes_rgb_and_its_transparency_alpha(tmp_path: Path):
    image = Image.fromarray(ramp()).quantize(8)
    plain = open_picture(saved(tmp_path / "p.png", image))
    clear = open_picture(saved(tmp_path / "t.png", image, transparency=image.getpixel((0, 0))))
    assert (plain.mode, plain.info["notes"]) == ("RGB", ["palette colours, converted to RGB"])
    assert (clear.mode, clear.info["notes"]) == ("RGBA", ["palette colours, converted to RGB with transparency"])
    assert colour(clear)[3] == 0
    assert colour(clear, (19, 11))[3] == 255


def test_16_bit_grey_keeps_its_whole_range(tmp_path: Path):
    values = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    opened = open_picture(saved(tmp_path / "p.png", Image.fromarray(values)))
    grey = np.asarray(opened)[..., 0]
    assert "16-bit" in opened.info["notes"][0]
    assert np.abs(grey - values / 257).max() <= 0.5


def test_16_bit_colour_is_named_although_pillow_reads_it_as_8_bit(tmp_path: Path):
    path = tmp_path / "p.png"
    path.write_bytes(png_of_16_bit_red(4, 3))
    opened = open_picture(path)
    assert (opened.mode, colour(opened)) == ("RGB", (255, 0, 0))
    assert "16-bit" in opened.info["notes"][0]


def png_of_16_bit_red(width: int, height: int) -> bytes:
    """Pillow cannot write 16-bit RGB: signature, IHDR (depth 16, colour type 2), one IDAT, IEND."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xff\xff\0\0\0\0" * width) * height
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_the_first_frame_of_an_animation_is_used_and_said(tmp_path: Path, suffix: str):
    red, blue = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    path = saved(tmp_path / f"p.{suffix}", red, save_all=True, append_images=[blue])
    opened = open_picture(path)
    assert colour(opened)[0] > 240
    assert colour(opened)[2] < 15
    assert "animated, 2 frames" in opened.info["notes"][0]


def test_a_camera_s_rotation_is_applied(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is the picture's right side
    path = saved(tmp_path / "p.jpg", Image.new("RGB", (20, 12)), exif=exif)
    opened = open_picture(path)
    assert opened.size == (12, 20)
    assert "upright" in opened.info["notes"][0]


def test_a_cut_off_file_says_copy_it_again(tmp_path: Path):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for suffix in ("png", "jpg", "webp", "gif", "tiff", "bmp"):
        whole = saved(tmp_path / f"p.{suffix}", noise).read_bytes()
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(PictureError, match=rf"cut.{suffix}.*(copy it again|damaged)"):
            open_picture(cut)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"hello, I am text", "not a picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),  # would run Ghostscript
    ],
)
def test_what_is_no_picture_is_told_apart(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "p.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=words) as caught:
        open_picture(path)
    assert isinstance(caught.value, Error)
    assert "p.png" in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path):
    with pytest.raises(PictureError, match="no such file"):
        open_picture(tmp_path / "nowhere.png")
    with pytest.raises(PictureError, match="a folder"):
        open_mask(tmp_path)


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (9000, 9000), (16_000, 16_000)])
def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]):
    path = saved(tmp_path / "p.png", Image.new("1", size))
    with pytest.raises(
        PictureError, match=f"huge, ({size[0]}×{size[1]}|{size[0] * size[1] // 10**6} million pixels); up to"
    ):
        open_picture(path)


def test_any_damage_to_any_byte_is_an_error_of_ours_or_a_picture(tmp_path: Path):
    """300 files with a few bytes changed: no other exception ever comes out."""
    rng = np.random.default_rng(0)
    path = tmp_path / "p"
    outcomes = set()
    for suffix in ("png", "jpeg", "gif", "webp", "tiff", "bmp"):
        clean = bytearray(saved(path, Image.fromarray(ramp()), format=suffix).read_bytes())
        for _ in range(50):
            damaged = bytearray(clean)
            for place in rng.integers(0, len(clean), 4):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                outcomes.add(open_picture(path).mode)
            except PictureError:
                outcomes.add("refused")
    assert {"RGB", "refused"} <= outcomes


INDEX = np.array([[0, 1, 2], [3, 4, 5]], dtype=np.uint8)


def test_an_index_mask_keeps_its_numbers(tmp_path: Path):
    mask = Image.fromarray(INDEX)
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0, 255, 0, 255])
    opened = open_mask(saved(tmp_path / "m.png", mask))
    assert (opened.mode, opened.info["notes"]) == ("P", [])
    assert np.array_equal(np.asarray(opened), INDEX)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_values_up_to_15_are_an_index_mask(tmp_path: Path, dtype: type):
    opened = open_mask(saved(tmp_path / "m.png", Image.fromarray(INDEX.astype(dtype))))
    assert opened.mode == "P"
    assert np.array_equal(np.asarray(opened), INDEX)
    assert any("index mask" in note for note in opened.info["notes"])


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "I;16"])
def test_black_and_white_stays_black_and_white_in_any_mode(tmp_path: Path, mode: str):
    truth = np.zeros((6, 6), bool)
    truth[2:4, 1:5] = True
    if mode == "I;16":
        mask = Image.fromarray(truth.astype(np.uint16) * 65535)
    else:
        mask = Image.fromarray(truth.astype(np.uint8) * 255).convert(mode)
    opened = open_mask(saved(tmp_path / "m.png", mask))
    painted = np.asarray(opened) > (0 if opened.mode == "P" else 127)
    assert np.array_equal(painted, truth)


def test_a_palette_that_begins_with_white_is_not_taken_for_classes(tmp_path: Path):
    """Index 0 is white there: read as numbers, the mask would be inverted."""
    mask = Image.fromarray(np.array([[0, 1], [1, 1]], dtype=np.uint8))
    mask.putpalette([255, 255, 255, 0, 0, 0])
    opened = open_mask(saved(tmp_path / "m.png", mask))
    assert opened.mode == "L"
    assert np.asarray(opened).tolist() == [[255, 0], [0, 0]]


def test_a_mask_on_a_transparent_sheet_keeps_its_alpha(tmp_path: Path):
    sheet = Image.new("RGBA", (5, 5), (255, 0, 0, 0))
    sheet.putpixel((2, 2), (255, 0, 0, 255))
    opened = open_mask(saved(tmp_path / "m.png", sheet))
    assert opened.mode == "RGBA"
    assert np.asarray(opened)[..., 3].sum() == 255


def test_classes_in_colours_on_white_are_classes(tmp_path: Path):
    mask = Image.fromarray(INDEX)
    mask.putpalette([255, 255, 255, 255, 0, 0, 0, 255, 0, 255, 255, 0, 255, 0, 255, 0, 255, 255])
    opened = open_mask(saved(tmp_path / "m.png", mask))
    assert opened.mode == "P"
    assert np.array_equal(np.asarray(opened), INDEX)


def test_greys_that_a_program_saved_as_a_palette_in_an_order_of_its_own_are_greys(tmp_path: Path):
    greys = np.array([[200, 0, 120], [255, 60, 0]], dtype=np.uint8)
    order = [120, 255, 0, 200, 60]
    mask = Image.fromarray(np.vectorize(order.index)(greys).astype(np.uint8))
    mask.putpalette([value for grey in order for value in (grey, grey, grey)])
    assert np.array_equal(np.asarray(open_mask(saved(tmp_path / "m.png", mask))), greys)


def test_a_picture_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch):
    def closed(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = saved(tmp_path / "a.png", Image.new("RGB", (4, 4)))
    monkeypatch.setattr(Image, "open", closed)
    with pytest.raises(PictureError, match=r"a\.png: no permission to read it"):
        open_picture(path)
