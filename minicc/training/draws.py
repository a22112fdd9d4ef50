"""Randomness without a state: every number of a run is a function of (seed, position), so resuming is exact."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


def rng(*key: int) -> np.random.Generator:
    """A numpy generator for a key of integers ≥ 0."""
    return np.random.default_rng(key)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one (micro-)step.

    They are drawn for the batch of all processes, and each process takes its rows: two processes with half the batch
    see what one process sees.
    """

    generator: torch.Generator
    rank: int = 0
    world: int = 1

    @classmethod
    def at(cls, seed: int, position: int, rank: int = 0, world: int = 1) -> "Draws":
        """Of the position-th batch of a run."""
        key = int(rng(seed, position, 1).integers(2**63))
        return cls(torch.Generator().manual_seed(key), rank, world)

    def _share(self, full: Tensor) -> Tensor:
        return full.chunk(self.world)[self.rank]

    def randn_like(self, x: Tensor) -> Tensor:
        """Normal, of x's shape, dtype and device."""
        full = torch.randn((self.world * len(x), *x.shape[1:]), generator=self.generator)
        return self._share(full).to(x)

    def once(self) -> float:
        """One number in [0, 1) for the whole batch, the same in every process."""
        return torch.rand((), generator=self.generator).item()

    def rand(self, batch: int) -> Tensor:
        """Uniform in [0, 1), (batch,), on the CPU."""
        return self._share(torch.rand(self.world * batch, generator=self.generator))

    def randint(self, high: int, batch: int) -> Tensor:
        """Integers in [0, high), (batch,), on the CPU."""
        return self._share(torch.randint(high, (self.world * batch,), generator=self.generator))


class Order(Sampler[list[tuple[int, int]]]):
    """Which samples make up each batch of this process: lists of (index, position), from batch `start` to `stop`.

    Every epoch is a permutation of its own. `position` numbers the samples of a run: it seeds a sample's augmentation.
    """

    def __init__(self, length: int, batch: int, seed: int, start: int, stop: int, rank: int = 0, world: int = 1):
        self.length, self.batch, self.seed = length, batch, seed
        self.start, self.stop, self.rank, self.world = start, stop, rank, world

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.stop):
            first = (step * self.world + self.rank) * self.batch
            yield [(self.index(position), position) for position in range(first, first + self.batch)]

    def index(self, position: int) -> int:
        """The sample at a position of the run."""
        epoch, within = divmod(position, self.length)
        return int(permutation(self.seed, epoch, self.length)[within])


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return rng(seed, epoch, 2).permutation(length)
