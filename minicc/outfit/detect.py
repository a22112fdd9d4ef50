"""`minicc detect`: a character → where its clothes are, as a mask that `minicc phase1` and `phase2` take."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from minicc.data.dolls.dataset import COLOURS
from minicc.data.write import save_pictures
from minicc.errors import PictureError
from minicc.outfit.clothing import Clothes, ClothingDetector
from minicc.outfit.editing import edited
from minicc.pipeline import StableDiffusion

SMALLEST = 0.0005  # of the picture's pixels: what is smaller is taken for a mistake


class NothingFound(PictureError):
    """Where no clothes are; `clothes` is what was seen, and its uncertainty tells where they might be."""

    def __init__(self, message: str, clothes: Clothes):
        super().__init__(message)
        self.clothes = clothes


def clothing_mask(clothes: Clothes, classes: Sequence[str] = (), grow: int = 0) -> np.ndarray:
    """(H, W) bool: the named classes, or all clothes; spots dropped, holes filled, grown, hair and skin taken out.

    Raises NothingFound, a PictureError, if there is none.
    """
    layer = clothes.layer(*classes)
    mask = edited(
        layer, grow=grow, smallest=max(2, round(SMALLEST * layer.size)), without=clothes.layer("hair", "skin")
    )
    if not mask.any():
        wanted = " or ".join(classes) or "clothes"
        raise NothingFound(f"no {wanted} found in the picture: paint a mask by hand", clothes)
    return mask


def unclothed(clothes: Clothes, mask: np.ndarray) -> list[str]:
    """A doubt about a painted mask (H, W) under which there seem to be no clothes; none if there are."""
    seen = clothes.layer() & mask
    if seen.sum() > SMALLEST * seen.size:
        return []
    return ["under the mask no clothes are seen: is it painted over them? What is drawn there may not fit the figure"]


def detect(
    sd: StableDiffusion, detector: ClothingDetector, image: Image.Image, out: Path, classes: Sequence[str] = (),
    grow: int = 0, parts: bool = False, uncertainty: Path | None = None,
) -> Path:  # fmt: skip
    """Find the clothes and write the mask to `out`: white on black; with `parts` a palette picture of all classes.

    uncertainty: where to write how sure the heads are, white where not; it is written even if nothing is found. Raises
    PictureError where nothing can be written, and for a format that would change pixels.
    """
    if parts and out.suffix.lower() == ".webp":
        raise PictureError(f"{out}: WebP knows no palette, whose numbers are the classes; write .png or .tif")
    found = detector.find(sd, image)
    if uncertainty:
        save_pictures({uncertainty: found.uncertainty_picture()})
    mask = clothing_mask(found, classes, grow)
    picture = part_picture(found.index) if parts else Image.fromarray(mask.astype(np.uint8) * 255)
    return save_pictures({out: picture})[0]


def part_picture(index: np.ndarray) -> Image.Image:
    """(H, W) of CLASSES → a palette picture."""
    picture = Image.fromarray(index, "P")
    picture.putpalette([channel for colour in COLOURS for channel in colour])
    return picture
