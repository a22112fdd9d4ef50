"""Putting a state dict into a module: every key accounted for, numbers looked at, no memory used twice."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from minicc.errors import Error, WeightsError
from minicc.weights.layouts import State

M = TypeVar("M", bound=nn.Module)
SHOWN = 10
FIRST = 2**16  # numbers of a mapped tensor that are looked at before it is used: a broken training breaks them all
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
    look: bool = False,
) -> M:
    """A module without memory (the meta device), then filled with `state`, strictly; in evaluation mode.

    make: makes the module. name: what to call the weights in an error. device: None is the CPU. dtype: None is the
    widest that the state has; where neither changes, the module's parameters *are* the given tensors. release: called
    now and then when numbers were copied, to let go of the file's pages. look: at every number, for NaN and infinity;
    else at all that are copied, and of mapped tensors at the first, as reading all would take longer than the loading
    (`finite` names the others when a StableDiffusion or the detector uses them).
    Raises WeightsError: all missing, unexpected and mis-shaped keys in one, the first ten named; or a NaN or infinity.
    """
    dtype = dtype or widest(state)
    copied = copies(state, device, dtype)
    with torch.device("meta"):
        module = make()
    check_keys({key: list(value.shape) for key, value in module.state_dict().items()}, state, name)
    items = looked_at(state, name, None if look or copied else FIRST)
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


def looked_at(state: State, name: str, first: int | None = None) -> Iterator[tuple[str, Tensor]]:
    """Its tensors; all numbers of each, or the first, are looked at just before it is copied: the file is read once."""
    for key, value in state.items():
        if value.is_floating_point() and not is_finite(value.flatten()[:first]):
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


def finite(x: Tensor, *made_by: nn.Module) -> Tensor:
    """x, if all its numbers are finite. Else raises WeightsError with the key of a bad weight of those that made it.

    Where all weights are good, it is Error: what came in was broken, or a number overflowed, as in half precision.
    """
    if is_finite(x.detach()):
        return x
    for module in made_by:
        for _ in looked_at(module.state_dict(), type(module).__name__):
            pass
    advice = ": load the model in float32 or bfloat16" if x.dtype == torch.float16 else ""
    raise Error(
        f"{' or '.join(type(module).__name__ for module in made_by)} gave NaN or infinity, and its weights are good: "
        f"the input was not finite already, or a number grew beyond {str(x.dtype).removeprefix('torch.')}{advice}"
    )


def not_finite(name: str, key: str, value: Tensor) -> WeightsError:
    bad = int((~torch.isfinite(value)).sum())
    return WeightsError(
        f"{name}: {key} holds {bad} values of {value.numel()} that are NaN or infinite: the training broke, or the "
        "conversion to half precision overflowed. Take another version of the file"
    )


def is_finite(value: Tensor) -> bool:
    """Whether all numbers are: a NaN or an infinity passes through a sum, which reads a third faster than a look.

    A sum that overflows says nothing; then the extremes are found. Where there are no numbers, none is bad.
    """
    if value.is_meta or not value.numel():
        return True
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
