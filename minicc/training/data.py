"""What the stages read: pictures for the VAE, latents and token ids for the base, characters with fresh masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from minicc.data.masks import clothes_in, paint
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
        if which < self.flats:
            image = self.dolls["flat"][index]
            clothes = (image < 255).any(0)
        else:
            image, clothes = self.dolls["image"][index], clothes_in(self.dolls["index"][index])
        if mirror < 0.5:
            image, clothes = image.flip(-1), clothes.flip(-1)
        return {"image": in_range(image), "clothes": clothes[None], "name": f"doll {index}"}


class Latents(Dataset):
    """Latents that were encoded once, with the token ids of one of their sentences; where there are those of mirror
    images, half of the samples are mirrored.
    """

    def __init__(self, latents: Tensor, ids: Tensor, seed: int, names: Sequence[str] = ()):
        """latents: (N, 1 or 2, 4, h, w), scaled, the second of mirror images; ids: (N, sentences, 77); names: of the
        pictures [those of dolls].
        """
        self.latents, self.ids, self.seed, self.names = latents, ids, seed, names

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, position = key
        random = rng(self.seed, position, 3)
        mirrored, said = (int(random.integers(n)) for n in (self.latents.shape[1], self.ids.shape[1]))
        name = self.names[index] if self.names else f"doll {index}"
        return {"latents": self.latents[index, mirrored], "ids": self.ids[index, said], "name": name}


class Dressed(Dataset):
    """Paper dolls as phase 1 sees them: the picture, where clothes are or could be, and the clothes in words.

    The mask covers what the doll wears and what it would wear in a second outfit: someone who puts a short dress on a
    character in a long one paints over both.
    """

    def __init__(self, dolls: dict[str, Tensor], others: Tensor, outfits: list[str]):
        """dolls: of dolls_cache; others: where the second outfits are, (N, H, W), 1 there; outfits: the sentences."""
        self.dolls, self.others, self.outfits = dolls, others, outfits

    def __len__(self) -> int:
        return len(self.outfits)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": in_range(self.dolls["image"][index]),
            "mask": (clothes_in(self.dolls["index"][index]) | (self.others[index] > 0)).float()[None],
            "caption": self.outfits[index],
            "name": f"doll {index}",
        }


class Painted(Dataset):
    """What phase 1 learns from: characters with masks as hands paint them, fresh for every position of the run.

    Latents and contexts were computed once; where there are latents of mirror images, half of the samples are mirrored.
    """

    def __init__(self, pictures: Dataset, latents: Tensor, context: Tensor, seed: int):
        """pictures: dicts with image, mask (the exact clothes), caption and name, `Dressed` or a `PictureFolder`; with
        cover, masks are painted over that instead: the clothes of either outfit.

        latents: (N, 1 or 2, 4, h, w), the second of mirror images; context: (N, 77, D).
        """
        self.pictures, self.latents, self.context, self.seed = pictures, latents, context, seed

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, position = key
        random = rng(self.seed, position, 3)
        sample = dict(self.pictures[index])
        index = sample.pop("number", index)  # a folder's next sample, if a file broke
        sample["mask"] = sample.pop("cover", sample["mask"])
        mirrored = int(random.integers(self.latents.shape[1]))
        if mirrored:
            sample |= {name: sample[name].flip(-1) for name in ("image", "mask")}
        layer = sample["mask"][0].numpy() > 0
        if layer.any():
            sample["mask"] = torch.from_numpy(paint(layer, random).astype(np.float32))[None]
        return sample | {"latents": self.latents[index, mirrored], "context": self.context[index]}


def in_range(image: Tensor) -> Tensor:
    """uint8 → [-1, 1]."""
    return image.float() / 127.5 - 1
