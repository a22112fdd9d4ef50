"""Two ways of computing the same, side by side: seconds in turns, and the peak of memory."""

import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own lines would stand between the table's


Parts = dict[str, float]  # kind of operation → seconds


@dataclass(frozen=True)
class Row:
    """One comparison; goals are ratios."""

    what: str
    ours: float  # seconds, median
    theirs: float
    goal: float
    our_peak: int = 0  # bytes beyond what was held before
    their_peak: int = 0
    memory_goal: float = 1.0
    parts: tuple[Parts, Parts] = field(default_factory=lambda: ({}, {}))  # ours, theirs: where the time goes

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def memory_ratio(self) -> float:
        return self.our_peak / self.their_peak if self.their_peak else float("nan")

    @property
    def met(self) -> bool:
        """Whether both goals are reached, as printed: to two digits."""
        return round(self.ratio, 2) <= self.goal and not round(self.memory_ratio, 2) > self.memory_goal

    def __str__(self) -> str:
        times = f"{self.ours:.3f} | {self.theirs:.3f} | {self.ratio:.2f} | ≤ {self.goal:.2f}"
        peaks = " | ".join(f"{peak / 2**20:.0f}" for peak in (self.our_peak, self.their_peak))
        memory = f"{peaks} | {self.memory_ratio:.2f} | ≤ {self.memory_goal:.2f}"
        return f"| {self.what} | {times} | {memory} | {'yes' if self.met else 'NO'} |"

    @property
    def profile(self) -> str:
        """Two lines: what each side spends on each kind of operation, in milliseconds."""
        lines = []
        for side, spent in zip(("first", "second"), self.parts, strict=True):
            columns = (f"{1000 * spent.get(kind, 0):.0f}" for kind in (*KINDS, REST))
            lines.append(f"| {self.what}, {side} | {' | '.join(columns)} |")
        return "\n".join(lines)


KINDS = {  # by words of PyTorch's names for its operations; the first that fits
    "convolutions": ("conv",),
    "attention": ("attention",),
    "matrix products": ("mm", "linear", "matmul"),
    "normalisation": ("norm",),
    "optimizer": ("adam", "_foreach", "lerp", "addcdiv", "addcmul", "sqrt"),
    "copies": ("copy", "cat", "clone"),
    "pointwise": ("silu", "gelu", "add", "mul", "div", "sub", "mse", "fill", "zero"),
}
REST = "the rest"
PROFILE = f"| | {' | '.join((*KINDS, REST))} |\n|---|{'---|' * (len(KINDS) + 1)}"
HEADER = (
    "| | minicc, s | diffusers, s | ratio | goal | minicc, MiB | diffusers, MiB | ratio | goal | met |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def compare(
    what: str, ours: Callable[[], Any], theirs: Callable[[], Any], goal: float, rounds: int = 5,
    memory_goal: float = 1.0, held: tuple[int, int] = (0, 0),
) -> Row:  # fmt: skip
    """Time both in turns, `rounds` times each, so that whatever else the machine does falls on both.

    A first round does not count; in the next, memory is measured and time is not: of runs of less than a second the
    shortest of three tells what the time goes into. held: bytes of each side to be added to its peak, such as weights
    and optimizer.
    """
    looks = 3 if max(seconds(ours), seconds(theirs)) < 1 else 1
    watched = [(watch(ours), watch(theirs)) for _ in range(looks)]
    (our_peak, our_parts), (their_peak, their_parts) = map(shortest, zip(*watched, strict=True))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side, run in zip(times, (ours, theirs), strict=True):
            side.append(seconds(run))
    ours_s, theirs_s = map(statistics.median, times)
    peaks = our_peak + held[0], their_peak + held[1]
    return Row(what, ours_s, theirs_s, goal, *peaks, memory_goal, (our_parts, their_parts))


def seconds(run: Callable[[], Any]) -> float:
    """How long a run takes; a GPU's queue is waited for."""
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def watch(run: Callable[[], Any]) -> tuple[int, Parts]:
    """Bytes that a run holds at its worst moment, beyond what was held before it; and what its time goes into.

    CUDA's allocator counts the bytes itself; on a CPU the profiler lists every allocation and release of PyTorch's.
    """
    cuda = torch.cuda.is_available() and torch.cuda.memory_allocated() > 0  # the models lie there
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    if cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    with profile(activities=activities, profile_memory=not cuda) as seen:
        run()
        wait()
    # An operation's time on the device is its kernels'; these stand in the list as well, under names of their own.
    operations = [e for e in seen.key_averages() if e.device_type == DeviceType.CPU and not e.is_user_annotation]
    spent = by_kind((e.key, e.self_device_time_total if cuda else e.self_cpu_time_total) for e in operations)
    return (torch.cuda.max_memory_allocated() - before if cuda else most_held(seen)), spent


def shortest(looks: Iterable[tuple[int, Parts]]) -> tuple[int, Parts]:
    """Of several looks of `watch` at the same run the one with the least time."""
    return min(looks, key=lambda look: sum(look[1].values()))


def most_held(seen: Any) -> int:
    """The most bytes at once of all that was allocated and released while the profiler looked."""
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def by_kind(operations: Iterable[tuple[str, float]]) -> Parts:
    """(PyTorch's name, microseconds) of operations → seconds of each kind."""
    spent: Parts = dict.fromkeys((*KINDS, REST), 0.0)
    for name, microseconds in operations:
        fits = (kind for kind, words in KINDS.items() if any(word in name.lower() for word in words))
        spent[next(fits, REST)] += microseconds / 1e6
    return spent
