"""The user's own pictures: any folder → samples and one report; and as tensors to train on."""

import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from minicc.data.files import pictures_below
from minicc.data.ground import SHARE, figure_box, plain_ground
from minicc.data.layouts import READERS, recognise
from minicc.data.metadata import note_unread
from minicc.data.report import MISSING, Report, checked
from minicc.data.samples import Sample, clothes, image_of, index_of, read_index
from minicc.data.tensors import mask_tensor, on_white, to_tensor
from minicc.errors import PictureError

Read = TypeVar("Read")
WIDEST = 4096  # pixels: of what a picture that is no square is padded to


def read_folder(
    path: str | Path, layout: str | None = None, check: bool = True, needs: Collection[str] = ()
) -> tuple[list[Sample], Report]:
    """All usable samples of a folder, and the report that names the others.

    layout: one of READERS ("metadata", "viton", "layers", "pictures"); None: recognised. check: open every file once;
    without it, damaged files are met while training, and skipped there. needs: of MISSING; samples that lack one of
    these are left out, the others may lack what they want. Raises PictureError for no folder or an unknown layout, and
    if the folder has several splits: which of them to train on must be said.
    """
    root = Path(path)
    if not root.is_dir():
        raise PictureError(f"{root}: {'a file' if root.exists() else 'no such folder'}; expected a folder of pictures")
    root, layout = recognise(root, layout)
    report = Report(layout)
    samples = list(READERS[layout][1](root, report))
    note_unread(root, layout, report)
    for stray in (path for path in pictures_below(Path(path)) if not path.is_relative_to(root)):
        report.note(stray.relative_to(path).as_posix(), f"beside the data set {root.name}/: not used")
    if check:
        samples = [sample for sample in (checked(sample, report) for sample in samples) if sample is not None]
    for sample in samples:
        if not sample.caption:
            report.note(sample.name, MISSING["caption"])
        if not sample.mask and not sample.layers:
            report.note(sample.name, MISSING["mask"])
        for what in ("garment", "target"):
            if what in needs and getattr(sample, what) is None:
                report.note(sample.name, MISSING[what])
    samples = report.leave_out(samples, [MISSING[need] for need in needs])
    report.kept = len(samples)
    return samples, report


class PictureFolder(Dataset):
    """A folder as training samples: image, mask of the clothes, caption, name.

    path, layout, check, needs: as for read_folder. size: side in pixels, a multiple of 8 as the VAE needs; pictures
    become squares of it, their aspect kept. If the report says anything, a warning sums it up; it stays as `.report`.
    Raises PictureError for another size, and if no sample is left.
    """

    def __init__(
        self, path: str | Path, size: int, layout: str | None = None, check: bool = True, needs: Collection[str] = ()
    ):
        if size < 8 or size % 8:
            raise PictureError(f"size={size}: a VAE halves pictures three times; expected a multiple of 8, such as 128")
        self.size = size
        self.samples, self.report = read_folder(path, layout, check, needs)
        if not self.samples:
            raise PictureError(f"{path}: no sample can be used. {self.report.summary()}{advice(needs)}")
        if self.report:
            warnings.warn(f"{path}: {self.report.summary()}", stacklevel=2)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor | str | int]:
        """image (3, size, size) in [-1, 1] on white; mask (1, size, size), 1 on clothes, all 0 if none is known; cover:
        the same for the clothes of either outfit, where there is a picture of a second.

        number: which sample it is, `index` or the one that took its place.
        """
        number, sample = self.first(index, self.tensors)
        return sample | {"number": number}

    def first(self, index: int, read: Callable[[Sample], Read]) -> tuple[int, Read]:
        """The first sample from `index` on that can be read, its number and what `read` makes of it.

        A file that broke since it was checked does not end the run: the next sample takes its place, with a warning.
        Raises PictureError if there is none.
        """
        for number in [*range(index, len(self)), *range(index)]:
            try:
                return number, read(self.samples[number])
            except PictureError as error:
                warnings.warn(f"{self.samples[number].name} is skipped: {error}", stacklevel=3)
        raise PictureError("none of the samples can be read any more; is the folder still there?")

    def tensors(self, sample: Sample) -> dict[str, Tensor | str]:
        """One sample, as __getitem__ returns it. Raises PictureError."""
        picture = image_of(sample)
        layer = clothes(index_of(sample, picture.size))
        levels = layer.astype(np.uint8) + either_outfit(sample, layer)  # 2: worn here, 1: in the other outfit
        drawing, levels = framed(picture, levels, self.size)
        return {
            "image": to_tensor(scaled(drawing, self.size))[0],
            "mask": mask_tensor(covering(levels == 2, self.size))[0],
            "cover": mask_tensor(covering(levels > 0, self.size))[0],
            "caption": sample.caption,
            "name": sample.name,
        }


def advice(needs: Collection[str]) -> str:
    """What to do about samples that lack what is needed."""
    wanted = " and a ".join(need for need in needs if need != "clothes")
    return f"\nEach needs a {wanted}: the README's “A folder to train on” shows how they are given." if needs else ""


def either_outfit(sample: Sample, layer: np.ndarray) -> np.ndarray:
    """The clothes' layer and those of the second outfit, if its mask can be read: what a swap's mask covers."""
    if sample.target_mask is None:
        return layer
    try:
        return layer | clothes(read_index(sample.target_mask, (layer.shape[1], layer.shape[0])))
    except PictureError:
        return layer


def framed(picture: Image.Image, layer: np.ndarray, side: int) -> tuple[Image.Image, np.ndarray]:
    """The picture on white and its layer, (H, W), as squares that show what a model is shown later: the figure, where
    its ground is plain or transparent and it does not fill the picture (`figure_box`). side: of what the model sees.
    """
    image = on_white(picture)
    box = figure_box(picture, side, layer > 0)
    if box is None:
        return square(image, layer, plain_ground(image))
    left, top, right, bottom = box
    ground = plain_ground(image, share=SHARE)  # as it was seen there
    return square(image.crop(box), layer[top:bottom, left:right], ground)


def square(image: Image.Image, layer: np.ndarray, ground: np.ndarray | None) -> tuple[Image.Image, np.ndarray]:
    """The picture and its layer as squares: a drawing on a plain ground is padded with it, a photograph cropped.

    The crop is about the clothes; where they are longer than the shorter side, the edge is repeated instead.
    """
    if image.width == image.height:
        return image, layer
    image, layer = within(WIDEST, image, layer)
    width, height = image.size
    pixels = np.asarray(image)
    if ground is None and (start := crop_start(layer, width, height)) is not None:
        side, axis = min(width, height), int(width > height)
        cut = (slice(None),) * axis + (slice(start, start + side),)
        return Image.fromarray(pixels[cut]), layer[cut]
    before = [(max(width, height) - n) // 2 for n in (height, width)]
    pads = [(b, max(width, height) - n - b) for b, n in zip(before, (height, width), strict=True)]
    padded = np.pad(pixels, [*pads, (0, 0)], mode="edge")  # (S, S, 3)
    inside = np.pad(np.ones(layer.shape, bool), pads)
    if ground is not None:
        padded[~inside] = ground
    return Image.fromarray(padded), np.pad(layer, pads)


def within(side: int, image: Image.Image, layer: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """Both made smaller, if a side is longer than this: a strip's square would not fit into memory."""
    share = side / max(image.size)
    if share >= 1:
        return image, layer
    size = (max(1, round(share * image.width)), max(1, round(share * image.height)))
    smaller = Image.fromarray(layer.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return image.resize(size, Image.Resampling.LANCZOS), np.asarray(smaller).astype(layer.dtype)


def crop_start(layer: np.ndarray, width: int, height: int) -> int | None:
    """Where along the longer side a square about all clothes begins, or None if none holds them."""
    along = np.flatnonzero(layer.any(0 if width > height else 1))
    side, length = min(width, height), max(width, height)
    first, last = (int(along[0]), int(along[-1])) if along.size else (length // 2, length // 2)
    if last - first + 1 > side:
        return None
    return min(max(0, (first + last + 1 - side) // 2), length - side)


def scaled(image: Image.Image, size: int) -> Image.Image:
    """A picture to (size, size)."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.LANCZOS)


def covering(layer: np.ndarray, size: int) -> np.ndarray:
    """A layer (H, W) bool to (size, size): a pixel that shows any of it belongs to it, so that nothing peeps out."""
    if layer.shape == (size, size):
        return layer
    return np.asarray(Image.fromarray(layer.astype(np.float32)).resize((size, size), Image.Resampling.BOX)) > 0
