"""How a trainable copy sees a garment: by self-attention inside the copy, and by layers added to the locked decoder.

The garment's picture goes through the same copy as the character. Its keys and values at every self-attention are taken
along, and the character's tokens see them beside their own; convolutions and normalisation never mix the two. Virtual
try-on calls this a reference network (Xu et al. 2024, OOTDiffusion, arXiv 2403.01779); here the ControlNet is its own.
What the copy makes of the garment may also be seen from the locked decoder, by `Added` layers that start at zero: see
`models.garment_ways.Decoder`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minicc.errors import Error
from minicc.models.blocks import Attention, KeysValues, KeyValue, Recording, keys_values, transformers
from minicc.models.controlnet import ControlNet


def see(control: ControlNet, garment: Tensor, empty: Tensor) -> KeysValues:
    """What a character's tokens may look at in a garment, for every self-attention of the copy.

    garment: scaled latents of its picture, (B, 4, h, w); empty: the empty sentence's context, (1 or B, 77, D). The
    garment attends to itself alone, at t = 0, without a hint: nothing here changes from step to step, so a sampler
    computes it once. Join the result to the text's: `keys_values(control, context) | see(control, garment, empty)`.
    """
    return see_deeply(control, garment, empty)[0]


def see_deeply(control: ControlNet, garment: Tensor, empty: Tensor) -> tuple[KeysValues, list[Tensor]]:
    """As `see`; also the skips of the garment's pass, shallow to deep."""
    recording = Recording(keys_values(control, empty.expand(len(garment), -1, -1)))
    t = torch.zeros(len(garment), dtype=torch.long, device=garment.device)
    _, skips = control.encode(garment, control.embed_time(t), recording)
    own = [block.attn1 for block in transformers(control)]
    return {attention: attention.keys_values(recording.tokens[attention]) for attention in own}, skips


class Added(Attention):
    """Z(softmax(q kᵀ/√d) v): cross-attention to a garment whose last projection Z starts at zero.

    So a locked model to which it is added does what it did (Kim et al. 2023, StableVITON, arXiv 2312.01725).
    """

    def __init__(self, channels: int, heads: int):
        super().__init__(channels, heads)
        self.norm = nn.LayerNorm(channels)
        for parameter in self.to_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Any = None, beside: KeyValue | None = None) -> Tensor:
        """context: the garment's features of this level, (1 or B, M, C)."""
        return super().forward(self.norm(x), context.expand(len(x), -1, -1))


@dataclass(frozen=True)
class Seen:
    """An added layer and what it sees of a garment: what a block of the locked decoder finds under its name."""

    layer: nn.Module
    features: Tensor  # (1 or B, M, C)

    def __call__(self, x: Tensor) -> Tensor:
        return self.layer(x, self.features)


def together(*garments: KeysValues) -> KeysValues:
    """Several garments at once: a whole outfit. Raises Error for none, or if different copies saw them."""
    if not garments or any(garment.keys() != garments[0].keys() for garment in garments):
        raise Error("garments of different copies, or none: expected one or more, all seen by the same ControlNet")
    if len(garments) == 1:
        return garments[0]
    return {module: side_by_side([garment[module] for garment in garments]) for module in garments[0]}


def side_by_side(seen: Sequence[Any]) -> Any:
    """What one module sees of several garments → the tokens of all."""
    first = seen[0]
    if isinstance(first, Seen):
        return Seen(first.layer, torch.cat([each.features for each in seen], dim=1))
    if isinstance(first, tuple):
        return tuple(torch.cat(part, dim=2) for part in zip(*seen, strict=True))
    raise Error("this ControlNet sees a garment in another way than by attention alone: give it one at a time")
