"""Muon: momentum whose update is made orthogonal, for the weight matrices; AdamW for everything else.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon); the scale by which both share one learning rate is from Liu et
al. 2025 (arXiv 2502.16982, section 2.2). torch.optim.Muon takes matrices only; here a convolution's kernel is one too:
(out, in · height · width).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from minicc.training.precision import emulates_bfloat16

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that pushes singular values in (0, 1] towards 1
OUTER = (
    "conv_in",
    "conv_out",
    "quant_conv",
    "post_quant_conv",
)  # first and last layers: AdamW, as Muon's authors advise


class Muon(torch.optim.Optimizer):
    """For a weight matrix W (rows, columns) with gradient G:

        M ← μ M + (1 − μ) G,   W ← (1 − lr · decay) W − lr · 0.2 √max(rows, columns) · orthogonal((1 − μ) G + μ M)

    The mean square of such an update is that of AdamW's. Biases, norms, embeddings and the outer layers take AdamW.
    """

    def __init__(
        self, module: nn.Module, lr: float = 1e-3, weight_decay: float = 0.01, momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ):  # fmt: skip
        """module: whose parameters that require a gradient are to learn."""
        matrices = {id(weight) for weight in hidden_matrices(module)}
        trained = [p for p in module.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if (id(p) in matrices) == orthogonal], "orthogonal": orthogonal}
            for orthogonal in (True, False)
        ]
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step for every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                direction = self.orthogonal if group["orthogonal"] else self.adam
                update = direction(p, p.grad, group)
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * update)

    def orthogonal(self, p: Tensor, G: Tensor, group: dict[str, Any]) -> Tensor:
        """Muon's direction for one matrix or kernel p with gradient G."""
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        M = state["momentum"]
        M.lerp_(G, 1 - group["momentum"])
        G = torch.lerp(G, M, group["momentum"]).flatten(1)  # (rows, columns): Nesterov's look ahead
        return (0.2 * math.sqrt(max(G.shape)) * orthogonal(G)).view_as(p)

    def adam(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> Tensor:
        """AdamW's direction for a vector p with gradient g (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2)."""
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            state |= {"step": torch.zeros(()), "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
        state["step"] += 1
        state["mean"].lerp_(g, 1 - beta1)
        state["square"].lerp_(g.square(), 1 - beta2)
        t = state["step"].item()
        return state["mean"] / (1 - beta1**t) / ((state["square"] / (1 - beta2**t)).sqrt() + 1e-8)


def hidden_matrices(module: nn.Module) -> Iterator[Tensor]:
    """Weights of linear layers and convolutions, but of the first and last ones."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and name.rpartition(".")[2] not in OUTER:
            yield layer.weight


def orthogonal(G: Tensor, steps: int = 5) -> Tensor:
    """Nearly U Vᵀ of G = U Σ Vᵀ, by five steps of a Newton–Schulz iteration: singular values end in about 0.7 … 1.2.

        X ← a X + (b X Xᵀ + c (X Xᵀ)²) X,   X₀ = G/‖G‖

    In bfloat16, which is enough, where that is fast. G: (rows, columns), on any device; a gradient of 0 stays 0.
    """
    a, b, c = COEFFICIENTS
    X = G.float() if emulates_bfloat16(G.device) else G.bfloat16()
    X = X / (X.norm() + 1e-7)
    tall = X.shape[0] > X.shape[1]
    X = X.T if tall else X  # X Xᵀ is then the smaller of the two
    for _ in range(steps):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return (X.T if tall else X).to(G.dtype)
