"""One common shape for everybody's pictures: a sample, its picture, and what each pixel of it shows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from minicc.data.pictures import open_mask, open_picture
from minicc.errors import PictureError

CLASSES = ("none", "top", "bottom", "dress", "shoes", "accessory", "hair", "skin")  # of an index mask
CLOTHES = range(1, 6)


@dataclass(frozen=True)
class Sample:
    """A character: where its files lie, and what is said about it."""

    name: str  # unique in its folder, and readable
    image: Path  # the character; for layers, their folder
    caption: str = ""  # all clothes, in words
    mask: Path | None = None  # where they are
    labels: tuple[int, ...] = ()  # the mask's own numbers → CLASSES, by position; empty: they are CLASSES
    layers: tuple[tuple[Path, int], ...] = ()  # (file, class), bottom first; then there is no mask file
    garment: Path | None = None  # another garment, alone
    garment_text: str = ""
    target: Path | None = None  # the same character in that garment
    target_mask: Path | None = None
    changed: tuple[str, ...] = ()  # the CLASSES that differ between image and target; empty: all clothes


def inside(root: Path, name: object) -> Path:
    """The file of this name in the folder; raises PictureError if it is no name, or leads out of the folder."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise PictureError(f"{name!r} is not a file name; expected one relative to {root.name}/")
    path = root / name
    try:
        stays = path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a ring of links, letters that no file name can have
        raise PictureError(f"{name!r} is not a file name ({error})") from error
    if not stays:
        raise PictureError(f"{name} leads out of {root.name}/; copy the file into the folder")
    return path


def caption_in(root: Path, name: str) -> str:
    """The words in a text file of the folder; "" if there is none. Raises PictureError if it cannot be read."""
    return text_of(inside(root, name), missing="").strip()


def text_of(path: Path, missing: str | None = None) -> str:
    """A text file's content; missing: what stands for a file that is not there. Raises PictureError."""
    try:
        return missing if missing is not None and not path.is_file() else path.read_text("utf-8-sig", errors="replace")
    except OSError as error:  # a name longer than the disk allows, no permission
        advice = "give it a shorter name, or leave to read"
        raise PictureError(f"{path.name}: cannot be read ({error.strerror}); {advice}") from error


def image_of(sample: Sample) -> Image.Image:
    """The character, RGB or RGBA; layers are merged. Notes in `info["notes"]`."""
    if not sample.layers:
        return open_picture(sample.image)
    pictures = [open_picture(path) for path, _ in sample.layers]
    check_layers(sample, pictures)
    merged = pictures[0].convert("RGBA")
    for picture in pictures[1:]:
        merged = Image.alpha_composite(merged, picture.convert("RGBA"))
    merged.info = {
        "notes": [
            f"{path.name}: {note}"
            for (path, _), p in zip(sample.layers, pictures, strict=True)
            for note in p.info["notes"]
        ]
    }
    return merged


def check_layers(sample: Sample, pictures: list[Image.Image]) -> None:
    """Layers lie exactly on one another, and only the lowest may be opaque."""
    for (path, _), picture in zip(sample.layers, pictures, strict=True):
        if picture.size != pictures[0].size:
            wanted = "{}×{}".format(*pictures[0].size)
            raise PictureError(
                f"{path.name} is {picture.width}×{picture.height}, the lowest layer {wanted}: same size, please"
            )
        if picture is not pictures[0] and np.asarray(picture.convert("RGBA"))[..., 3].min() == 255:
            raise PictureError(
                f"{path.name} is opaque everywhere and hides all layers below: save it with transparency"
            )


def index_of(sample: Sample, size: tuple[int, int]) -> np.ndarray:
    """What each pixel of the character shows, (H, W) uint8 of CLASSES; all 0 if the sample has no mask.

    size: (width, height) of its picture, which a mask must share; raises PictureError.
    """
    if sample.layers:
        return index_of_layers(sample, size)
    if sample.mask is None:
        return np.zeros(size[::-1], np.uint8)
    return read_index(sample.mask, size, sample.labels)


def index_of_layers(sample: Sample, size: tuple[int, int]) -> np.ndarray:
    """The class of the uppermost layer that is at least half opaque; so what hair covers is not clothes."""
    index = np.zeros(size[::-1], np.uint8)
    for path, number in sample.layers:
        index[np.asarray(open_picture(path).convert("RGBA"))[..., 3] >= 128] = number
    return index


def read_index(path: Path, size: tuple[int, int], labels: tuple[int, ...] = ()) -> np.ndarray:
    """A mask file → (H, W) uint8 of CLASSES. Painted masks have no classes: what is painted is 1."""
    mask = open_mask(path)
    if mask.size != size:
        raise PictureError(
            f"{path.name} is {mask.width}×{mask.height} but the picture {size[0]}×{size[1]}: same size, please"
        )
    values = np.asarray(mask)
    if mask.mode == "RGBA":
        alpha = values[..., 3]
        values = np.asarray(mask.convert("L")) if alpha.min() == alpha.max() else alpha
    if labels and mask.mode in "PL":
        return np.array([*labels, *[0] * (256 - len(labels))], np.uint8)[values]
    if mask.mode != "P":
        return (values >= 128).astype(np.uint8)
    return values if values.max() < len(CLASSES) else (values > 0).astype(np.uint8)


def clothes(index: np.ndarray, changed: tuple[str, ...] = ()) -> np.ndarray:
    """(H, W) bool: where clothes are, or those of the classes named."""
    numbers = [CLASSES.index(name) for name in changed] or list(CLOTHES)
    return np.isin(index, numbers)
