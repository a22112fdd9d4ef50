"""From a file to a state dict: what it is told by its first bytes, never by its name.

Tensors are views of the memory-mapped file, each with a storage of its own (so one of them can be saved alone),
private to the process: training on them never writes to the file.
"""

import json
import mmap
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minicc.errors import WeightsError
from minicc.weights.layouts import State
from minicc.weights.unpickle import read_torch, view

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
MAX_HEADER = 100_000_000  # bytes, the format's own limit


class Mapped(dict[str, Tensor]):
    """A state dict that remembers the mapped files whose memory its tensors are."""

    def __init__(self, tensors: State, maps: list[mmap.mmap]):
        super().__init__(tensors)
        self.maps = maps


def release(state: State) -> None:
    """Let go of the file's pages read so far: they count as the process's memory; the next use reads them anew.

    For a state dict that nobody wrote into: what was written in place would be lost.
    """
    for data in getattr(state, "maps", []):
        if hasattr(mmap, "MADV_DONTNEED"):  # Linux
            data.madvise(mmap.MADV_DONTNEED)


def read_state_dict(path: str | Path) -> State:
    """The tensors of a .safetensors, .ckpt, .pth or .bin file, or of the shards that an index.json lists.

    Returns {name: tensor}, mapped, not read. Lightning's checkpoints: what is under `state_dict`.
    Raises WeightsError: not there, empty, a git-LFS pointer, a web page, truncated, damaged, a pickle that calls code.
    """
    path = Path(path)
    if path.name.endswith(".json"):
        return read_shards(path)
    if sniff(path) == "safetensors":
        return read_safetensors(path)
    content, data = read_torch(path)
    while isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise WeightsError(f"{path.name} holds a {type(content).__name__}, expected a state dict: names and tensors")
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path.name} holds no tensor by name (only {', '.join(map(str, [*content][:5]))})")
    return Mapped(tensors, [data])


def sniff(path: Path) -> str:
    """'safetensors' or 'torch', by the first bytes. Raises WeightsError for what a failed download leaves behind."""
    if path.is_dir():
        raise WeightsError(f"{path} is a folder, expected a file: give the weights inside it")
    if not path.is_file():
        raise WeightsError(f"{path} is not there: give the path of a weights file, a diffusers folder, or a hub id")
    with path.open("rb") as file:
        head = file.read(512)
    text = head.lstrip().lower()
    if not head:
        raise WeightsError(f"{path.name} is empty (0 bytes): the download failed, download it again")
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path.name} is a git-LFS pointer, not the weights: run `git lfs pull`, or download the file"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise WeightsError(
            f"{path.name} is a web page, not weights: the link wanted a login or a click; download the file"
        )
    if head[8:9] == b"{":  # after eight bytes of any value
        return "safetensors"
    if head.startswith((b"PK", *(bytes([0x80, protocol]) for protocol in range(2, 6)))):  # zip; pickle
        return "torch"
    if path.suffix == ".safetensors":
        return "safetensors"
    raise WeightsError(
        f"{path.name} is neither safetensors nor a torch file (it begins {head[:8]!r}): download it again"
    )


def read_safetensors(path: Path) -> State:
    """8 bytes: the header's length; the header: JSON, name → dtype, shape, byte range; then the bytes."""
    header, start = read_header(path)
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    try:
        tensors = {name: _tensor(data, start, info) for name, info in header.items() if name != "__metadata__"}
    except WeightsError as error:
        raise WeightsError(f"{path.name} is {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path.name}: its header is damaged ({error}). Download it again") from None
    return Mapped(tensors, [data])


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file, and where the tensors' bytes begin."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(9)
        length = int.from_bytes(head[:8], "little")
        if length > MAX_HEADER or head[8:] not in (b"", b"{"):
            raise WeightsError(
                f"{path.name} is no safetensors file (it begins {head!r}): expected the length of a header, then the "
                "header, which begins with {. If it was renamed, give it its own ending back; else download it again"
            )
        if size < 8 + length:
            raise WeightsError(
                f"{path.name} is truncated: {size:,} bytes, its header alone has {length:,}: download it again"
            )
        file.seek(8)
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"{path.name} is no safetensors file: its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{path.name} is no safetensors file: its header is a {type(header).__name__}")
    return header, 8 + length


def read_metadata(path: str | Path) -> dict[str, str]:
    """The notes in a safetensors header; {} for any other file."""
    path = Path(path)
    if not path.is_file() or path.name.endswith(".json") or sniff(path) != "safetensors":
        return {}
    notes = read_header(path)[0].get("__metadata__") or {}
    if not words_to_words(notes):
        raise WeightsError(f"{path.name}: its header's __metadata__ is {notes!r:.80}, expected words by name")
    return notes


def words_to_words(value: Any) -> bool:
    """Whether it is a dictionary of strings."""
    return isinstance(value, dict) and all(isinstance(word, str) for pair in value.items() for word in pair)


def read_shards(index: Path) -> State:
    """A model cut into several files: the index's weight_map says which key lies in which."""
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{index.name} is not an index of shards ({type(error).__name__}): download it again"
        ) from None
    if not words_to_words(weight_map):
        raise WeightsError(f"{index.name}: its weight_map does not name a file for each key: download it again")
    files = sorted(set(weight_map.values()))
    outside = [name for name in files if Path(name).name != name]
    if outside:
        raise WeightsError(f"{index.name} points outside its folder ({outside[0]}): refused")
    shards = {name: read_state_dict(index.parent / name) for name in files}
    lost = [key for key, name in weight_map.items() if key not in shards[name]]
    if lost:
        raise WeightsError(
            f"{index.name}: {len(lost)} keys are not in their shards, e.g. {lost[0]}: download them again"
        )
    maps = [data for shard in shards.values() for data in getattr(shard, "maps", [])]
    return Mapped({key: shards[name][key] for key, name in weight_map.items()}, maps)


def _tensor(data: mmap.mmap, start: int, info: dict[str, Any]) -> Tensor:
    dtype, shape, (begin, end) = DTYPES.get(info["dtype"]), info["shape"], info["data_offsets"]
    if dtype is None:
        raise WeightsError(f"of a number format that is not read here ({info['dtype']}): expected {', '.join(DTYPES)}")
    if begin < 0 or end - begin != prod(shape) * dtype.itemsize:
        raise ValueError(f"{end - begin} bytes for a tensor {shape}")
    return view(data, dtype, prod(shape), start + begin).reshape(shape)
