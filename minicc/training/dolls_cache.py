"""Paper dolls drawn once and kept: what the training stages read a thousand times."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from minicc.data import dolls, masks
from minicc.data.dolls import dataset
from minicc.data.dolls.facts import attributes, numbers
from minicc.data.dolls.wardrobe import CLASSES, PATTERNED, SLOTS
from minicc.data.masks import clothes_in
from minicc.data.samples import CLASSES as KINDS
from minicc.data.tensors import on_white
from minicc.errors import Error
from minicc.outfit.clothing import Clothes
from minicc.outfit.garment import placed
from minicc.outfit.reach import reaching_mask
from minicc.training.cache import digest_of, kept

Row = dict[str, np.ndarray | str]
Job = tuple[str, int, int]  # split, seed, size
CELL = 8  # pixels a latent cell
SHOES = 0.12  # of the dolls that wear shoes, the share whose `worn` is these


def draw_dolls(folder: Path, split: str, seeds: range, size: int = 128) -> dict[str, Tensor]:
    """image (N, 3, H, W), index (N, H, W), flat (N, 3, H, W), caption and outfit (N, L), all uint8, memory-mapped.

    image: on its background, white where transparent. index: the part mask. flat: one of its garments on white.
    caption, outfit: UTF-8, zero-padded; see `texts`. facts (N, F): `dolls.facts.numbers`.
    """
    return kept_dolls(folder / f"dolls-{split}-{named(seeds)}-{size}.safetensors", one, split, seeds, size)


def draw_others(folder: Path, split: str, seeds: range, size: int = 128) -> Tensor:
    """Where the clothes of a second, random outfit of the same dolls are: (N, H, W) uint8, 1 there."""
    return kept_dolls(folder / f"others-{split}-{named(seeds)}-{size}.safetensors", other, split, seeds, size)["other"]


def draw_worn(folder: Path, split: str, seeds: range, size: int = 128) -> dict[str, Tensor]:
    """One garment of each of the same dolls: flat (N, 3, H, W), alone on white; region (N, H, W), 1 where it is or
    where another one of its kind would be: what changes; reach (N, H, W), the automatic mask of that change, which also
    covers all of the body that the garment might; slot (N,): its class in the part mask.
    """
    return kept_dolls(folder / f"worn-{split}-{named(seeds)}-{size}.safetensors", worn, split, seeds, size)


def lone_garments(drawn: dict[str, Tensor], seeds: range) -> dict[str, Tensor]:
    """flat and slot, like those of `draw_worn`, of the garments in `draw_dolls` of these seeds: hats and shoes, too."""
    facts = (attributes(row) for row in drawn["facts"].numpy())
    worn = ([slot for slot in SLOTS if said[slot] != "none"] for said in facts)
    shown = [CLASSES[shown_slot(slots, seed)] for seed, slots in zip(seeds, worn, strict=True)]
    return {"flat": drawn["flat"], "slot": torch.tensor(shown, dtype=torch.uint8)}


def shown_slot(slots: Sequence[str], seed: int) -> str:
    """Which of the garments that the doll of this seed wears its `flat` shows."""
    return slots[seed % len(slots)]


def draw_where(folder: Path, split: str, seeds: range, size: int = 128) -> Tensor:
    """Which point of that garment's picture each latent cell of the same dolls shows: (N, h, w, 2) float16, (x, y) in
    parts of the side, NaN where it shows none of it.
    """
    return kept_dolls(folder / f"where-{split}-{named(seeds)}-{size}.safetensors", where, split, seeds, size)["where"]


def draw_points(folder: Path, split: str, seeds: range, size: int = 128) -> Tensor:
    """Which point of its garment each pixel of the same dolls shows: (N, H, W, 2) float16, (x, y) in parts of the
    garment's longer side (`Extent.parts`), NaN where it shows none.
    """
    path = folder / f"points-{split}-{named(seeds)}-{size}.safetensors"
    return kept_dolls(path, points, split, seeds, size)["points"]


def kept_dolls(path: Path, make: Callable[[Job], Row], split: str, seeds: range, size: int) -> dict[str, Tensor]:
    """What `make` says of the dolls of these seeds; drawn again if the code that draws dolls has changed."""
    code = set(Path(dolls.__file__).parent.glob("*.py")) - {Path(dataset.__file__)}  # which draws nothing
    digest = digest_of(split, seeds, size, *sorted(code | {Path(masks.__file__), Path(__file__)}))
    return kept(path, digest, lambda: stacked(drawn(make, [(split, seed, size) for seed in seeds])))


def named(seeds: range) -> str:
    """Their name in the cache: how many, or, where they do not begin at 0, from which to which."""
    return f"{len(seeds)}" if seeds.start == 0 else f"{seeds.start}-{seeds.stop}"


def drawn(make: Callable[[Job], Row], jobs: list[Job], workers: int = 2, chunk: int = 64) -> list[Row]:
    """All jobs, by several processes. Raises Error where those cannot start: in a script without a main guard."""
    if len(jobs) <= chunk:
        return [make(job) for job in jobs]
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=end_with_parent) as pool:
            rows = pool.map(make, jobs, chunksize=chunk)
            return list(tqdm(rows, total=len(jobs), desc=f"drawing dolls ({jobs[0][0]})"))
    except BrokenProcessPool as problem:
        raise Error(f'dolls could not be drawn ({problem}); scripts need `if __name__ == "__main__":`') from problem


def end_with_parent() -> None:
    """A worker's first act: from now on it ends when the process that began it does, even if that was killed."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def stacked(rows: list[Row]) -> dict[str, Tensor]:
    """Rows → one tensor a column. The rows are emptied on the way, or memory would hold everything twice."""
    columns = {}
    for name in list(rows[0]):
        values = [row.pop(name) for row in rows]
        text = isinstance(values[0], str)
        columns[name] = packed([str(v) for v in values]) if text else torch.from_numpy(np.stack(values))
    return columns


def one(job: Job) -> Row:
    """One doll's picture, part mask, a garment, texts and facts."""
    split, seed, size = job
    doll = dolls.draw(seed, size=size, split=split)
    flat = doll.flat(shown_slot(doll.slots, seed), background="white").resize((size, size)).convert("RGB")
    return {
        "image": channels_first(on_white(doll.image)),
        "index": doll.index,
        "flat": channels_first(flat),
        "caption": doll.caption,
        "outfit": doll.outfit_text,
        "facts": numbers(doll.attributes()),
    }


def other(job: Job) -> Row:
    """Where a doll's clothes are when it wears something else."""
    split, seed, size = job
    doll = dolls.draw(seed, size=size, split=split)
    combinations = "seen" if split == "train" else "any"
    index = doll.wearing(dolls.random_outfit(np.random.default_rng([doll.words, 3]), combinations)).index
    return {"other": clothes_in(index).astype(np.uint8)}


def worn(job: Job) -> Row:
    """A top, bottom, one-piece or the shoes of a doll, the pixels that change when another takes their place, and the
    automatic mask of this garment on the doll that wears the other, with these pixels.
    """
    split, seed, size = job
    doll = dolls.draw(seed, size=size, split=split)
    random, slot = chosen_slot(doll)
    changed = doll.wearing(changed_in(doll.outfit, slot, random, "seen" if split == "train" else "any"))
    region = np.any([np.isin(one.index, garment_classes(one.outfit, slot)) for one in (doll, changed)], axis=0)
    return {
        "flat": channels_first(doll.flat(slot).resize((size, size))),
        "region": region.astype(np.uint8),
        "reach": (region | reaching_mask(Clothes.certain(changed.index), [KINDS[CLASSES[slot]]])).astype(np.uint8),
        "slot": np.array(CLASSES[slot], np.uint8),
    }


def where(job: Job) -> Row:
    """The garment's points that the middles of latent cells show."""
    split, seed, size = job
    doll = dolls.draw(seed, size=size, split=split)
    points = doll.correspondence(chosen_slot(doll)[1])[CELL // 2 :: CELL, CELL // 2 :: CELL]
    return {"where": (points / size).astype(np.float16)}


def points(job: Job) -> Row:
    """The garments' points that all pixels show."""
    split, seed, size = job
    doll = dolls.draw(seed, size=size, split=split)
    shown = np.full((size, size, 2), np.nan, np.float16)
    for slot in (slot for slot in doll.slots if slot in (*PATTERNED, "shoes")):
        worn, extent = doll.index == CLASSES[slot], placed(doll.flat(slot), size).extent
        assert extent is not None  # of what is drawn, no edge cuts anything off
        shown[worn] = extent.parts(doll.correspondence(slot))[worn]
    return {"points": shown}


def chosen_slot(doll: dolls.Doll) -> tuple[np.random.Generator, str]:
    """Which of its garments a doll's `worn` shows, and the draws that follow."""
    random = np.random.default_rng([doll.words, 4])
    on_feet = random.random() < SHOES and "shoes" in doll.slots
    return random, "shoes" if on_feet else str(random.choice([slot for slot in doll.slots if slot in PATTERNED]))


def changed_in(outfit: dolls.Outfit, slot: str, random: np.random.Generator, combinations: str) -> dolls.Outfit:
    """The outfit with another garment in this slot; a one-piece is half of the time changed for a top and a bottom."""
    if slot == "onepiece" and random.random() < 0.5:
        two = {name: dolls.random_garment(random, name, combinations) for name in ("top", "bottom")}
        return replace(outfit, onepiece=None, **two)
    return replace(outfit, **{slot: dolls.random_garment(random, slot, combinations)})


def garment_classes(outfit: dolls.Outfit, slot: str) -> list[int]:
    """The classes of the part mask that are this slot's, or that stand in a one-piece's place."""
    names = [slot] if slot != "onepiece" else ["onepiece", "top", "bottom"]
    return [CLASSES[name] for name in names if getattr(outfit, name) is not None]


def channels_first(picture: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def packed(sentences: Sequence[str]) -> Tensor:
    """Sentences as UTF-8 bytes, zero-padded to the longest: (N, L) uint8."""
    rows = [np.frombuffer(sentence.encode(), np.uint8) for sentence in sentences]
    matrix = np.zeros((len(rows), max(map(len, rows))), np.uint8)
    for target, row in zip(matrix, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(matrix)


def texts(matrix: Tensor) -> list[str]:
    """The sentences that were packed."""
    return [bytes(row).rstrip(b"\0").decode() for row in matrix.numpy()]
