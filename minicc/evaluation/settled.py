"""Which facts a picture settles: the logo under a scarf, or the pattern of a hem one pixel high, nobody can read."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from minicc.data.dolls import FACTS, Doll
from minicc.data.dolls.facts import numbers
from minicc.data.dolls.wardrobe import PATTERNED

VISIBLE = 10  # pixels that a pattern has to change, each by more than CLEARLY in some channel
CLEARLY = 24  # of 255


class Answers:
    """What there is to read off the pictures of n dolls."""

    def __init__(self, dolls: Sequence[Doll]):
        self.facts = np.stack([numbers(doll.attributes()) for doll in dolls])  # (n, len(FACTS)) uint8
        self.settled = np.stack([settled_of(doll) for doll in dolls])  # (n, len(FACTS)) bool

    def right(self, read: np.ndarray) -> np.ndarray:
        """(n, len(FACTS)) bool: where what was read, as `AttributeReader.read`, is so, or no picture could tell."""
        return (read == self.facts) | ~self.settled


@lru_cache(1024)  # each way to dress the same dolls asks again
def settled_of(doll: Doll) -> np.ndarray:
    """(len(FACTS),) bool: all True but the patterns that the doll's true picture does not show."""
    settled = np.ones(len(FACTS), bool)
    for slot in set(doll.slots) & set(PATTERNED):
        settled[list(FACTS).index(f"{slot}_pattern")] = shows_pattern(doll, slot)
    return settled


def shows_pattern(doll: Doll, slot: str) -> bool:
    """Whether the picture would be another if the garment were plain, and if it had a logo.

    The other patterns cover a garment all over: where one of them shows, so do its differences from the rest.
    """
    garment = doll.worn(slot)
    others = [replace(garment, pattern=pattern) for pattern in ("plain", "logo") if pattern != garment.pattern]
    return all(visible_change(doll, doll.wearing(replace(doll.outfit, **{slot: other}))) >= VISIBLE for other in others)


def visible_change(a: Doll, b: Doll) -> int:
    """How many pixels differ clearly between two dolls' pictures."""
    x, y = (np.asarray(doll.image).astype(np.int16) for doll in (a, b))
    return int((np.abs(x - y).max(-1) > CLEARLY).sum())
