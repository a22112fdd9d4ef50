"""What phase 2's main table leaves out: a top and a bottom at once, and shoes. Nobody paints a mask."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image
from tqdm import tqdm

from minicc.data.dolls import Doll, draw
from minicc.data.dolls.wardrobe import PATTERNED
from minicc.data.tensors import to_tensors
from minicc.evaluation.base import first_doll
from minicc.evaluation.edits import outside_change
from minicc.evaluation.phase1 import columns
from minicc.evaluation.settled import Answers
from minicc.evaluation.wears import other_than
from minicc.models.controlnet import ControlNet
from minicc.outfit import phase2
from minicc.outfit.clothing import ClothingDetector
from minicc.outfit.detect import NoMask
from minicc.outfit.phase1 import Result
from minicc.pipeline import StableDiffusion
from minicc.reader import AttributeReader
from minicc.training.draws import rng


def evaluate_outfits(
    sd: StableDiffusion, control: ControlNet, detector: ClothingDetector, reader: AttributeReader,
    slots: Sequence[str], n: int, seed: int, steps: int = 50, guidance: float = phase2.GUIDANCE,
) -> dict[str, float]:  # fmt: skip
    """On n test dolls, a garment in each of these slots: the share of the garments whose kind, colour and, if they have
    any, pattern are read off the results as they were given; outside_max, the largest change outside the masks used.
    """
    asked, results = outfits(n, seed, slots), list[Result]()
    for number, before, after in tqdm(asked, desc=" and ".join(slots)):
        pictures = [after.flat(slot) for slot in slots]
        options = {"detector": detector, "seed": number, "steps": steps, "guidance": guidance}
        try:
            results.append(phase2.generate(sd, control, before.image, pictures, **options))
        except NoMask:  # the doll stays as it is
            results.append(Result(before.image, Image.new("L", before.image.size), "", number))
    right = Answers([after for *_, after in asked]).right(reader.read(to_tensors(r.image for r in results)).numpy())
    patterned = [f"{slot}_pattern" for slot in slots if slot in PATTERNED]
    facts = {"garment": list(slots), "colour": [f"{slot}_colour" for slot in slots], "pattern": patterned}
    shares = {name: float(right[:, columns(those)].mean()) for name, those in facts.items() if those}
    return {**shares, "outside_max": max(map(changed_outside, results, (before for _, before, _ in asked)))}


def changed_outside(result: Result, before: Doll) -> float:
    """The largest change outside the mask that was used, of 255."""
    return outside_change(before.image, result.image, np.asarray(result.mask) > 0)


def outfits(n: int, seed: int, slots: Sequence[str]) -> list[tuple[int, Doll, Doll]]:
    """n test dolls that wear these, and each in others, with the doll's number; what has patterns is of held-out
    combinations, shoes have none.
    """
    found = candidates(first_doll(seed), slots)
    return [next(found) for _ in range(n)]


def candidates(first: int, slots: Sequence[str]) -> Iterator[tuple[int, Doll, Doll]]:
    number = first
    while True:
        before = draw(number, split="test", combinations="heldout")
        if set(slots) <= set(before.slots):
            random = rng(number, 9)
            others = {slot: other_than(before.worn(slot), random, slot) for slot in slots}
            yield number, before, before.wearing(replace(before.outfit, **others))
        number += 1
