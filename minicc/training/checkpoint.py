"""Checkpoints that survive: written whole or not at all, the last K and the best kept, a damaged one passed over.

One safetensors file a checkpoint: weights, average, optimizer. No random state is in it: see draws.py.
"""

import json
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minicc.atomic import replacing
from minicc.errors import Error

NAME = re.compile(r"step-(\d{8})\.safetensors")
# Drafts of ours, and what safetensors writes first.
STALE = re.compile(r"(step-\d{8}\.safetensors|curves\.csv|valid\.csv|sheet-\d{8}\.png)\.\d+\.tmp|\.tmp\w{6}")


def save(folder: Path, step: int, tensors: dict[str, Tensor], notes: dict[str, Any], keep: int = 2) -> Path:
    """Write folder/step-NNNNNNNN.safetensors; then delete all before it but the last `keep` and the best.

    notes: what else is to be known; the best checkpoint is the one whose "valid" is lowest. Atomic: a temporary file,
    fsync, rename, fsync of the folder. Raises Error if the disk is full or the folder read-only; what was there stays.
    """
    path = folder / f"step-{step:08d}.safetensors"
    header = {"step": str(step), "notes": json.dumps(notes)}
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, {k: v.detach().contiguous() for k, v in tensors.items()}, header)
        so_far = [one for one in checkpoints(folder) if one <= path]  # later ones were found damaged
        good = [one for one in so_far if whole(one)]
        for old in set(so_far) - set(good[-keep:]) - {best(folder)}:
            old.unlink()
    return path


@contextmanager
def writing(path: Path, option: str = "--out") -> Iterator[None]:
    """Within the block a full disk or a read-only folder becomes an Error that says so. option: that names it."""
    try:
        yield
    except (OSError, SafetensorError) as problem:
        raise Error(f"{path} could not be written ({problem}): free disk space or choose another {option}") from problem


def write_atomically(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file that is either whole or not there, even if the power fails."""
    with replacing(path) as draft:
        save_file(tensors, draft, metadata=metadata)
        sync(draft)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make the operating system write a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*.safetensors") if NAME.fullmatch(path.name))


def best(folder: Path) -> Path | None:
    """The checkpoint with the lowest validation loss; None if none was measured."""
    measured = [(score, path) for path in checkpoints(folder) if math.isfinite(score := validation_loss(path))]
    return min(measured)[1] if measured else None


def validation_loss(path: Path) -> float:
    """What a checkpoint's notes say; ∞ if they say nothing or cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return float(json.loads(file.metadata()["notes"])["valid"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        return math.inf


def latest(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """(step, tensors, notes) of the newest checkpoint that can be read; None if there is none.

    A damaged one (cut short, not a safetensors file) is passed over with a warning that names it.
    """
    for path in reversed(checkpoints(folder)):
        try:
            return read(path)
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as problem:  # TypeError: no metadata
            left = [one for one in checkpoints(folder) if one < path]
            then = "falling back to the one before" if left else "none is left, the run begins anew"
            warnings.warn(f"{path.name} is damaged ({problem}): {then}", stacklevel=2)
    return None


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole, by its header and length; None if there is none."""
    return next((path for path in reversed(checkpoints(folder)) if whole(path)), None)


def whole(path: Path) -> bool:
    """Whether its header can be read and the file is as long as that says."""
    try:
        with safe_open(path, framework="pt") as file:
            return "step" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def clear_away(folder: Path) -> None:
    """Delete what a run that was killed had begun to write; no other process may be writing there. Raises Error."""
    with writing(folder):
        for path in folder.glob("*tmp*"):
            if STALE.fullmatch(path.name):
                path.unlink(missing_ok=True)


def read(path: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    return int(metadata["step"]), tensors, json.loads(metadata["notes"])


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": value for key, value in tensors.items()}


def without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those that have the prefix, with it taken off."""
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as flat tensors: `index.name`; none shares its memory, as 8-bit Adam's tables do."""
    tensors, taken = dict[str, Tensor](), set[int]()
    for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        for name, value in optimizer.state.get(p, {}).items():
            tensor = torch.as_tensor(value)
            tensors[f"{i}.{name}"] = tensor.clone() if tensor.data_ptr() in taken else tensor
            taken.add(tensor.data_ptr())
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put a state from optimizer_tensors back. Raises ValueError or IndexError if it is of other parameters.

    Each tensor is laid out in memory as its parameter, channels-last or not: AdamW's fused kernel goes through both as
    they lie.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        p = parameters[int(index)]
        if name in ("exp_avg", "momentum", "mean") and value.shape != p.shape:
            raise ValueError(f"the optimizer's state {index} is {value.shape}, not {p.shape}")
        if value.shape == p.shape:
            value = torch.empty_like(p, dtype=value.dtype).copy_(value)
        elif value.ndim:  # 8-bit Adam's tables
            value = value.to(p.device)
        counts = value.ndim == 0 and not value.is_floating_point()  # 8-bit Adam's steps
        state.setdefault(int(index), {})[name] = value.item() if counts else value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
