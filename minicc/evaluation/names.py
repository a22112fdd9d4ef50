"""How well a detector knows what garments are called."""

from collections.abc import Sequence

import torch
from tqdm import tqdm

from minicc.data.dolls import Doll
from minicc.data.dolls.captions import name
from minicc.data.tensors import on_white, to_tensor
from minicc.evaluation.edits import average
from minicc.outfit.clothing import ClothingDetector
from minicc.outfit.garment import garment_picture
from minicc.pipeline import StableDiffusion
from minicc.training.draws import rng
from minicc.training.names_stage import clothes_alone, given


def names_told(sd: StableDiffusion, detector: ClothingDetector, dolls: Sequence[Doll]) -> dict[str, float]:
    """Of pictures of the dolls' garments, and of all that a doll wears; mirrored, scaled and moved, cut off in parts.

    right, wrong: the shares that are called what they are, and something else; the rest gets no name. outfits: the
    share of those of all that a doll wears that rightly gets none. Empty for a detector that has learned no names.
    """
    if detector.names is None:
        return {}
    right, wrong, outfits = list[bool](), list[bool](), list[bool]()
    for number, doll in enumerate(tqdm(dolls, desc="reading names")):
        random = rng(number, 14)
        for slot in doll.slots:
            worn, flat = doll.worn(slot), to_tensor(on_white(doll.flat(slot)))[0]
            told = detector.name(sd, garment_picture(given(flat, random), sd.side))
            right.append(told is not None and told.words == name(slot, worn.kind, worn.length))
            wrong.append(told is not None and not right[-1])
        outfit = clothes_alone(to_tensor(on_white(doll.image))[0], torch.from_numpy(doll.index))
        outfits.append(detector.name(sd, garment_picture(given(outfit, random), sd.side)) is None)
    return {"right": average(right), "wrong": average(wrong), "outfits": average(outfits)}
