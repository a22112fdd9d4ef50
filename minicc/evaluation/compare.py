"""Two ways of computing the same, side by side: seconds in turns, and the peak of memory."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own lines would stand between the table's


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


HEADER = (
    "| | minicc, s | diffusers, s | ratio | goal | minicc, MiB | diffusers, MiB | ratio | goal | met |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def compare(
    what: str, ours: Callable[[], Any], theirs: Callable[[], Any], goal: float, rounds: int = 5,
    memory_goal: float = 1.0, held: tuple[int, int] = (0, 0),
) -> Row:  # fmt: skip
    """Time both in turns, `rounds` times each, so that whatever else the machine does falls on both.

    A first round does not count; in the next, memory is measured and time is not. held: bytes of each side to be added
    to its peak, such as weights and optimizer.
    """
    ours(), theirs()
    peaks = [peak(run) + more for run, more in zip((ours, theirs), held, strict=True)]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side, run in zip(times, (ours, theirs), strict=True):
            side.append(seconds(run))
    ours_s, theirs_s = map(statistics.median, times)
    return Row(what, ours_s, theirs_s, goal, peaks[0], peaks[1], memory_goal)


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


def peak(run: Callable[[], Any]) -> int:
    """Bytes that a run holds at its worst moment, beyond what was held before it.

    CUDA's allocator counts them itself; on a CPU the profiler lists every allocation and release of PyTorch's.
    """
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        wait()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most
