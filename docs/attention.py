"""Where the shipped phase 2 looks in a garment: `python docs/attention.py` writes docs/attention.png.

The first six questions of `minicc evaluate phase2`. Rows: the doll as it ought to become, and one worn latent cell, the
nearest to the middle, in green; the garment's picture, in green which point of it that cell truly shows; the copy's
attention from that cell to the garment (t = 400, mean over heads and the first level's layers), the brighter the more.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import minicc
from minicc.data.tensors import to_tensors
from minicc.evaluation.phase2 import looking
from minicc.evaluation.wears import wears
from minicc.models.attention_maps import finest, joint_probabilities
from minicc.outfit.garment import garment_picture
from minicc.training.stages import grid

N = 6
GREEN = torch.tensor([-1.0, 1.0, -1.0]).view(3, 1, 1)


def framed(picture: Tensor, row: int, column: int, stride: int) -> Tensor:
    """(3, H, W) with one latent cell's border in green."""
    edge = torch.zeros(picture.shape[-2:], dtype=torch.bool)
    edge[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride] = True
    edge[row * stride + 1 : (row + 1) * stride - 1, column * stride + 1 : (column + 1) * stride - 1] = False
    return torch.where(edge, GREEN, picture)


sd = minicc.load("tiny", device="cpu")
control, stride = minicc.ControlNet.load("tiny-phase2", unet=sd.unet), sd.vae.stride
rows: list[list[Tensor]] = [[], [], []]
for one in wears(N, 0):
    recording, garment, where = looking(sd, control, one)
    points, side = where[0], where.shape[-2]
    worn = points.isfinite().all(-1).nonzero()
    row, column = worn[(worn.float() - worn.float().mean(0)).square().sum(1).argmin()].tolist()
    x, y = (min(side - 1, int(side * value)) for value in points[row, column])
    looks = torch.stack(
        [joint_probabilities(a, recording.tokens[a], garment[a])[0, :, row * side + column] for a in finest(control)]
    )
    heat = looks.mean((0, 1))[-side * side :].view(1, 1, side, side)  # of the garment's cells
    shown = F.interpolate(heat / heat.max(), scale_factor=stride, mode="nearest")[0]
    truth, laid = to_tensors([one.truth, garment_picture(one.garment, sd.side)])
    rows[0].append(framed(truth, row, column, stride))
    rows[1].append(framed(laid, y, x, stride))
    rows[2].append((0.25 * (laid + 1) + 1.5 * shown).clamp(0, 2) - 1)
grid([torch.stack(pictures) for pictures in rows]).save(Path(__file__).parent / "attention.png")
