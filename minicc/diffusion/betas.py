"""The variances β_1 … β_T of the forward process: linear, scaled-linear, cosine, and the zero-terminal-SNR rescaling.

All are float32 and computed in the reference's order of operations, so official weights meet the noise levels they
were trained on to the last bit. Index 0 is the paper's t = 1.
"""

import math

import torch
from torch import Tensor

# Where each kind starts and ends unless told: DDPM's paper (section 4), and Stable Diffusion's configuration.
BETA_RANGE = {"linear": (0.0001, 0.02), "scaled_linear": (0.00085, 0.012), "cosine": (0.0001, 0.02)}
BETA_MAX = 0.999  # the cosine's last β would be 1 (Nichol & Dhariwal 2021, section 3.2)


def linear_betas(n: int, start: float, end: float) -> Tensor:
    """β rises linearly from start to end: (n,) (Ho et al. 2020, arXiv 2006.11239, section 4)."""
    return torch.linspace(start, end, n, dtype=torch.float32)


def scaled_linear_betas(n: int, start: float, end: float) -> Tensor:
    """√β rises linearly: (n,) (Rombach et al. 2021, arXiv 2112.10752; the schedule of every Stable Diffusion)."""
    return torch.linspace(start**0.5, end**0.5, n, dtype=torch.float32) ** 2


def cosine_betas(n: int) -> Tensor:
    """The cosine schedule: (n,) (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17).

    ᾱ(u) = cos²((u + 0.008)/1.008 · π/2),   β_t = min(1 − ᾱ(t/T)/ᾱ((t−1)/T), 0.999)
    """

    def abar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return torch.tensor([min(1 - abar((i + 1) / n) / abar(i / n), BETA_MAX) for i in range(n)], dtype=torch.float32)


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """Shift and scale √ᾱ so that the last one is 0 and the first stays (Lin et al. 2023, arXiv 2305.08891, alg. 1).

    betas: (n,), n ≥ 2. Returns (n,), the last exactly 1: x_T is pure noise.
    """
    root = (1 - betas).cumprod(0).sqrt()  # √ᾱ
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    abar = root**2
    return 1 - torch.cat([abar[:1], abar[1:] / abar[:-1]])
