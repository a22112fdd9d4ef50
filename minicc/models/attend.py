"""softmax(q kᵀ/√d) v by PyTorch's fused kernel, asked on a CPU in the ways in which it is fast."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LANES = 16  # numbers that the kernel takes at once; a rest it takes one by one
NARROW = 32  # channels a head: below, its backward pass in half precision takes two to ten times that in float32
QUERIES = 64  # with fewer, there is nothing to win


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q: (B, heads, N, d), k, v: (B, heads, M, d). Returns (B, heads, N, d)."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    learning = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    if learning and q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] <= NARROW:
        return checkpoint(whole, q, k, v, use_reentrant=False, preserve_rng_state=False)
    return even(q, k, v)


def whole(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """In float32 and back. Checkpointed, so that what is kept for the backward pass is what came, in half precision."""
    with torch.autocast("cpu", enabled=False):
        return even(q.float(), k.float(), v.float()).to(q.dtype)


def even(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Keys are padded to a multiple of 16 and the added ones masked: a text's 77 would cost twice what 80 do."""
    spare = -k.shape[2] % LANES
    if not spare or q.shape[2] < QUERIES:
        return F.scaled_dot_product_attention(q, k, v)
    mask = q.new_zeros(1, 1, 1, k.shape[2] + spare)
    mask[..., k.shape[2] :] = -math.inf
    k, v = (F.pad(x, (0, 0, 0, spare)) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
