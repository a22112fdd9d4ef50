"""Dolls redressed by the shipped phase-1 ControlNet: `python docs/redressed.py` writes docs/phase1.png.

The first six questions of `minicc evaluate phase1`, dolls and outfits that no training has seen, none of them chosen.
Rows: characters; the painted masks in magenta; results, 30 steps; what the sentences describe.
"""

from pathlib import Path

import torch
from PIL import Image

import minicc
from minicc.data.tensors import mask_tensor, to_tensor
from minicc.evaluation.swaps import swaps
from minicc.training.stages import MAGENTA, grid


def tensors(pictures: list[Image.Image]) -> torch.Tensor:
    """(n, 3, 128, 128) in [-1, 1]."""
    return torch.cat([to_tensor(picture) for picture in pictures])


sd, asked = minicc.load("tiny"), swaps(6, 0)
control = minicc.ControlNet.load("tiny-phase1", unet=sd.unet)
made = [
    minicc.phase1.generate(sd, control, q.character, q.mask, q.prompt, steps=30, seed=i) for i, q in enumerate(asked)
]
characters, masks = tensors([q.character for q in asked]), torch.cat([mask_tensor(q.mask) for q in asked])
hidden = torch.where(masks > 0.5, MAGENTA, characters)
truth = tensors([q.truth for q in asked])
grid([characters, hidden, tensors([m.image for m in made]), truth]).save(Path(__file__).with_name("phase1.png"))
print(*(q.prompt for q in asked), sep="\n")
