"""Memory that runs out is an error like others: it says when, and what helps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from minicc.errors import Error

NO_MEMORY = ("out of memory", "allocate memory", "_alloc_failed")  # CUDA's and MPS's words, the CPU's, cuBLAS's


@contextmanager
def advice_on_memory(when: str, advice: str) -> Iterator[None]:
    """Running out of memory, as CUDA, MPS and the CPU put it, becomes an Error that names the options that help."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as problem:
        words = str(problem).lower()
        if isinstance(problem, RuntimeError) and not any(sign in words for sign in NO_MEMORY):
            raise
        raise Error(f"out of memory {when}: {advice}") from problem
