"""What an attention looks at, computed once more and explicitly: for pictures, for figures, and to be taught.

A `Recording` context keeps the tokens that every attention was asked with; from them and the keys its probabilities are
two lines. The models are not touched.
"""

import torch
from torch import Tensor

from minicc.models.blocks import Attention, KeysValues, KeyValue, Recording, transformers
from minicc.models.controlnet import ControlNet


def probabilities(attention: Attention, x: Tensor, k: Tensor) -> Tensor:
    """softmax(q kᵀ/√d). x: tokens (B, N, C); k: (B, heads, M, d). Returns (B, heads, N, M)."""
    q = attention.split_heads(attention.to_q(x))
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)


def joint_probabilities(attention: Attention, x: Tensor, beside: KeyValue) -> Tensor:
    """Of tokens that see their own picture and a garment's M tokens beside it: (B, heads, N, N + M), own ones first."""
    own = attention.split_heads(attention.to_k(x))
    return probabilities(attention, x, torch.cat([own, beside[0].expand(len(x), -1, -1, -1)], dim=2))


def finest(control: ControlNet) -> list[Attention]:
    """The self-attentions of the copy's first level, whose tokens are the latent cells."""
    return [block.attn1 for block in transformers(control.down_blocks[0])]


def attended(control: ControlNet, recording: Recording, garment: KeysValues) -> tuple[Tensor, Tensor]:
    """The point of the garment's picture at which each latent cell looks, (B, N, 2), (x, y) in [0, 1], and the share of
    its attention that goes to the garment, (B, N); means over heads and layers of the first level.

    recording: the context of the character's pass; garment: what was seen of it, square.
    """
    each = []
    for attention in finest(control):
        p = joint_probabilities(attention, recording.tokens[attention], garment[attention])
        each.append(p[..., -garment[attention][0].shape[2] :].mean(1))  # (B, N, M)
    p = torch.stack(each).mean(0)
    side, share = round(p.shape[-1] ** 0.5), p.sum(-1)
    middles = (torch.arange(side, device=p.device) + 0.5) / side
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    cells = torch.stack([x.flatten(), y.flatten()], -1).to(p)  # (M, 2)
    return p @ cells / share[..., None].clamp(min=1e-9), share


def true_cells(where: Tensor, height: int, width: int) -> Tensor:
    """Which garment cells lie within one cell of each character cell's point: (B, N, height · width) bool.

    where: (B, h, w, 2), the point (x, y) of the garment's picture, in [0, 1], that each character cell shows; NaN where
    it shows none of it.
    """
    x = (torch.arange(width, device=where.device) + 0.5) / width
    y = (torch.arange(height, device=where.device) + 0.5) / height
    points = where.flatten(1, 2).float()  # (B, N, 2)
    near_x = (points[..., :1] - x).abs() <= 1 / width  # (B, N, width); NaN is never near
    near_y = (points[..., 1:] - y).abs() <= 1 / height
    return (near_y[..., :, None] & near_x[..., None, :]).flatten(2)


def mass_on_truth(
    control: ControlNet, recording: Recording, garment: KeysValues, where: Tensor
) -> tuple[Tensor, Tensor]:
    """The share of each latent cell's joint attention that lies within one cell of the true garment cell.

    recording: the context of the character's pass; garment: what was seen of it, square; where: (B, h, w, 2), see
    `true_cells`. Returns the mean over heads and layers of the first level, (B, N), and where it is defined, (B, N).
    """
    masses = []
    for attention in finest(control):
        p = joint_probabilities(attention, recording.tokens[attention], garment[attention])
        side = round(garment[attention][0].shape[2] ** 0.5)
        near = true_cells(where, side, side)
        masses.append((p[..., -side * side :] * near[:, None]).sum(-1).mean(1))  # (B, N)
    return torch.stack(masses).mean(0), near.any(-1)
