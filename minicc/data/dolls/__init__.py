"""Paper dolls: cartoon characters drawn from a seed, with layers, masks, captions and outfit pairs known exactly."""

from minicc.data.dolls.dataset import DollDataset, contact_sheet, export
from minicc.data.dolls.doll import OPTIONS, Character, Doll
from minicc.data.dolls.draw import SPLITS, draw
from minicc.data.dolls.facts import CLOTHES, FACTS
from minicc.data.dolls.wardrobe import (
    COLOURS,
    HELD_OUT,
    PATTERNS,
    SLOTS,
    Garment,
    Outfit,
    random_garment,
    random_outfit,
)

__all__ = [
    "CLOTHES",
    "COLOURS",
    "FACTS",
    "HELD_OUT",
    "OPTIONS",
    "PATTERNS",
    "SLOTS",
    "SPLITS",
    "Character",
    "Doll",
    "DollDataset",
    "Garment",
    "Outfit",
    "contact_sheet",
    "draw",
    "export",
    "random_garment",
    "random_outfit",
]
