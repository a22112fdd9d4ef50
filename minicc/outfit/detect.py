"""`minicc detect`: a character → where its clothes are, as a mask that `minicc phase1` and `phase2` take."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, label

from minicc.data.dolls.dataset import COLOURS
from minicc.data.masks import mask_picture
from minicc.data.samples import CLASSES, CLOTHES
from minicc.data.write import save_pictures
from minicc.errors import PictureError
from minicc.outfit.clothing import Clothes, ClothingDetector
from minicc.outfit.editing import DISK, edited
from minicc.pipeline import StableDiffusion

SMALLEST = 0.0005  # of the picture's pixels: what is smaller is taken for a mistake
# Mean uncertainty of a figure: 0.05 to 0.22 on 400 test dolls, 0.26 to 0.64 on 123 pictures by artists, which the
# shipped detector has not learned (benchmarks/uncertainty.py).
UNSURE = 0.24


class NoMask(PictureError):
    """Why there is no automatic mask; `clothes` is what was seen, and its uncertainty tells where they might be."""

    def __init__(self, message: str, clothes: Clothes):
        super().__init__(message)
        self.clothes = clothes


class NothingFound(NoMask):
    """No clothes."""


class SeveralFigures(NoMask):
    """More than one character."""


def clothing_mask(clothes: Clothes, classes: Sequence[str] = (), grow: int = 0) -> np.ndarray:
    """(H, W) bool: the named classes, or all clothes; spots dropped, holes filled, grown, hair and skin taken out.

    Raises NothingFound, a PictureError, if there is none.
    """
    names = [CLASSES[number] for number in CLOTHES]
    if strange := [name for name in classes if name not in names]:
        raise PictureError(f"there is no class of clothes {strange[0]!r}; expected some of {', '.join(names)}")
    layer = clothes.layer(*classes)
    mask = edited(
        layer, grow=grow, smallest=max(2, round(SMALLEST * layer.size)), without=clothes.layer("hair", "skin")
    )
    if not mask.any():
        wanted = " or ".join(classes) or "clothes"
        if layer.any() and grow < 0:
            raise NothingFound(f"nothing of {wanted} is left after shrinking by {-grow} pixels: shrink less", clothes)
        raise NothingFound(f"no {wanted} found in the picture: paint a mask by hand", clothes)
    return mask


def figures_in(clothes: Clothes, least: float = 0.3) -> int:
    """How many characters a picture shows: parts that do not touch, each at least `least` as large as the largest."""
    parts, _ = label(binary_dilation(clothes.index > 0, DISK, iterations=1))
    sizes = np.bincount(parts.ravel())[1:]
    return int((sizes >= least * sizes.max()).sum()) if sizes.size else 0


def uncertainty_of(clothes: Clothes) -> float:
    """The mean over the figure; nan if there is none."""
    figure = clothes.index > 0
    return float(clothes.uncertainty[figure].mean()) if figure.any() else float("nan")


def unfamiliar(clothes: Clothes) -> list[str]:
    """A doubt about what was found, if the detector is as unsure of the figure as of pictures it has not learned."""
    if not uncertainty_of(clothes) >= UNSURE:  # nan: there is nobody to be unsure of
        return []
    return ["the detector is unsure of this picture, unlike what it has learned: look at the mask, or paint one"]


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
    """Find the clothes and write the mask to `out`: white on black; with `parts` a palette picture of all classes, as
    they are seen.

    uncertainty: where to write how sure the heads are, white where not; it is written even if nothing is found. Raises
    PictureError where nothing can be written, and for a format that would change pixels.
    """
    if parts and out.suffix.lower() == ".webp":
        raise PictureError(f"{out}: WebP knows no palette, whose numbers are the classes; write .png or .tif")
    found = detector.find(sd, image)
    if uncertainty:
        save_pictures({uncertainty: found.uncertainty_picture()})
    shown = parts and found.index.any()  # all that is seen, clothes or not
    picture = part_picture(found.index) if shown else mask_picture(clothing_mask(found, classes, grow))
    if (count := figures_in(found)) > 1:
        warnings.warn(f"the picture shows {count} figures: the mask is over the clothes of all", stacklevel=2)
    for doubt in unfamiliar(found):
        warnings.warn(doubt, stacklevel=2)
    return save_pictures({out: picture})[0]


def part_picture(index: np.ndarray) -> Image.Image:
    """(H, W) of CLASSES → a palette picture."""
    picture = Image.fromarray(index, "P")
    picture.putpalette([channel for colour in COLOURS for channel in colour])
    return picture
