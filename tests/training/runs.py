"""What a run left behind, and whether two runs are the same."""

import csv
from pathlib import Path

import torch
from safetensors.torch import load_file

from minicc.training import checkpoint


def losses(out: Path) -> list[float]:
    with (out / "curves.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def final(out: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.checkpoints(out)[-1])


def assert_same_run(a: Path, b: Path) -> None:
    """Bit-identical weights, averages and optimizer, and the same loss at every step."""
    one, other = final(a), final(b)
    assert one.keys() == other.keys()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []
    assert losses(a) == losses(b)
