"""Opening a picture that a person made, whatever it is: RGB or RGBA comes out, or one sentence about what is wrong.

What can be converted without a doubt is (CMYK, palette, 16 bit, a camera's rotation), with a note in
`image.info["notes"]`; what cannot be used (missing, cut off, not a picture, huge) is a PictureError.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from minicc.errors import PictureError

MAX_PIXELS = 16_384 * 4_096  # 67 million: a poster; decoded as RGBA it takes 256 MB
MAX_SIDE = 16_384  # pixels
PLAIN = ("RGB", "RGBA", "L", "LA", "1")  # modes that need no word
PALETTE = "palette colours, converted to RGB"
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
# Pictures only: Pillow also opens PostScript, by running Ghostscript, and fonts, films and weather maps.
FORMATS = ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "TGA", "PPM", "QOI", "PSD", "ICO", "JPEG2000"]


def open_picture(path: str | Path) -> Image.Image:
    """A picture file → RGB, or RGBA if anything in it can be transparent.

    `image.info["notes"]` is a list of what was converted, empty for a plain file. Raises PictureError.
    """
    with named(Path(path)):
        image, notes = decode(Path(path))
        return finish(to_rgb(image), notes)


def open_mask(path: str | Path) -> Image.Image:
    """A mask file → mode P (an index mask, its numbers kept), L, or RGBA if it is painted on a transparent sheet.

    An index mask may also come as grey numbers up to 15. Notes as for `open_picture`. Raises PictureError.
    """
    with named(Path(path)):
        return finish(*as_mask(*decode(Path(path))))


def as_mask(image: Image.Image, notes: list[str]) -> tuple[Image.Image, list[str]]:
    """A mask picture of any mode → P, L or RGBA as `open_mask` says, and the notes that remain."""
    if has_alpha(image) and not clear_is_zero(image):
        return image.convert("RGBA"), notes
    if image.mode != "P":
        return grey_or_index(image, notes)
    notes = [note for note in notes if not note.startswith(PALETTE)]  # of a mask it is expected
    return (image.convert("L") if drawn_in_greys(image) else image), notes


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside becomes one PictureError that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's words on size and on EXIF: the size is checked here
            yield
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(not_a_picture(path)) from error
    except PermissionError as error:
        raise PictureError(f"{path}: no permission to read it") from error
    except Image.DecompressionBombError as error:
        millions = int(re.findall(r"\d+", str(error))[0]) // 10**6  # Pillow's error holds the count as text alone
        limit = f"up to {MAX_PIXELS // 10**6} million"
        raise PictureError(f"{path}: huge, {millions} million pixels; {limit}, scale it first") from error
    except Exception as error:  # a damaged file makes decoders fail in any way: OSError, SyntaxError, struct.error …
        reason = f"{type(error).__name__}: {error}"
        raise PictureError(f"{path}: damaged or cut off ({reason}); expected a whole picture, copy it again") from error


def decode(path: Path) -> tuple[Image.Image, list[str]]:
    """The first frame, upright, in the file's own mode, and notes on what is unusual about the file."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise PictureError(f"{path}: {found}; expected a picture, check the path")
    Image.init()
    with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as file:
        check_size(path, file.size)
        notes = unusual(file)
        file.load()
        return ImageOps.exif_transpose(file).copy(), notes


def check_size(path: Path, size: tuple[int, int]) -> None:
    """Before anything is decoded: the header's size must be one that fits in memory."""
    width, height = size
    if width * height > MAX_PIXELS or max(size) > MAX_SIDE:
        limit = f"up to {MAX_PIXELS // 10**6} million pixels and {MAX_SIDE} a side"
        raise PictureError(f"{path}: huge, {width}×{height}; {limit}, scale it first")


def not_a_picture(path: Path) -> str:
    """Why Pillow knows no format for it, as far as can be said."""
    with path.open("rb") as file:
        start = file.read(40)
    if not start:
        return f"{path}: the file is empty; expected a picture, copy it again"
    if start.startswith(b"version https://git-lfs"):
        return f"{path}: a Git LFS pointer instead of the picture; run git lfs pull"
    return f"{path}: not a picture, or damaged at its start; expected PNG, JPEG, WebP or the like, convert it"


def unusual(file: Image.Image) -> list[str]:
    """What a reader may want to know before this file is used, in words; before it is loaded."""
    notes = []
    frames = getattr(file, "n_frames", 1)
    if frames > 1 and file.format not in ("MPO", "PSD"):  # a phone's second view; layers, already merged
        notes.append(f"animated, {frames} frames: the first is used")
    if is_wide(file):
        notes.append(f"16-bit ({file.mode}): read as 8-bit")
    elif file.mode == "P":
        notes.append(f"{PALETTE} with transparency" if "transparency" in file.info else PALETTE)
    elif file.mode not in PLAIN:
        notes.append(f"{file.mode}: converted to RGB")
    if file.getexif().get(ORIENTATION, 1) != 1:
        notes.append("turned upright as its EXIF orientation says")
    return notes


def is_wide(image: Image.Image) -> bool:
    """More than 8 bits a value: I;16, I, F; or RGB of 16 bits, which Pillow itself reads as 8, told by its raw mode."""
    return image.mode.startswith("I") or image.mode == "F" or ";16" in str(getattr(image, "tile", ""))


def to_8_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits, or floats → L. Pillow's own conversion clips at 255; here the whole range is kept.

    Integers are taken as 16-bit, 0 … 65535; floats as 0 … 1 if none is larger, else as 0 … 255.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))  # (H, W)
    white = (1 if values.max(initial=0) <= 1 else 255) if image.mode == "F" else 65535
    return Image.fromarray((values * 255 / white).round().clip(0, 255).astype(np.uint8))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode → RGB or RGBA."""
    if is_wide(image):
        image = to_8_bit(image)
    return image.convert("RGBA" if has_alpha(image) else "RGB")


def has_alpha(image: Image.Image) -> bool:
    return "transparency" in image.info or any(band in ("A", "a") for band in image.getbands())


def drawn_in_greys(image: Image.Image) -> bool:
    """A mask of greys that a program saved as a palette, in an order of its own: its indices are no classes.

    With black first and few greys they may be classes; then 0 is what stays, either way.
    """
    listed = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)  # it may end before 256
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(listed)] = listed
    used = palette[np.unique(np.asarray(image))]  # (N, 3)
    return bool((used == used[:, :1]).all() and (palette[0].max() > 0 or len(used) > 16))


def clear_is_zero(image: Image.Image) -> bool:
    """An index mask whose class 0, and no other, is transparent."""
    clear = image.info.get("transparency")
    return image.mode == "P" and clear in (0, b"\0")


def grey_or_index(image: Image.Image, notes: list[str]) -> tuple[Image.Image, list[str]]:
    """A mask without palette → L; or P, if its numbers are so small that they must be classes."""
    values = np.asarray(image)
    top = values.max() if values.ndim == 2 and image.mode not in ("1", "F") else 0
    if not 0 < top <= 15:
        return (to_8_bit(image) if is_wide(image) else image).convert("L"), notes
    index = Image.fromarray(values.astype(np.uint8))
    index.putpalette(bytes(range(256)) * 3)
    return index, [*notes, f"grey values up to {top}: read as an index mask"]


def finish(image: Image.Image, notes: list[str]) -> Image.Image:
    """The picture with its notes, and without what else the file said (profiles, comments, gamma)."""
    image.info = {"notes": notes}
    return image
