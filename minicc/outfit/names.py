"""What a garment is called: one layer reads it off all that the locked models see in its picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SURE = 0.8  # the least probability of a name that counts


@dataclass(frozen=True)
class Name:
    """Of a garment, in words that the text encoder knows."""

    words: str  # "a short dress": kind and length, neither colour nor pattern
    kind: str  # which of the clothes' classes it is


class Names(nn.Module):
    """The means of all feature maps → logits: of none of the names, as of a whole outfit, and of each."""

    def __init__(self, channels: int, known: Sequence[Sequence[str]]):
        """channels: of all maps together. known: words and class of each name."""
        super().__init__()
        self.known = [Name(*one) for one in known]
        self.read = nn.Linear(channels, 1 + len(self.known))

    def forward(self, means: Tensor) -> Tensor:
        """means: (B, channels), of `pooled`. Returns (B, 1 + names)."""
        return self.read(means)

    def likeliest(self, means: Tensor) -> Name | None:
        """Of one garment, (1, channels); None if no name is likely enough."""
        probability, number = self(means).softmax(1)[0].max(0)
        return self.known[int(number) - 1] if number > 0 and probability >= SURE else None


def pooled(maps: Sequence[Tensor]) -> Tensor:
    """Feature maps (B, C_i, h_i, w_i) → the mean of every channel, (B, ΣC_i)."""
    return torch.cat([m.mean((2, 3)) for m in maps], 1)
