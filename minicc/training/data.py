"""What the stages read: pictures for the VAE, latents and token ids for the base, characters with fresh masks."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from minicc.data.masks import paint
from minicc.training.draws import rng

Key = tuple[int, int]  # (index, position), from draws.Order


class Pictures(Dataset):
    """Dolls, and now and then one of their garments alone, for the VAE; half of them mirrored."""

    def __init__(self, dolls: dict[str, Tensor], seed: int, flats: float = 0.25):
        """dolls: of dolls_cache. flats: the share of garment pictures."""
        self.dolls, self.seed, self.flats = dolls, seed, flats

    def __len__(self) -> int:
        return len(self.dolls["image"])

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, position = key
        which, mirror = rng(self.seed, position, 3).random(2)
        image = self.dolls["flat" if which < self.flats else "image"][index]
        return {"image": in_range(image.flip(-1) if mirror < 0.5 else image), "name": f"doll {index}"}


class Latents(Dataset):
    """Latents that were encoded once, with their captions' token ids."""

    def __init__(self, latents: Tensor, ids: Tensor):
        """latents: (N, 4, h, w), scaled; ids: (N, 77)."""
        self.latents, self.ids = latents, ids

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, _ = key
        return {"latents": self.latents[index], "ids": self.ids[index], "name": f"doll {index}"}


class Painted(Dataset):
    """Characters with masks as hands paint them over their clothes, fresh for every position of the run."""

    def __init__(self, pictures: Dataset, seed: int):
        """pictures: dicts with image, mask (the exact clothes), caption and name."""
        self.pictures, self.seed = pictures, seed

    def __len__(self) -> int:
        return len(self.pictures)  # type: ignore[arg-type]

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, position = key
        sample = dict(self.pictures[index])
        layer = sample["mask"][0].numpy() > 0
        if layer.any():
            painted = paint(layer, rng(self.seed, position, 3))
            sample["mask"] = torch.from_numpy(painted.astype(np.float32))[None]
        return sample


def in_range(image: Tensor) -> Tensor:
    """uint8 → [-1, 1]."""
    return image.float() / 127.5 - 1
