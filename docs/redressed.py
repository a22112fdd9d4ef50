"""Dolls redressed by the shipped ControlNets: `python docs/redressed.py` writes docs/phase1.png and docs/phase2.png.

The first six questions of `minicc evaluate phase1` and of `minicc evaluate phase2`: dolls, outfits and garments that no
training has seen, none of them chosen; 30 steps. Rows of phase 1: characters, painted masks in magenta, results, what
the sentences describe. Rows of phase 2: characters, garments, the masks found and narrowed, results, the truth.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import minicc
from minicc.data.tensors import mask_tensor, to_tensors
from minicc.evaluation.swaps import swaps
from minicc.evaluation.wears import wears
from minicc.training.stages import MAGENTA, grid

N, STEPS = 6, 30
HERE = Path(__file__).parent


def hidden(characters: Tensor, masks: Iterable[Image.Image]) -> Tensor:
    """Characters with their masks in magenta."""
    return torch.where(torch.cat([mask_tensor(np.asarray(mask) > 0) for mask in masks]) > 0, MAGENTA, characters)


sd, detector = minicc.load("tiny"), minicc.ClothingDetector.load("tiny")
phase1, phase2 = (minicc.ControlNet.load(name, unet=sd.unet) for name in ("tiny-phase1", "tiny-phase2"))

asked = swaps(N, 0)
made = [
    minicc.phase1.generate(sd, phase1, q.character, q.mask, q.prompt, steps=STEPS, seed=i) for i, q in enumerate(asked)
]
characters = to_tensors(q.character for q in asked)
rows = [
    characters,
    hidden(characters, (m.mask for m in made)),
    to_tensors(m.image for m in made),
    to_tensors(q.truth for q in asked),
]
grid(rows).save(HERE / "phase1.png")
print(*(q.prompt for q in asked), sep="\n")

given = wears(N, 0)
made = [
    minicc.phase2.generate(sd, phase2, q.character, q.garment, detector=detector, steps=STEPS, seed=i)
    for i, q in enumerate(given)
]
characters = to_tensors(q.character for q in given)
rows = [characters, to_tensors(q.garment for q in given), hidden(characters, (m.mask for m in made))]
grid([*rows, to_tensors(m.image for m in made), to_tensors(q.truth for q in given)]).save(HERE / "phase2.png")
print(*(f"ΔE {m.colour_error:.0f}; {m.notes[0]}" for m in made), sep="\n")
