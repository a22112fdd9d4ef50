"""Which facts a picture settles: the logo under a scarf, or the pattern of a hem one pixel high, nobody can read."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np

from minicc.data.dolls import CLOTHES, FACTS, Doll
from minicc.data.dolls.facts import numbers
from minicc.data.dolls.wardrobe import PATTERNED, PATTERNS
from minicc.evaluation.edits import average

VISIBLE = 10  # pixels that a pattern has to change, each by more than CLEARLY in some channel
CLEARLY = 24  # of 255


class Answers:
    """What there is to read off the pictures of n dolls."""

    def __init__(self, dolls: Sequence[Doll]):
        self.dolls = dolls
        self.facts = np.stack([numbers(doll.attributes()) for doll in dolls])  # (n, len(FACTS)) uint8

    @cached_property
    def alike(self) -> list[dict[str, tuple[str, ...]]]:
        """`alike_of` every doll; they are redrawn for it."""
        return [alike_of(doll) for doll in self.dolls]

    def right(self, read: np.ndarray) -> np.ndarray:
        """(n, len(FACTS)) bool: where what was read, as `AttributeReader.read`, is so, or looks just like it."""
        right = read == self.facts
        for row, numbers_read, alike in zip(right, read, self.alike, strict=True):
            for name, patterns in alike.items():
                place = list(FACTS).index(name)
                row[place] |= FACTS[name][numbers_read[place]] in patterns
        return right


def each_right(right: np.ndarray, dolls: Sequence[Doll]) -> dict[str, float]:
    """Of every fact about clothes the share of dolls with it right, of those that wear such a thing; nan if none does.

    right: (n, len(FACTS)) bool.
    """
    worn = [doll.attributes() for doll in dolls]
    rows = {name: [facts[name] not in ("none", "") for facts in worn] for name in CLOTHES}
    return {name: average(list(right[rows[name], list(FACTS).index(name)])) for name in CLOTHES}


@lru_cache(1024)  # each way to dress the same dolls asks again
def alike_of(doll: Doll) -> dict[str, tuple[str, ...]]:
    """The patterns that nobody can tell from the doll's own in its true picture, by the fact's name; often none."""
    found = {f"{slot}_pattern": alike(doll, slot) for slot in PATTERNED if slot in doll.slots}
    return {name: patterns for name, patterns in found.items() if patterns}


def alike(doll: Doll, slot: str) -> tuple[str, ...]:
    """The patterns with which this garment would give a picture that is hardly another."""
    garment = doll.worn(slot)
    others = (replace(garment, pattern=pattern) for pattern in PATTERNS if pattern != garment.pattern)
    redrawn = ((other, doll.wearing(replace(doll.outfit, **{slot: other}))) for other in others)
    return tuple(other.pattern for other, drawn in redrawn if visible_change(doll, drawn) < VISIBLE)


def visible_change(a: Doll, b: Doll) -> int:
    """How many pixels differ clearly between two dolls' pictures."""
    x, y = (np.asarray(doll.image).astype(np.int16) for doll in (a, b))
    return int((np.abs(x - y).max(-1) > CLEARLY).sum())
