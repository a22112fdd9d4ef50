"""What every sampler shares: the Step it yields, the last of them, and how noise and timesteps are made."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from minicc.errors import Error

Model = Callable[[Tensor, Tensor], Tensor]  # (x (B, …), t (B,) long) -> ε, v or x_0 (B, …), as schedule.prediction says


class Step(NamedTuple):
    """One step of a sampler: the model was asked at timestep t, took x_0 for the picture, and x is where that led."""

    t: int
    x: Tensor  # (B, …), after the step
    x_0: Tensor  # (B, …), the prediction x̂₀
    s: int  # the noise level of x; below 0: the end


def last(steps: Iterable[Step]) -> Step:
    """Run a sampler to its end and return its last step. Raises Error if there was none."""
    step = None
    for step in steps:  # noqa: B007
        pass
    if step is None:
        raise Error("the sampler made no step: ask for steps=1 or more")
    return step


def timestep(x: Tensor, t: int) -> Tensor:
    """t for every picture of x (B, …), as the model wants it: (B,) long on x's device."""
    return torch.full((x.shape[0],), t, dtype=torch.long, device=x.device)


def generator_of(seed: int) -> torch.Generator:
    """A generator on the CPU: a seed is one picture on every device. Raises Error for a seed of more than 64 bits."""
    if not -(2**63) <= seed < 2**64:
        raise Error(f"seed={seed}: expected a whole number of 64 bits, such as 0")
    return torch.Generator().manual_seed(seed)


def draw(x: Tensor, generator: torch.Generator | None, why: str) -> Tensor:
    """Normal noise like x, drawn in float32 on the generator's device: a CPU seed gives one picture on every machine.

    Raises Error without a generator; why names what draws.
    """
    if generator is None:
        raise Error(f"{why} draws noise at every step: pass generator=torch.Generator().manual_seed(…)")
    return torch.randn(x.shape, generator=generator, device=generator.device).to(x)
