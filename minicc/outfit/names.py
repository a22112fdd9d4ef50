"""What a garment is called: one layer reads it off all that the locked models see in its picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SURE = 0.8  # the least probability of a name that counts
SPAN = 200  # dimensions of the plane in which the pictures of the training lie, nearly
EACH = 40  # so many pictures give one dimension, up to SPAN
USUAL = 0.99  # of these pictures, outfits among them, the share that is no further from it than a garment with a name


@dataclass(frozen=True)
class Name:
    """Of a garment, in words that the text encoder knows."""

    words: str  # "a short dress": kind and length, neither colour nor pattern
    kind: str  # which of the clothes' classes it is


class Names(nn.Module):
    """The means of all feature maps → logits: of none of the names, as of a whole outfit, and of each.

    A layer is sure of things that it has never seen, too. So a garment's means are compared with their projection onto
    the first principal components of the training's pictures: what is not like these lies beside their plane and has no
    name (novelty detection by reconstruction error).
    """

    mean: Tensor  # (channels,), of the pictures in the training
    plane: Tensor  # (SPAN, channels), orthonormal; zeros in the place of what few pictures do not tell
    farthest: Tensor  # (): the distance from it, of a channel on average, beyond which nothing has a name

    def __init__(self, channels: int, known: Sequence[Sequence[str]]):
        """channels: of all maps together. known: words and class of each name."""
        super().__init__()
        self.known = [Name(*one) for one in known]
        self.read = nn.Linear(channels, 1 + len(self.known))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("plane", torch.zeros(SPAN, channels))
        self.register_buffer("farthest", torch.tensor(torch.inf))

    def forward(self, means: Tensor) -> Tensor:
        """means: (B, channels), of `pooled`. Returns (B, 1 + names)."""
        return self.read(means)

    @torch.no_grad()
    def measure(self, means: Tensor) -> None:
        """Take plane and distances from the means of many pictures, (N, channels).

        In a plane of as many dimensions as there are pictures all of them would lie, and no other one.
        """
        means = means.to(self.mean)
        self.mean.copy_(means.mean(0))
        plane = torch.linalg.svd(means - self.mean, full_matrices=False).Vh[: min(SPAN, len(means) // EACH)]
        self.plane.zero_()[: len(plane)] = plane
        self.farthest.copy_(self.distance(means).quantile(USUAL))

    def distance(self, means: Tensor) -> Tensor:
        """From the plane, (B,): the root of the mean square over the channels."""
        off = means - self.mean
        return (off - off @ self.plane.T @ self.plane).square().mean(1).sqrt()

    def likeliest(self, means: Tensor) -> Name | None:
        """Of one garment, (1, channels); None if no name is likely enough, or it is unlike those that have one."""
        probability, number = self(means).softmax(1)[0].max(0)
        known = number > 0 and probability >= SURE and self.distance(means)[0] <= self.farthest
        return self.known[int(number) - 1] if known else None


def pooled(maps: Sequence[Tensor]) -> Tensor:
    """Feature maps (B, C_i, h_i, w_i) → the mean of every channel, (B, ΣC_i)."""
    return torch.cat([m.mean((2, 3)) for m in maps], 1)
