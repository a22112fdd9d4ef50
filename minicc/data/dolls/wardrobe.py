"""What dolls can wear: names of garments, colours and patterns, what is held out of training, and random outfits."""

from dataclasses import dataclass, fields
from zlib import crc32

import numpy as np

from minicc.data.dolls.colours import CLOTH
from minicc.errors import Error

COLOURS = tuple(CLOTH)
PATTERNS = ("plain", "stripes", "dots", "checks", "plaid", "stars", "gradient", "logo")
TOPS: dict[str, tuple[str, ...]] = {
    "t-shirt": ("short", "long"),
    "shirt": ("short", "long"),
    "sweater": ("",),
    "hoodie": ("",),
    "tank top": ("",),
    "jacket": ("",),
    "sailor top": ("short", "long"),
    "kimono top": ("",),
    "armour": ("",),
    "vest": ("",),
}  # each with the lengths it comes in; "": only one
BOTTOMS: dict[str, tuple[str, ...]] = {
    "trousers": ("",),
    "jeans": ("",),
    "shorts": ("",),
    "skirt": ("short", "long"),
    "pleated skirt": ("",),
    "leggings": ("",),
}
ONEPIECES: dict[str, tuple[str, ...]] = {
    "dress": ("short", "long"),
    "kimono": ("",),
    "overalls": ("short", "long"),
    "robe": ("",),
    "jumpsuit": ("",),
}
SHOES: dict[str, tuple[str, ...]] = {"sneakers": ("",), "boots": ("",), "sandals": ("",), "pumps": ("",)}
HATS: dict[str, tuple[str, ...]] = {
    "cap": ("",),
    "beanie": ("",),
    "sun hat": ("",),
    "wizard hat": ("",),
    "crown": ("",),
}
ACCESSORIES: dict[str, tuple[str, ...]] = {"glasses": ("",), "bow": ("",), "scarf": ("",)}
SLOTS: dict[str, dict[str, tuple[str, ...]]] = {
    "top": TOPS, "bottom": BOTTOMS, "onepiece": ONEPIECES, "shoes": SHOES, "hat": HATS, "accessory": ACCESSORIES,
}  # fmt: skip
CLASSES = {"top": 1, "bottom": 2, "onepiece": 3, "shoes": 4, "hat": 5, "accessory": 5, "hair": 6, "skin": 7}
PATTERNED = ("top", "bottom", "onepiece")  # shoes, hats and accessories are plain; scarves and beanies have their own


@dataclass(frozen=True)
class Garment:
    """One piece of clothing."""

    kind: str  # a key of TOPS, BOTTOMS, …
    colour: str  # one of COLOURS
    pattern: str = "plain"  # one of PATTERNS
    length: str = ""  # one of the kind's lengths

    @property
    def slot(self) -> str:
        """Where it is worn; raises Error for a garment that does not exist."""
        for slot, kinds in SLOTS.items():
            if self.kind in kinds:
                return slot
        raise Error(
            f"there is no {self.kind!r}; garments are {', '.join(k for kinds in SLOTS.values() for k in kinds)}"
        )


@dataclass(frozen=True)
class Outfit:
    """All a doll wears: a one-piece, or a top and a bottom; the rest may be missing."""

    top: Garment | None = None
    bottom: Garment | None = None
    onepiece: Garment | None = None
    shoes: Garment | None = None
    hat: Garment | None = None
    accessory: Garment | None = None

    def __post_init__(self) -> None:
        for slot, garment in self.items():
            check(slot, garment)
        if self.onepiece and (self.top or self.bottom):
            raise Error("a one-piece is worn without top and bottom: leave them out")
        if not self.onepiece and not (self.top and self.bottom):
            raise Error("an outfit needs a one-piece, or a top and a bottom")

    def items(self) -> list[tuple[str, Garment]]:
        """(slot, garment) of what is worn."""
        return [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) is not None]


def check(slot: str, garment: Garment) -> None:
    """Raises Error if the garment does not exist, or is worn elsewhere."""
    if garment.slot != slot:
        raise Error(f"{garment.kind} is worn as {garment.slot}, not as {slot}")
    if garment.colour not in COLOURS:
        raise Error(f"there is no colour {garment.colour!r}; colours are {', '.join(COLOURS)}")
    patterns = PATTERNS if slot in PATTERNED else PATTERNS[:1]
    if garment.pattern not in patterns:
        raise Error(f"{garment.kind} cannot be {garment.pattern!r}; patterns are {', '.join(patterns)}")
    lengths = SLOTS[slot][garment.kind]
    if garment.length not in lengths:
        raise Error(f"{garment.kind} cannot be {garment.length!r}; lengths are {lengths}")


def held_out(garment: Garment) -> bool:
    """Whether training never shows this (garment, colour, pattern): a tenth of all, chosen by a fixed hash."""
    return crc32(f"{garment.kind}/{garment.colour}/{garment.pattern}".encode()) % 10 == 0


HELD_OUT = frozenset(
    (kind, colour, pattern)
    for slot in PATTERNED
    for kind in SLOTS[slot]
    for colour in COLOURS
    for pattern in PATTERNS
    if held_out(Garment(kind, colour, pattern))
)


def random_garment(rng: np.random.Generator, slot: str, combinations: str = "any") -> Garment:
    """A garment for this slot; `combinations`: "any", "seen" (in training), or "heldout"."""
    kinds = tuple(SLOTS[slot])
    while True:
        kind = pick(rng, kinds)
        # A quarter of clothes are plain; shoes, hats and accessories always.
        plain = slot not in PATTERNED or rng.integers(100) < 24
        pattern = "plain" if plain else pick(rng, PATTERNS[1:])
        garment = Garment(kind, pick(rng, COLOURS), pattern, pick(rng, SLOTS[slot][kind]))
        if slot not in PATTERNED or combinations == "any" or held_out(garment) == (combinations == "heldout"):
            return garment


def random_outfit(rng: np.random.Generator, combinations: str = "any") -> Outfit:
    """A whole outfit."""
    onepiece = rng.integers(100) < 36
    slots = ["onepiece"] if onepiece else ["top", "bottom"]
    slots += [slot for slot, percent in (("shoes", 94), ("hat", 24), ("accessory", 30)) if rng.integers(100) < percent]
    return Outfit(**{slot: random_garment(rng, slot, combinations) for slot in slots})


def pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]
