"""What a picture of a doll shows, as numbers that a classifier can learn."""

from collections.abc import Mapping

import numpy as np

from minicc.data.dolls.doll import OPTIONS
from minicc.data.dolls.wardrobe import COLOURS, PATTERNED, PATTERNS, SLOTS


def options_of(slot: str) -> dict[str, tuple[str, ...]]:
    """The facts about a slot, and the values of each; "none": nothing is worn there."""
    facts = {slot: ("none", *SLOTS[slot]), f"{slot}_colour": ("none", *COLOURS)}
    if slot in PATTERNED:
        lengths = sorted({length for kind in SLOTS[slot].values() for length in kind})
        facts |= {f"{slot}_pattern": ("none", *PATTERNS), f"{slot}_length": ("none", *lengths)}
    return facts


CLOTHES: dict[str, tuple[str, ...]] = {name: values for slot in SLOTS for name, values in options_of(slot).items()}
FACTS: dict[str, tuple[str, ...]] = CLOTHES | OPTIONS
"""Every fact's name and its values, in the order of `numbers`."""


def numbers(attributes: Mapping[str, str]) -> np.ndarray:
    """`Doll.attributes()` as (len(FACTS),) uint8: the position of each value in FACTS."""
    return np.array([values.index(attributes[name]) for name, values in FACTS.items()], np.uint8)


def attributes(row: np.ndarray) -> dict[str, str]:
    """And back."""
    return {name: values[int(number)] for (name, values), number in zip(FACTS.items(), row, strict=True)}
