"""Random dolls from seeds."""

import numpy as np

from minicc.data.dolls.doll import OPTIONS, Character, Doll
from minicc.data.dolls.wardrobe import Outfit, pick, random_outfit
from minicc.errors import Error

SPLITS = ("train", "val", "test", "judge")  # judge: what the attribute reader learns from, all combinations
COMBINATIONS = ("any", "seen", "heldout")


def draw(
    seed: int,
    *,
    size: int = 128,
    split: str = "train",
    combinations: str | None = None,
    outfit: Outfit | None = None,
    **character: str,
) -> Doll:
    """The doll of this seed: the same bytes on every machine.

    seed: ≥ 0. size: side in pixels, ≥ 64. split: one of SPLITS; no two share a doll.
    combinations: of (garment, colour, pattern): "seen" in training, "heldout" from it, or "any"; "seen" for train,
    else "any". outfit, and fields of `Character` such as hair="bob": fixed instead of random. Raises Error.
    """
    combinations = combinations or ("seen" if split == "train" else "any")
    check(seed, size, split, combinations, character)
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    who = random_character(rng) | character
    worn = random_outfit(rng, combinations)
    return Doll(Character(**who), outfit or worn, size, words=int(rng.integers(2**31)))


def random_character(rng: np.random.Generator) -> dict[str, str]:
    """A value for every field; backgrounds: an eighth none, the others plain, gradients or scenes alike."""
    who = {name: pick(rng, options) for name, options in OPTIONS.items() if name != "background"}
    named = OPTIONS["background"][1:]
    gradients = tuple(name for name in named if name.endswith(" gradient"))
    plain = tuple(name for name in named if f"{name} gradient" in named)
    scenes = tuple(name for name in named if name not in gradients + plain)
    kinds = (("none",), plain, plain, gradients, gradients, scenes, scenes, scenes)
    who["background"] = pick(rng, kinds[int(rng.integers(8))])
    return who


def check(seed: int, size: int, split: str, combinations: str, character: dict[str, str]) -> None:
    """Raises Error for options that make no doll."""
    if seed < 0 or size < 64:
        raise Error(f"seed={seed}, size={size}: expected a seed ≥ 0 and at least 64 pixels")
    if split not in SPLITS or combinations not in COMBINATIONS:
        raise Error(f"split={split!r}, combinations={combinations!r}: expected one of {SPLITS}, and of {COMBINATIONS}")
    if split == "train" and combinations != "seen":
        raise Error(f"combinations={combinations!r} in the train split: held-out combinations never occur in training")
    if unknown := set(character) - set(OPTIONS):
        raise Error(f"a doll has no {', '.join(sorted(unknown))}; fields are {', '.join(OPTIONS)} and outfit")
