"""The stage that teaches a detector what garments are called."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import trange

from minicc.data.dolls.captions import name
from minicc.data.dolls.facts import attributes
from minicc.data.dolls.wardrobe import CLASSES, PATTERNED, SLOTS
from minicc.data.ground import foreground
from minicc.data.samples import CLASSES as KINDS
from minicc.data.samples import CLOTHES
from minicc.data.tensors import to_image, to_tensor
from minicc.models.zero_conv import lock
from minicc.outfit.clothing import ClothingDetector, looking
from minicc.outfit.garment import garment_picture
from minicc.outfit.names import Names, pooled
from minicc.pipeline import StableDiffusion
from minicc.training.data import Key, in_range
from minicc.training.dolls_cache import shown_slot
from minicc.training.draws import Draws, rng
from minicc.training.phase2_stage import moved, variation
from minicc.training.stage import SMALL, Stage

OUTFITS = 0.15  # of the pictures: all clothes of a doll together, which have no name
NAMES = [
    (name(slot, kind, length), KINDS[CLASSES[slot]])
    for slot, kinds in SLOTS.items() for kind, lengths in kinds.items() for length in lengths
]  # fmt: skip


class NamesStage(Stage):
    """One layer learns names; the models and the rest of the detector stay as they are, so what it reads is kept."""

    lighter = SMALL

    def __init__(self, detector: ClothingDetector):
        """detector: with a layer for names."""
        super().__init__()
        assert detector.names is not None
        self.detector = lock(detector)
        self.names: Names = detector.names.requires_grad_(True)

    @property
    def trained(self) -> nn.Module:
        return self.names

    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """batch: means (B, C), of `pooled`; number (B,): 0 for none, else 1 + that of NAMES."""
        weight = self.names.read.weight
        return F.cross_entropy(self.names(batch["means"].to(weight)), batch["number"].to(weight.device))


class Named(Dataset):
    """What a detector's features say of garments' pictures, and what these are called; kept from before."""

    def __init__(self, kept: dict[str, Tensor]):
        """kept: of `means_and_names`."""
        self.kept = kept

    def __len__(self) -> int:
        return len(self.kept["means"])

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, _ = key
        return {"means": self.kept["means"][index], "number": self.kept["number"][index], "name": f"doll {index}"}


@torch.no_grad()
def means_and_names(
    sd: StableDiffusion, detector: ClothingDetector, drawn: dict[str, Tensor], seeds: range, seed: int, batch: int = 16
) -> dict[str, Tensor]:
    """means (N, C) float16 and number (N,), of one picture a doll: a garment, varied as in phase 2, or its outfit.

    drawn: of `draw_dolls`, of these seeds.
    """
    look, means, numbers = looking(sd, detector.t), list[Tensor](), list[int]()
    for start in trange(0, len(seeds), batch, desc="reading features"):
        random = rng(seed, start, 13)
        those = [pictured(drawn, i, seeds[i], random) for i in range(start, min(start + batch, len(seeds)))]
        x = torch.cat([to_tensor(garment_picture(picture, sd.side)) for picture, _ in those]).to(sd.device)
        means.append(pooled(detector.standardised(look(x))).half().cpu())
        numbers += [number for _, number in those]
    return {"means": torch.cat(means), "number": torch.tensor(numbers)}


def pictured(drawn: dict[str, Tensor], i: int, seed: int, random: np.random.Generator) -> tuple[Image.Image, int]:
    """One of a doll's garments as somebody may give it, or all its clothes as it wears them; and the name's number."""
    if random.random() < OUTFITS:
        number, picture = 0, clothes_alone(in_range(drawn["image"][i]), drawn["index"][i])
    else:
        number, picture = 1 + named(attributes(drawn["facts"][i].numpy()), seed), in_range(drawn["flat"][i])
    return given(picture, random), number


def given(picture: Tensor, random: np.random.Generator) -> Image.Image:
    """A picture (3, H, W) on white as somebody may give it: mirrored, scaled, moved, and not so far that its ground
    cannot be told any more (`foreground`).
    """
    while True:
        image = to_image(moved(picture, variation(random)))
        if foreground(image) is not None:
            return image


def named(facts: dict[str, str], seed: int) -> int:
    """Which of NAMES the garment has that the `flat` of this doll shows."""
    slot = shown_slot([slot for slot in SLOTS if facts[slot] != "none"], seed)
    length = facts[f"{slot}_length"] if slot in PATTERNED else ""
    return [words for words, _ in NAMES].index(name(slot, facts[slot], length))


def clothes_alone(image: Tensor, parts: Tensor) -> Tensor:
    """A doll's clothes on white. image: (3, H, W) in [-1, 1]; parts: (H, W), its part mask."""
    worn = torch.isin(parts, torch.tensor(CLOTHES, dtype=parts.dtype))
    return torch.where(worn, image, 1.0)
