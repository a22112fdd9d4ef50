"""What the user's own folders teach beside phase 1: the VAE a style, the detector clothes, phase 2 wearing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from minicc.data.folder import PictureFolder, covering, framed, scaled
from minicc.data.pictures import open_picture
from minicc.data.samples import CLASSES, Sample, clothes, image_of, index_of
from minicc.data.tensors import mask_tensor, to_tensor
from minicc.errors import PictureError
from minicc.outfit.garment import garment_picture
from minicc.training.data import Key, Painted
from minicc.training.detector_stage import alone
from minicc.training.draws import rng
from minicc.training.phase2_stage import varied


class FolderPictures(Dataset):
    """A folder's characters for the VAE, and now and then a garment alone; half of them mirrored."""

    def __init__(self, pictures: PictureFolder, seed: int, flats: float = 0.25):
        """flats: the share of garments, where a sample has one that can be cut out."""
        self.pictures, self.seed, self.flats = pictures, seed, flats

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, position = key
        which, mirror = rng(self.seed, position, 3).random(2)
        garment = lone_garment(self.pictures.samples[index], self.pictures.size) if which < self.flats else None
        if garment is None:
            sample: dict[str, Any] = self.pictures[index]
            index, image, clothes = sample["number"], sample["image"], sample["mask"] > 0
        else:
            image, clothes = garment, (garment < 1).any(0, keepdim=True)
        if mirror < 0.5:
            image, clothes = image.flip(-1), clothes.flip(-1)
        return {"image": image, "clothes": clothes, "name": self.pictures.samples[index].name}


class FolderParts(Dataset):
    """Characters with their masks for the detector, and now and then a garment of one kind alone; half are mirrored."""

    def __init__(self, pictures: PictureFolder, seed: int, flats: float = 0.0):
        """flats: the share of garments alone, if there are samples that change one kind of clothes only."""
        self.pictures, self.seed = pictures, seed
        self.single = [s for s in pictures.samples if s.garment and len(s.changed) == 1]
        self.flats = flats if self.single else 0.0

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, position = key
        mirror, which, one = rng(self.seed, position, 3).random(3)
        sample = self.single[int(one * len(self.single))] if which < self.flats else None
        shown = self.garment(sample) if sample else None
        if sample is None or shown is None:
            index, read = self.pictures.first(index, self.character)
            sample, shown = self.pictures.samples[index], read
        image, parts = shown
        if mirror < 0.5:
            image, parts = image.flip(-1), parts.flip(-1)
        return {"image": image, "index": parts, "name": sample.name}

    def character(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """(3, size, size) in [-1, 1], and of each pixel the class, (size, size)."""
        picture = image_of(sample)
        image, parts = framed(picture, index_of(sample, picture.size), self.pictures.size)
        side = (self.pictures.size, self.pictures.size)
        x = to_tensor(image.resize(side, Image.Resampling.LANCZOS))[0]
        return x, torch.from_numpy(np.array(Image.fromarray(parts).resize(side, Image.Resampling.NEAREST)))

    def garment(self, sample: Sample) -> tuple[Tensor, Tensor] | None:
        """The same of its garment alone, which is of one kind; None if it cannot be cut out."""
        image = lone_garment(sample, self.pictures.size)
        return None if image is None else (image, alone(image, CLASSES.index(sample.changed[0])))


def lone_garment(sample: Sample, size: int) -> Tensor | None:
    """A sample's garment, (3, size, size) in [-1, 1], on white; None if there is none, or none that can be cut out."""
    try:
        return to_tensor(garment_picture(open_picture(sample.garment), size))[0] if sample.garment else None
    except PictureError:
        return None


class WornPictures(PictureFolder):
    """A folder's second outfits: image, the garment alone, mask and cover, caption, name.

    A sample of a folder is a character, a garment, and as its target the character in that garment. What is learned
    from is the target. Its mask and cover are where clothes change, in either outfit; its caption is the garment's.
    """

    def __init__(self, path: str | Path, size: int):
        super().__init__(path, size, needs=("mask", "clothes", "garment", "target"))
        self.samples = [worn(sample) for sample in self.samples]

    def tensors(self, sample: Sample) -> dict[str, Tensor | str]:
        """As PictureFolder's, and garment (3, size, size) in [-1, 1], laid as phase 2 lays it. Raises PictureError."""
        picture = image_of(sample)
        layer = changes(sample, picture.size)
        drawing, layer = framed(picture, layer, self.size)
        image, mask = to_tensor(scaled(drawing, self.size))[0], mask_tensor(covering(layer, self.size))[0]
        assert sample.garment is not None
        garment = to_tensor(garment_picture(open_picture(sample.garment), self.size))[0]
        words = {"caption": sample.caption, "name": sample.name}
        return {"image": image, "mask": mask, "cover": mask, "garment": garment, **words}


def worn(sample: Sample) -> Sample:
    """The other way round: the picture in which the garment is worn, and as its target what there was before."""
    assert sample.target is not None
    itself = sample.target == sample.image  # a picture with its own garment
    return replace(
        sample,
        image=sample.target,
        mask=sample.mask if itself else sample.target_mask,
        labels=sample.labels if itself else (),
        layers=(),
        target=sample.image,
        target_mask=sample.mask,
        caption=sample.garment_text,
    )


def changes(sample: Sample, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: where the clothes that change are, before or after. size: (width, height) of both pictures."""
    before = replace(sample, mask=sample.target_mask)
    return clothes(index_of(sample, size), sample.changed) | clothes(index_of(before, size), sample.changed)


class WornFolder(Painted):
    """Characters of a folder with masks as hands paint them, and their garments moved, scaled and mirrored afresh."""

    def __getitem__(self, key: Key) -> dict[str, Any]:
        sample = super().__getitem__(key)
        return sample | {"garment": varied(sample["garment"], rng(self.seed, key[1], 9))}
