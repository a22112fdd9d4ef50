"""Worlds whose best network is known: data that are Gaussian, so that ε̂ = E[ε | x_t] is a formula and not a network."""

from dataclasses import dataclass

import torch
from torch import Tensor

from minicc.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class GaussianData:
    """x_0 ~ N(mean, std²) in every element; then x_t ~ N(√ᾱ mean, ᾱ std² + 1 − ᾱ)."""

    schedule: NoiseSchedule
    mean: float = 0.5
    std: float = 0.5

    def std_at(self, t: int, like: Tensor) -> Tensor:
        """The standard deviation of x_t."""
        abar = self.schedule.alpha_bar(t, like)
        return (abar * self.std**2 + 1 - abar).sqrt()

    def epsilon(self, x: Tensor, t: Tensor | int) -> Tensor:
        """E[ε | x_t], by regression: Cov(ε, x_t)/Var(x_t) · (x_t − E x_t)."""
        abar = self.schedule.alpha_bar(t, x)
        return (1 - abar).sqrt() / (abar * self.std**2 + 1 - abar) * (x - abar.sqrt() * self.mean)

    def x_0_on_the_ode(self, x_t: Tensor, t: int) -> Tensor:
        """Where the probability-flow ODE leads from x_t: each point keeps its standard score."""
        abar = self.schedule.alpha_bar(t, x_t)
        z = (x_t - abar.sqrt() * self.mean) / self.std_at(t, x_t)
        return self.mean + self.std * z


def normals(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
