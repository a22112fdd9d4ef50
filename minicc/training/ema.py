"""The moving average of the weights, which samples better than the weights themselves."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """w̄ ← d w̄ + (1 − d) w after every step, with d = min(decay, (1 + n) / (10 + n)) while n steps are few.

    decay 0: no average is kept, and the weights stand for it.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.module, self.decay = module, decay
        self.average: dict[str, Tensor] = {}
        if decay:
            self.average = {k: v.detach().clone().float() for k, v in module.named_parameters()}
            self.average["count"] = torch.zeros((), dtype=torch.long)

    @torch.no_grad()
    def update(self) -> None:
        if not self.decay:
            return
        n = int(self.average["count"].add_(1))
        weights = dict(self.module.named_parameters())
        names = list(weights)
        d = min(self.decay, (1 + n) / (10 + n))
        torch._foreach_lerp_([self.average[k] for k in names], [weights[k].float() for k in names], 1 - d)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put a saved average back."""
        if self.decay:
            for key, value in self.average.items():
                value.copy_(tensors[key])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the module has the averaged weights."""
        if not self.decay:
            yield
            return
        kept = {k: v.detach().clone() for k, v in self.module.named_parameters()}
        self.put(self.average)
        try:
            yield
        finally:
            self.put(kept)

    def finish(self) -> None:
        """Leave the averaged weights in the module."""
        if self.decay:
            self.put(self.average)

    @torch.no_grad()
    def put(self, tensors: dict[str, Tensor]) -> None:
        """Overwrite the module's parameters."""
        for name, p in self.module.named_parameters():
            p.copy_(tensors[name])
