"""Dolls for others: a PyTorch dataset, a contact sheet, a folder on disk."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from minicc.data.dolls.captions import phrase
from minicc.data.dolls.doll import Doll
from minicc.data.dolls.draw import draw
from minicc.data.dolls.wardrobe import CLASSES, random_garment
from minicc.data.masks import clothes_in
from minicc.data.samples import CLASSES as SAMPLE_CLASSES
from minicc.data.tensors import on_white, to_tensor
from minicc.errors import Error

COLOURS = (
    (255, 255, 255), (220, 50, 50), (50, 90, 220), (230, 160, 40), (110, 70, 50), (150, 60, 190), (70, 60, 80),
    (250, 210, 180),
)  # fmt: skip
"""What an index mask's classes are shown in."""
LIP = np.array([0, 5, 9, 6, 18, 1, 2, 13], np.uint8)  # an index mask's classes as LIP numbers them
Row = dict[str, str]


class DollDataset(Dataset):
    """Dolls of seeds seed … seed + length − 1: image, mask of the clothes, index, caption, outfit_text, name.

    image: (3, size, size) in [-1, 1], transparent parts white; mask: (1, size, size) of 0 and 1; index: (size, size).
    split, combinations: as in `draw`.
    """

    def __init__(self, split: str, length: int, size: int = 128, seed: int = 0, combinations: str | None = None):
        self.split, self.length, self.size, self.seed, self.combinations = split, length, size, seed, combinations

    def __len__(self) -> int:
        return self.length

    def doll(self, i: int) -> Doll:
        """The i-th doll itself."""
        if not 0 <= i < self.length:
            raise IndexError(f"doll {i} of {self.length}")
        return draw(self.seed + i, size=self.size, split=self.split, combinations=self.combinations)

    def __getitem__(self, i: int) -> dict[str, Any]:
        doll = self.doll(i)
        index = torch.from_numpy(doll.index)
        return {
            "image": to_tensor(on_white(doll.image))[0],
            "mask": clothes_in(index).float()[None],
            "index": index,
            "caption": doll.caption,
            "outfit_text": doll.outfit_text,
            "name": f"{self.split} doll {self.seed + i}",
        }


def contact_sheet(dolls: Sequence[Doll], columns: int = 8) -> Image.Image:
    """Dolls in rows on white, RGB; of any sizes, each cell as large as the largest."""
    side = max(doll.size for doll in dolls)
    columns = min(columns, len(dolls))
    sheet = Image.new("RGB", (columns * side, -(-len(dolls) // columns) * side), "white")
    for i, doll in enumerate(dolls):
        sheet.paste(doll.image, (i % columns * side, i // columns * side), doll.image)
    return sheet


def export(folder: str | Path, dolls: Iterable[Doll], layout: str = "imagefolder", combinations: str = "seen") -> Path:
    """Write dolls as a folder that `data.folder` reads; returns it.

    layout: "imagefolder" (Hugging Face's: metadata.jsonl with `file_name`, `mask_file_name`, `text`: what is worn, and
    `caption`: all of it), "pairs" (each doll also in another, random top or one-piece, both of these alone), "layers"
    (a sub-folder a doll, one transparent PNG a layer) or "viton" (VITON-HD's: image/, cloth/, image-parse-v3/).
    combinations: of (garment, colour, pattern), what the other garments may have; "seen" keeps them fit for training.
    Raises Error for another layout, and for a folder that is not empty.
    """
    if layout not in LAYOUTS:
        raise Error(f"there is no layout {layout!r}; expected one of {', '.join(LAYOUTS)}")
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise Error(f"{root} is not empty: name a new folder, so that old and new dolls do not mix")
    for i, doll in enumerate(dolls):
        if row := LAYOUTS[layout](root, f"{i:06}", doll, combinations):
            # Once its files are whole, so that a folder that was broken off can be read.
            with (root / "metadata.jsonl").open("a", encoding="utf-8", newline="\n") as table:
                table.write(json.dumps(row, ensure_ascii=False) + "\n")
    return root


def single(root: Path, name: str, doll: Doll, combinations: str) -> Row:
    """One doll's files and its row."""
    return {
        "file_name": saved(root, f"images/{name}.png", doll.image),
        "mask_file_name": saved(root, f"images/{name}-mask.png", clothes(doll.index)),
        "text": doll.outfit_text,
        "caption": doll.caption,
    }


def pair(root: Path, name: str, doll: Doll, combinations: str) -> Row:
    """A doll in its own and in another top or one-piece: files and row."""
    random, slot = np.random.default_rng([doll.words, 3]), main_slot(doll)
    other = doll.wearing(replace(doll.outfit, **{slot: random_garment(random, slot, combinations)}))
    number = CLASSES[slot]
    changed = (np.asarray(doll.image) != np.asarray(other.image)).any(-1)
    edges = changed & (doll.index != number) & (other.index != number)  # shared with what is beside it
    row: Row = {"changed": SAMPLE_CLASSES[number]}
    for letter, one in (("a", doll), ("b", other)):
        mask = clothes(np.where(edges, number, one.index))
        row |= {
            f"person_{letter}": saved(root, f"images/{name}-{letter}.png", on_white(one.image)),
            f"mask_{letter}": saved(root, f"images/{name}-{letter}-mask.png", mask),
            f"garment_{letter}": saved(root, f"images/{name}-{letter}-garment.png", one.flat(slot)),
            f"garment_{letter}_text": phrase(random, one.worn(slot)),
            f"caption_{letter}": one.caption,
            f"outfit_{letter}": one.outfit_text,
        }
    return row


def in_layers(root: Path, name: str, doll: Doll, combinations: str) -> Row:
    """A sub-folder with the doll's layers and its caption."""
    for layer, picture in doll.layers.items():
        saved(root, f"{name}/{layer}.png", picture)
    (root / name / "caption.txt").write_text(doll.caption, "utf-8")
    return {}


def in_viton(root: Path, name: str, doll: Doll, combinations: str) -> Row:
    """The doll, its main garment, its caption, its part mask in LIP's numbers: skin is face, accessories hats."""
    saved(root, f"image/{name}.png", on_white(doll.image))
    saved(root, f"cloth/{name}.png", doll.flat(main_slot(doll)))
    saved(root, f"image-parse-v3/{name}.png", Image.fromarray(LIP[doll.index]))
    (root / "caption").mkdir(exist_ok=True)
    (root / "caption" / f"{name}.txt").write_text(doll.caption, "utf-8")
    return {}


LAYOUTS: dict[str, Callable[[Path, str, Doll, str], Row]] = {
    "imagefolder": single, "pairs": pair, "layers": in_layers, "viton": in_viton,
}  # fmt: skip


def main_slot(doll: Doll) -> str:
    return next(slot for slot in doll.slots if slot in ("onepiece", "top"))


def clothes(index: np.ndarray) -> Image.Image:
    """A part mask's classes 1 … 5 as a palette picture."""
    mask = Image.fromarray(np.where(index < 6, index, 0).astype(np.uint8), "P")
    mask.putpalette([channel for colour in COLOURS for channel in colour])
    return mask


def saved(root: Path, name: str, picture: Image.Image) -> str:
    """Write the picture into the folder; returns its name there."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    picture.save(root / name)
    return name
