"""What phase 1 is asked when it is measured: a doll that no training has seen, a painted mask, an outfit in words."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from minicc.data.dolls import SLOTS, Doll, Garment, Outfit, draw, random_garment, random_outfit
from minicc.data.masks import clothes_in, paint
from minicc.evaluation.base import Question, first_doll
from minicc.training.draws import rng

MASKS = ("strokes", "loose", "tight", "box")  # kinds of `masks.paint` that go over whole outfits
LENGTHS = {"short": "long", "long": "short"}
SLOTS_OF_TWO_LENGTHS = ("top", "bottom", "onepiece")


@dataclass(frozen=True)
class Swap(Question):
    """A doll as it is, the same doll as the sentence says (the truth), and the mask painted over both outfits."""

    mask: np.ndarray  # (H, W) bool; outside of it both pictures are the same bytes
    slot: str | None = None  # where a long garment became a short one, or a short one a long one

    @property
    def prompt(self) -> str:
        return self.after.outfit_text

    @cached_property
    def relapse(self) -> Doll:
        """The new outfit cut as long or as short as the old garment was: what a leaking outline would look like."""
        assert self.slot is not None
        garment = getattr(self.after.outfit, self.slot)
        return self.after.wearing(replace(self.after.outfit, **{self.slot: other_length(garment)}))


def swaps(n: int, seed: int) -> list[Swap]:
    """n swaps of test dolls in held-out combinations; in every second one, a garment's length changes."""
    first = first_doll(seed)
    return [swap(number, changes_length=i % 2 == 1) for i, number in enumerate(range(first, first + n))]


def swap(number: int, changes_length: bool) -> Swap:
    """The swap of one doll, its second outfit and mask drawn from the doll's number."""
    random = rng(number, 5)
    doll = draw(number, split="test", combinations="heldout")
    if not changes_length:
        return masked(doll, random_outfit(random, "heldout"), number, random, None)
    slot = SLOTS_OF_TWO_LENGTHS[int(random.integers(3))]
    old, new = (garment_of_two_lengths(random, slot) for _ in range(2))
    new = replace(new, length=LENGTHS[old.length])
    before = doll.wearing(outfit_with(random, slot, old))
    return masked(before, outfit_with(random, slot, new), number, random, slot)


@dataclass(frozen=True)
class Piece(Question):
    """A doll of which one garment becomes another, under a mask that is no larger than the two."""

    mask: np.ndarray  # (H, W) bool
    slot: str

    @property
    def prompt(self) -> str:
        return self.after.outfit_text


def pieces(n: int, seed: int) -> list[Piece]:
    """n test dolls of which one garment, top to hat, is painted over tightly and gets another colour and kind."""
    first = first_doll(seed)
    return [piece(number) for number in range(first, first + n)]


def piece(number: int) -> Piece:
    """The piece of one doll; which, and what it becomes, drawn from the doll's number."""
    random = rng(number, 6)
    before = draw(number, split="test", combinations="heldout")
    slot = str(random.choice([slot for slot in before.slots if slot != "accessory"]))
    old = getattr(before.outfit, slot)
    new = old
    while new.colour == old.colour or new.kind == old.kind:
        new = random_garment(random, slot, "heldout")
    after = before.wearing(replace(before.outfit, **{slot: new}))
    changes = np.any(np.asarray(before.image) != np.asarray(after.image), axis=-1)
    return Piece(before, after, number, paint(changes, random, "tight") | changes, slot)


def masked(before: Doll, outfit: Outfit, number: int, random: np.random.Generator, slot: str | None) -> Swap:
    """The doll and its second outfit under one mask: painted as hands do, and nothing of either left out."""
    after = before.wearing(outfit)
    layer = clothed(before) | clothed(after)
    mask = paint(layer, random, str(random.choice(MASKS))) | layer
    return Swap(before, after, number, mask, slot)


def clothed(doll: Doll) -> np.ndarray:
    """(H, W) bool: where its clothes are."""
    return clothes_in(doll.index)


def outfit_with(random: np.random.Generator, slot: str, garment: Garment) -> Outfit:
    """A random held-out outfit in which the slot holds this garment."""
    while True:
        outfit = random_outfit(random, "heldout")
        if getattr(outfit, slot) is not None:
            return replace(outfit, **{slot: garment})


def garment_of_two_lengths(random: np.random.Generator, slot: str) -> Garment:
    """A random held-out garment of a kind that comes short and long."""
    while True:
        garment = random_garment(random, slot, "heldout")
        if set(SLOTS[slot][garment.kind]) == set(LENGTHS):
            return garment


def other_length(garment: Garment) -> Garment:
    return replace(garment, length=LENGTHS[garment.length])
