"""Paper dolls drawn once and kept: what the training stages read a thousand times."""

from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from minicc.data import dolls
from minicc.data.dolls.facts import numbers
from minicc.data.tensors import on_white
from minicc.training.cache import digest_of, kept


def draw_dolls(folder: Path, split: str, count: int, size: int = 128, workers: int = 2) -> dict[str, Tensor]:
    """image (N, 3, H, W), index (N, H, W), flat (N, 3, H, W), caption and outfit (N, L), all uint8, memory-mapped.

    image: on its background, white where transparent. index: the part mask. flat: one of its garments on white.
    caption, outfit: UTF-8, zero-padded; see `texts`. facts (N, F): `dolls.facts.numbers`.
    """
    digest = digest_of(split, count, size, *sorted(Path(dolls.__file__).parent.glob("*.py")))
    return kept(
        folder / f"dolls-{split}-{count}-{size}.safetensors", digest, lambda: drawn(split, count, size, workers)
    )


def drawn(split: str, count: int, size: int, workers: int) -> dict[str, Tensor]:
    """All dolls of seeds 0 … count − 1, by several processes."""
    jobs = [(split, seed, size) for seed in range(count)]
    with get_context("spawn").Pool(workers) as pool:
        rows = list(tqdm(pool.imap(one, jobs, chunksize=64), total=count, desc=f"drawing dolls ({split})"))
    images, indices, flats, captions, outfits, known = zip(*rows, strict=True)
    return {
        "image": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        "index": torch.from_numpy(np.stack(indices)),
        "flat": torch.from_numpy(np.stack(flats)).permute(0, 3, 1, 2).contiguous(),
        "caption": packed(captions),
        "outfit": packed(outfits),
        "facts": torch.from_numpy(np.stack(known)),
    }


def one(job: tuple[str, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, str, str, np.ndarray]:
    """One doll's picture, part mask, a garment, texts and facts."""
    split, seed, size = job
    doll = dolls.draw(seed, size=size, split=split)
    slot = doll.slots[seed % len(doll.slots)]
    flat = doll.flat(slot, background="white").resize((size, size))
    pictures = np.asarray(on_white(doll.image)), doll.index, np.asarray(flat.convert("RGB"))
    return *pictures, doll.caption, doll.outfit_text, numbers(doll.attributes())


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
