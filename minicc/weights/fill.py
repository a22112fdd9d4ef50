"""Putting a state dict into a module: every key accounted for, every number looked at, no memory used twice."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from minicc.errors import WeightsError
from minicc.weights.layouts import State

M = TypeVar("M", bound=nn.Module)
SHOWN = 10
PIECE = 256 * 2**20  # bytes converted between two releases of the mapped file


def keep() -> None:
    """Let go of nothing: where no number is copied, the file's pages are the model's."""


def copies(state: State, device: torch.device | str | None, dtype: torch.dtype) -> bool:
    """Whether the module gets other memory than the file's."""
    return torch.device(device or "cpu").type != "cpu" or any(v.dtype != dtype for v in state.values())


def build(
    make: Callable[[], M],
    state: State,
    name: str,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    release: Callable[[], None] = keep,
    look: bool = True,
) -> M:
    """A module without memory (the meta device), then filled with `state`, strictly; in evaluation mode.

    make: makes the module. name: what to call the weights in an error. device: None is the CPU. dtype: None is the
    widest that the state has; where neither changes, the module's parameters *are* the given tensors. release: called
    now and then when numbers were copied, to let go of the file's pages. look: False trusts the numbers unseen.
    Raises WeightsError: all missing, unexpected and mis-shaped keys in one, the first ten named; or a NaN or infinity.
    """
    dtype = dtype or widest(state)
    copied = copies(state, device, dtype)
    with numbers_looked_at(state if look and not copied else {}, name) as check_numbers:  # while the module is made
        with torch.device("meta"):
            module = make()
        check_keys({key: list(value.shape) for key, value in module.state_dict().items()}, state, name)
        check_numbers()
    items = looked_at(state, name) if look and copied else state.items()
    ours = placed(items, device, dtype, release if copied else keep)
    module.load_state_dict(ours, strict=True, assign=True)
    for path, buffer in module.named_buffers():
        if buffer.is_meta:  # transformers' one buffer, which is in no file
            _give_back_position_ids(module, path, buffer, device)
    return module.eval()


def placed(
    items: Iterable[tuple[str, Tensor]],
    device: torch.device | str | None,
    dtype: torch.dtype,
    release: Callable[[], None] = keep,
) -> State:
    """Every tensor on the device and in the dtype; the pages of the file that were copied are let go piece by piece."""
    done, copied = {}, 0
    for key, value in items:
        done[key] = place(value, device, dtype)
        copied += value.nbytes if done[key].data_ptr() != value.data_ptr() else 0
        if copied > PIECE:
            release()
            copied = 0
    release()
    return done


def looked_at(state: State, name: str) -> Iterator[tuple[str, Tensor]]:
    """Its tensors, each looked at just before it is copied, so that the file is read once."""
    for key, value in state.items():
        if value.is_floating_point() and value.numel() and not is_finite(value):
            raise not_finite(name, key, value)
        yield key, value


def check_keys(expected: dict[str, list[int]], state: State, name: str) -> None:
    """Raise WeightsError unless `state` has exactly the expected keys and shapes."""
    missing = [f"missing {key} {expected[key]}" for key in expected if key not in state]
    unexpected = [f"unexpected {key} {list(state[key].shape)}" for key in state if key not in expected]
    misshaped = [
        f"{key} is {list(state[key].shape)}, expected {shape}"
        for key, shape in expected.items()
        if key in state and list(state[key].shape) != shape
    ]
    wrong = missing + misshaped + unexpected
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise WeightsError(
            f"{name}: of {len(expected)} keys {len(missing)} are missing and {len(misshaped)} of another shape, "
            f"{len(unexpected)} more are unexpected: {'; '.join(wrong[:SHOWN])}{more}. "
            "The file is incomplete, or of another model: take a complete one, or the config that belongs to it"
        )


@contextmanager
def numbers_looked_at(state: State, name: str) -> Iterator[Callable[[], None]]:
    """Look at every number in the background, in the file's order: what is mapped is read from front to back.

    Gives a function that waits for the end, and raises WeightsError at a NaN or an infinity, naming the key.
    """
    floats = [(key, value) for key, value in state.items() if value.is_floating_point() and value.numel()]
    floats.sort(key=lambda item: item[1].data_ptr())
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    looks = [pool.submit(is_finite, value) for _, value in floats]

    def check() -> None:
        for (key, value), done in zip(floats, looks, strict=True):
            if not done.result():
                raise not_finite(name, key, value)

    try:
        yield check
    finally:
        pool.shutdown(cancel_futures=True)


def not_finite(name: str, key: str, value: Tensor) -> WeightsError:
    bad = int((~torch.isfinite(value)).sum())
    return WeightsError(
        f"{name}: {key} holds {bad} values of {value.numel()} that are NaN or infinite: the training broke, or the "
        "conversion to half precision overflowed. Take another version of the file"
    )


def is_finite(value: Tensor) -> bool:
    """Whether all numbers are: a NaN or an infinity passes through a sum, which reads a third faster than a look.

    A sum that overflows says nothing; then the extremes are found.
    """
    return math.isfinite(value.sum()) or all(math.isfinite(extreme) for extreme in torch.aminmax(value))


def widest(state: State) -> torch.dtype:
    """The widest floating dtype in it: half-precision files with a few float32 norms become float32 throughout."""
    found = {value.dtype for value in state.values() if value.is_floating_point()}
    return max(found, key=lambda dtype: (dtype.itemsize, str(dtype)), default=torch.float32)


def place(value: Tensor, device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
    """On the device and in the dtype; with a storage of its own, so that it can be saved alone."""
    moved = value.detach().to(device=device or "cpu", dtype=dtype if value.is_floating_point() else value.dtype)
    whole = moved.is_contiguous() and moved.untyped_storage().nbytes() == moved.nbytes
    return moved if whole else moved.clone(memory_format=torch.contiguous_format)


def _give_back_position_ids(module: nn.Module, path: str, buffer: Tensor, device: torch.device | str | None) -> None:
    """0 … L−1, (1, L): made anew, because the meta device made none."""
    parent, _, name = path.rpartition(".")
    if name != "position_ids":
        raise WeightsError(f"buffer {path} {list(buffer.shape)} of {type(module).__name__} is in no file: unknown")
    ids = torch.arange(buffer.shape[-1], device=device or "cpu").expand(buffer.shape).clone()
    module.get_submodule(parent).register_buffer(name, ids, persistent=False)
