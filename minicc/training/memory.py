"""What a run will need, said before it starts: weights, gradients, optimizer, activations."""

import copy
from dataclasses import dataclass
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minicc.training.draws import Draws


@dataclass(frozen=True)
class Estimate:
    """Bytes."""

    weights: int
    gradients: int
    optimizer: int  # AdamW: two numbers a trained weight; a quarter of it in 8 bit
    average: int
    activations: int  # kept for the backward pass
    copies: int = 0  # in half precision, of weights in float32 that the backward pass reads

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average + self.activations + self.copies

    def __str__(self) -> str:
        parts = {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer}
        parts |= {"average": self.average, "activations": self.activations, "copies in half precision": self.copies}
        listed = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items() if size)
        return f"needs about {self.total / 2**30:.1f} GB ({listed})"


def estimate(
    stage: nn.Module, batch: dict[str, Any], *, ema: bool = False, eight_bit: bool = False, half: bool = False
) -> Estimate:
    """Count what a step of the stage on this batch holds, without running it: on the meta device.

    half: mixed precision, which keeps activations in two bytes, and copies of weights. Working memory of single
    operations is not counted.
    """
    trained = sum(p.nbytes for p in stage.parameters() if p.requires_grad)
    kept, copies = saved_for_backward(stage, batch)
    return Estimate(
        weights=sum(p.nbytes for p in stage.parameters()),
        gradients=trained,
        optimizer=trained // 2 if eight_bit else 2 * trained,
        average=trained if ema else 0,
        activations=kept // 2 if half else kept,
        copies=copies if half else 0,
    )


def saved_for_backward(stage: nn.Module, batch: dict[str, Any]) -> tuple[int, int]:
    """Bytes that autograd keeps for the backward pass of one step, weights not counted; and what autocast's copies in
    two bytes of the float32 weights that it reads there would take: of matrices and kernels, not of vectors.
    """
    ghost = ghost_of(stage)
    pairs = zip(stage.parameters(), ghost.parameters(), strict=True)
    weights = {ghostly.untyped_storage()._cdata: p.dtype == torch.float32 and p.ndim > 1 for p, ghostly in pairs}
    kept: dict[int, torch.UntypedStorage] = {}  # the storages, not their sizes: one that is freed lends its number
    read: dict[int, int] = {}  # the same of weights: their bytes

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        elif weights[storage._cdata]:
            read[storage._cdata] = storage.nbytes()
        return tensor

    moved = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in batch.items()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), FusedAttention():
        ghost(moved, Draws.at(0, 0))
    return sum(storage.nbytes() for storage in kept.values()), sum(read.values()) // 2


def ghost_of(stage: nn.Module) -> nn.Module:
    """The stage without its numbers, in float32: nothing is copied, and autocast, which meta lacks, is not needed."""
    sd = getattr(stage, "sd", None)  # not all of its models are the stage's modules
    weights = [p for module in (stage, *([sd.vae, sd.text_encoder] if sd else [])) for p in module.parameters()]
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, dtype=torch.float32, device="meta"), p.requires_grad) for p in weights
    }
    return copy.deepcopy(stage, memo).to("meta", torch.float32)


class FusedAttention(TorchFunctionMode):
    """Attention as a GPU's kernels and the CPU's do it: what is kept is q, k, v and the output, but no N × M matrix.

    On the meta device PyTorch would take the plain formula, which keeps it: 2.5 GB of it in a phase-1 step of SD 1.5.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        fused = func is F.scaled_dot_product_attention and args[0].is_meta  # on real numbers attention runs as it is
        return Fused.apply(*args[:3]) if fused else func(*args, **kwargs or {})


class Fused(torch.autograd.Function):
    """softmax(q kᵀ/√d) v, without its numbers."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1]))  # the last: the log of the softmax's sum, a row
        return out


def available(device: torch.device) -> int:
    """Bytes that are free on the device, or in the machine; what PyTorch keeps there for later counts as free."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available
