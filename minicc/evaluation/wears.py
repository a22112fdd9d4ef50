"""What phase 2 is asked when it is measured: a doll that no training has seen, the picture of a held-out garment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from minicc.data.dolls import Doll, Garment, draw, random_garment
from minicc.data.dolls.captions import phrase
from minicc.data.dolls.wardrobe import CLASSES, PATTERNED
from minicc.data.tensors import to_image, to_tensor, to_tensors
from minicc.evaluation.base import Question, first_doll
from minicc.evaluation.fills import Ask, alike
from minicc.models.controlnet import ControlNet
from minicc.outfit import phase1, phase2
from minicc.outfit.clothing import ClothingDetector
from minicc.outfit.detect import NoMask
from minicc.outfit.garment import Placed, placed
from minicc.outfit.narrow import AutomaticMask
from minicc.outfit.phase1 import Result
from minicc.pipeline import StableDiffusion
from minicc.training.draws import rng
from minicc.training.phase2_stage import moved, moved_points, variation


@dataclass(frozen=True)
class Wear(Question):
    """A doll as it is, the same doll in another garment (the truth), and others of its kind that it must not become.

    The seed is also that of the garment picture's place, scale and mirror.
    """

    slot: str
    others: tuple[Doll, ...]

    @property
    def prompt(self) -> str:
        """The garment in words, for phase 1."""
        return phrase(rng(self.seed, 7), self.after.worn(self.slot))

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool, the true mask: where the old or the new garment is, and every pixel that differs."""
        number = CLASSES[self.slot]
        differs = (np.asarray(self.character) != np.asarray(self.truth)).any(-1)
        return (self.before.index == number) | self.worn | differs

    @property
    def worn(self) -> np.ndarray:
        """(H, W) bool: where the truth shows the garment."""
        return self.after.index == CLASSES[self.slot]

    @cached_property
    def theta(self) -> torch.Tensor:
        return variation(rng(self.seed, 6))

    @cached_property
    def garment(self) -> Image.Image:
        """Its picture as it is given: mirrored or not, somewhere, in some size."""
        return to_image(moved(to_tensor(self.after.flat(self.slot))[0], self.theta))

    def where(self, one: Placed, stride: int) -> np.ndarray:
        """Which point of the garment, as it was laid for the model, each latent cell's middle shows: (h, w, 2), NaN."""
        points = self.after.correspondence(self.slot)[stride // 2 :: stride, stride // 2 :: stride] / self.after.size
        return one.moved(moved_points(torch.from_numpy(points), self.theta).numpy() * self.garment.width)


def wears(n: int, seed: int, pairs: int = 500, most: int = 5) -> list[Wear]:
    """n test dolls, each with one garment changed for a held-out one; `pairs` others in all, at most `most` each."""
    first, others = first_doll(seed), min(most, -(-pairs // n))
    return [wear(number, others) for number in range(first, first + n)]


def wear(number: int, others: int) -> Wear:
    """Of one doll; the garment and the others drawn from the doll's number."""
    random, doll = rng(number, 8), draw(number, split="test", combinations="heldout")
    slot = str(random.choice([slot for slot in doll.slots if slot in PATTERNED]))
    own = other_than(doll.worn(slot), random, slot)
    rest = [others_of_kind(own, random) for _ in range(others)]
    after, *wrong = (doll.wearing(replace(doll.outfit, **{slot: garment})) for garment in (own, *rest))
    return Wear(doll, after, number, slot, tuple(wrong))


def other_than(worn: Garment, random: np.random.Generator, slot: str) -> Garment:
    """A random held-out garment that is not the one worn."""
    while (garment := random_garment(random, slot, "heldout")) == worn:
        pass
    return garment


def others_of_kind(own: Garment, random: np.random.Generator) -> Garment:
    """A random garment of the same kind and length, in another colour or pattern."""
    while True:
        drawn = random_garment(random, own.slot)
        other = replace(own, colour=drawn.colour, pattern=drawn.pattern)
        if other != own:
            return other


class Dressing(Ask, Protocol):
    """One question to phase 2, its answer known."""

    @property
    def garment(self) -> Image.Image: ...


def found_clothes(sd: StableDiffusion, detector: ClothingDetector, asked: Sequence[Dressing]) -> list[AutomaticMask]:
    """The detector's own masks, as wide as they begin; an empty one where it finds no clothes."""
    found = []
    for one in tqdm(asked, desc="finding clothes"):
        try:
            found.append(phase2.automatic_mask(sd, detector, one.character, [one.garment]))
        except NoMask as nothing:
            found.append(AutomaticMask(np.zeros_like(one.mask), [str(nothing)], nothing.clothes))
    return found


def dressed_as_found(
    sd: StableDiffusion, control: ControlNet, detector: ClothingDetector, asked: Sequence[Dressing],
    found: Sequence[AutomaticMask], name: str, **options: object,
) -> tuple[list[Image.Image], list[np.ndarray]]:  # fmt: skip
    """What phase 2 makes of every question under the detector's masks, and those masks as they were at the end."""
    results = dressings(sd, control, asked, [one.mask for one in found], name, detector, found, **options)
    return [one.image for one in results], [np.asarray(one.mask) > 0 for one in results]


def dressed(
    sd: StableDiffusion, control: ControlNet, asked: Sequence[Dressing], masks: Sequence[np.ndarray], name: str,
    **options: object,
) -> list[Image.Image]:  # fmt: skip
    """What phase 2 makes of every question under these masks; the character itself where a mask is empty."""
    return [one.image for one in dressings(sd, control, asked, masks, name, **options)]  # type: ignore[arg-type]


def dressings(
    sd: StableDiffusion, control: ControlNet, asked: Sequence[Dressing], masks: Sequence[np.ndarray], name: str,
    detector: ClothingDetector | None = None, found: Sequence[AutomaticMask] = (), **options: object,
) -> list[Result]:  # fmt: skip
    """The same with the masks used. detector: with it garments are laid at the end; found: what it made of the masks,
    which are narrowed then.
    """
    made = [Result(one.character, Image.new("L", one.character.size), "", one.seed) for one in asked]
    todo = [i for i, mask in enumerate(masks) if mask.any()]
    ready = [phase1.prepare(sd, asked[i].character, masks[i]) for i in todo]
    for part in alike(ready, name):
        those = [asked[todo[i]] for i in part]
        laid = [placed(one.garment, sd.side) for one in those]
        garments, seeds = to_tensors(one.picture for one in laid), [one.seed for one in those]
        told = options | {"found": [found[todo[i]] for i in part] if found else [], "detector": detector, "laid": laid}
        results = phase2.batch(sd, control, [ready[i] for i in part], garments, seeds, **told)  # type: ignore[arg-type]
        for i, result in zip(part, results, strict=True):
            made[todo[i]] = result
    return made
