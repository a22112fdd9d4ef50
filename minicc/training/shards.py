"""Data in shards, through WebDataset: tar files read one after the other, for what fits neither memory nor one disk.

Here too the order is a function of (seed, position): every epoch shuffles the shards, and the samples within each. So a
run resumes exactly, and it reads nothing that lies before the place where it goes on.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from itertools import count
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate

from minicc.errors import Error
from minicc.training.draws import rng

Sample = dict[str, Any]
INDEX = "shards.json"
ADDRESS = re.compile(r"https?://[\w.:/~%-]+")


def webdataset() -> Any:
    try:
        import webdataset
    except ImportError as missing:
        raise Error("data in shards needs webdataset: pip install webdataset") from missing
    return webdataset


def write_shards(samples: Iterable[dict[str, Tensor]], folder: Path, size: int = 1000) -> Path:
    """folder/000000.tar …, `size` samples each, and the list of them, shards.json. Returns the folder.

    samples: tensors by name. A few thousand small samples make a shard of the hundred megabytes that networks like.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    with webdataset().ShardWriter(f"{folder}/%06d.tar", maxcount=size, verbose=0) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"{number:09d}", "safetensors": save(sample)})
            name = f"{number // size:06d}.tar"
            counts[name] = counts.get(name, 0) + 1
    (folder / INDEX).write_text(json.dumps(counts), "utf-8")
    return folder


class Shards(IterableDataset):
    """A stream of batches from shards; each process reads its own shards, one at a time.

    prepare: (sample, position) → sample, what is to be fresh at every visit, such as a mask.
    """

    def __init__(self, source: str | Path, seed: int = 0, prepare: Callable[[Sample, int], Sample] | None = None):
        """source: a folder of `write_shards`, or its https address. Raises Error if it is none."""
        self.source, self.seed, self.prepare = plain(source), seed, prepare
        self.counts = read_index(self.source)
        self.first, self.batch, self.rank, self.world = 0, 1, 0, 1

    def starting(self, first: int, batch: int, rank: int = 0, world: int = 1) -> "Shards":
        """The stream of one process of several, from its first-th batch on."""
        if world > len(self.counts):
            raise Error(f"{world} processes share {len(self.counts)} shards: each needs one, write smaller shards")
        stream = copy(self)
        stream.first, stream.batch, stream.rank, stream.world = first, batch, rank, world
        return stream

    def __iter__(self) -> Iterator[Sample]:
        samples = self.samples(self.first * self.batch)
        while True:
            yield default_collate([next(samples) for _ in range(self.batch)])

    def samples(self, position: int) -> Iterator[Sample]:
        """This process's samples, endlessly, from a position on; shards before it are not opened."""
        place = 0
        for epoch in count():
            names = sorted(self.counts)
            for shard in rng(self.seed, epoch, 4).permutation(len(names))[self.rank :: self.world]:
                length = self.counts[names[shard]]
                if place + length > position:
                    raw = self.read(names[shard])
                    order = rng(self.seed, epoch, int(shard), 5).permutation(length)
                    for index in order[max(0, position - place) :]:
                        yield self.decoded(raw[index], position * self.world + self.rank)
                        position += 1
                place += length

    def read(self, name: str) -> list[dict[str, Any]]:
        """A whole shard, undecoded. Raises Error if it is damaged or has not as many samples as the list says."""
        w = webdataset()
        try:
            found = list(
                w.WebDataset(f"{self.source}/{name}", shardshuffle=False, nodesplitter=None, empty_check=False)
            )
        except Exception as problem:
            raise Error(f"{self.source}/{name} could not be read ({problem}): write the shards again") from problem
        if len(found) != self.counts[name]:
            raise Error(
                f"{self.source}/{name} has {len(found)} samples, {INDEX} says {self.counts[name]}: write it again"
            )
        return found

    def decoded(self, raw: dict[str, Any], position: int) -> Sample:
        try:
            sample: Sample = load(raw["safetensors"]) | {"name": raw["__key__"]}
        except (SafetensorError, KeyError) as problem:
            raise Error(f"{self.source}: sample {raw.get('__key__')} is damaged ({problem})") from problem
        return self.prepare(sample, position) if self.prepare else sample


def plain(source: str | Path) -> str:
    """The absolute path of a folder, or an address; nothing else, for WebDataset runs "pipe:…" as a command."""
    if ADDRESS.fullmatch(str(source)):
        return str(source).rstrip("/")
    if not Path(source).is_dir():
        raise Error(f"{source}: expected a folder of shards or an https address")
    return str(Path(source).resolve())


def read_index(source: str) -> dict[str, int]:
    """{shard's name: how many samples it has}; names that would lead out of the folder are refused."""
    try:
        with webdataset().gopen(f"{source}/{INDEX}", "rb") as file:
            counts = json.loads(file.read())
        if not counts or not all(len(Path(k).parts) == 1 and type(n) is int and n > 0 for k, n in counts.items()):
            raise ValueError("expected {name of a tar file: samples in it}")
    except (OSError, ValueError, TypeError, AttributeError) as problem:
        raise Error(f"{source}/{INDEX} is missing or damaged ({problem}): `write_shards` makes such a folder") from None
    return dict(counts)
