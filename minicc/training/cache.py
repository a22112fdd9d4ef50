"""What is computed once and kept on disk: drawn dolls, latents. A cache of other things is noticed and remade."""

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from glob import escape
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minicc.training.checkpoint import write_atomically, writing

FORGOTTEN = 3600  # seconds: a draft that nobody has written to for so long is of a process that was killed


def kept(path: Path, digest: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a cache file, memory-mapped; computed by `make` and written first if the file is not there.

    digest: of everything that they depend on. A file with another digest, or a damaged one, is replaced, with a word.
    """
    found = read(path, digest)
    if found is None:
        tensors = make()
        with writing(path, "--cache"):
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path)
            write_atomically(path, tensors, {"digest": digest})
        found = read(path, digest)
    assert found is not None
    return found


def sweep(path: Path) -> None:
    """Delete the drafts of this file that killed processes left in `write_atomically`: each may be as large as it."""
    for draft in path.parent.glob(f"{escape(path.name)}.*.tmp"):
        with suppress(OSError):  # another process may be sweeping, too
            if time.time() - draft.stat().st_mtime > FORGOTTEN:
                draft.unlink()


def read(path: Path, digest: str) -> dict[str, Tensor] | None:
    """The tensors if the file is there, whole, and of this digest."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if file.metadata()["digest"] == digest:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        print(f"{path} is stale (made from other pictures or another model): computing it again")
    except (SafetensorError, KeyError, TypeError) as problem:
        print(f"{path} is damaged ({problem}): computing it again")
    return None


def digest_of(*parts: object) -> str:
    """One hash of modules (all their weights), tensors, paths (what the files hold) and anything with a fixed repr."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            for name, tensor in part.state_dict().items():
                total.update(name.encode())
                total.update(as_bytes(tensor))
        elif isinstance(part, Path):
            total.update(part.read_bytes())
        else:
            total.update(as_bytes(part) if isinstance(part, Tensor) else repr(part).encode())
        total.update(b"|")
    return total.hexdigest()


def as_bytes(tensor: Tensor) -> memoryview:
    """A tensor's numbers as they lie in memory, not copied."""
    flat = tensor.detach().cpu().contiguous().flatten()  # a 1 × 1 kernel laid out channels-last has no last stride of 1
    return flat.view(torch.uint8).numpy().data
