"""How a trainable copy sees a garment: by self-attention inside the copy, and by nothing else.

The garment's picture goes through the same copy as the character. Its keys and values at every self-attention are taken
along, and the character's tokens see them beside their own; convolutions and normalisation never mix the two. Virtual
try-on calls this a reference network (Xu et al. 2024, OOTDiffusion, arXiv 2403.01779); here the ControlNet is its own.
"""

import torch
from torch import Tensor

from minicc.errors import Error
from minicc.models.blocks import Attention, KeysValues, Recording, keys_values, transformers
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


def together(*garments: KeysValues) -> KeysValues:
    """Several garments at once: a whole outfit. Raises Error for none, or if different copies saw them."""
    if not garments or any(garment.keys() != garments[0].keys() for garment in garments):
        raise Error("garments of different copies, or none: expected one or more, all seen by the same ControlNet")
    first = garments[0]
    if len(garments) == 1:
        return first
    if not all(isinstance(module, Attention) for module in first):
        raise Error("this ControlNet sees a garment in another way than by attention alone: give it one at a time")
    return {a: (torch.cat([g[a][0] for g in garments], 2), torch.cat([g[a][1] for g in garments], 2)) for a in first}
