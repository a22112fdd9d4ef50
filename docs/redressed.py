"""Dolls redressed by the shipped phase-1 ControlNet: `python docs/redressed.py` writes docs/phase1.png.

The first six questions of `minicc evaluate phase1`, dolls and outfits that no training has seen, none of them chosen.
Rows: characters; the painted masks in magenta; results, 30 steps; what the sentences describe.
"""

from pathlib import Path

import torch

import minicc
from minicc.data.tensors import mask_tensor, to_tensor
from minicc.evaluation.base import pictures
from minicc.evaluation.swaps import swaps
from minicc.training.stages import MAGENTA, grid

sd, asked = minicc.load("tiny"), swaps(6, 0)
control = minicc.ControlNet.load("tiny-phase1", unet=sd.unet)
made = [
    minicc.phase1.generate(sd, control, q.character, q.mask, q.prompt, steps=30, seed=i) for i, q in enumerate(asked)
]
characters, truth = (pictures([getattr(q, when) for q in asked]) for when in ("before", "after"))
hidden = torch.where(torch.cat([mask_tensor(q.mask) for q in asked]) > 0.5, MAGENTA, characters)
results = torch.cat([to_tensor(one.image) for one in made])
grid([characters, hidden, results, truth]).save(Path(__file__).with_name("phase1.png"))
print(*(q.prompt for q in asked), sep="\n")
