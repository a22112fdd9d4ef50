"""DDPM: the simple loss, and ancestral sampling (Ho et al. 2020, arXiv 2006.11239)."""

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from minicc.diffusion.schedule import NoiseSchedule
from minicc.diffusion.steps import Model, Step, draw, last, timestep


def ddpm_loss(model: Model, x_0: Tensor, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
    """L_simple = E_{t, ε} ‖ε − ε_θ(√ᾱ_t x_0 + √(1−ᾱ_t) ε, t)‖² (eq. 14), or the same of v or x_0: 0-d.

    x_0: (B, …). t is uniform in 0 … T − 1, one a picture; it and ε are drawn from generator.
    """
    shape = (x_0.shape[0],)
    t = torch.randint(schedule.num_timesteps, shape, generator=generator, device=generator.device).to(x_0.device)
    noise = draw(x_0, generator, "the loss")
    x_t = schedule.add_noise(x_0, noise, t)
    return F.mse_loss(model(x_t, t), schedule.target(x_0, noise, t))


def min_snr_weight(schedule: NoiseSchedule, t: Tensor, gamma: float) -> Tensor:
    """Min-SNR-γ weights of the timesteps' losses (Hang et al. 2023, arXiv 2303.09556, section 3.4); γ = 5 is usual.

        min(SNR, γ) on the error of x_0;  as ‖ε − ε̂‖² = SNR ‖x_0 − x̂_0‖² and ‖v − v̂‖² = (SNR + 1) ‖x_0 − x̂_0‖²,
        min(SNR, γ)/SNR on that of ε,  min(SNR, γ)/(SNR + 1) on that of v

    Timesteps with little noise count less: their errors are details, and would outvote the rest. t: (B,); returns (B,).
    """
    snr = schedule.snr.to(t.device)[t]
    own = {"sample": torch.ones_like(snr), "epsilon": snr, "v_prediction": snr + 1}[schedule.prediction]
    return snr.clamp(max=gamma) / own


@torch.no_grad()
def ddpm_steps(
    model: Model,
    x: Tensor,
    schedule: NoiseSchedule,
    steps: int | None = None,
    *,
    variance: str = "fixed_small",
    generator: torch.Generator | None = None,
) -> Iterator[Step]:
    """Yield Step(t, x_s, x̂₀) from x = x_T (B, …) down to x_0 (algorithm 2, by the posterior of eq. 6 and 7 at x̂₀).

        x_s ~ N(μ̃(x_t, x̂₀), variance),  no noise where t = 0

    steps: how many of the schedule's timesteps; None: all T of them. variance: "fixed_small" is β̃, "fixed_large" β.
    Where the last t is above 0 (few steps by trailing spacing, or an offset), fixed_large leaves its noise in the
    result, as diffusers does: prefer fixed_small there. Raises Error for another variance, or without generator.
    """
    ts = range(schedule.num_timesteps - 1, -1, -1) if steps is None else schedule.timesteps(steps).tolist()
    for t, s in pairwise([*ts, -1]):
        x_0 = schedule.x_0_from(model(x, timestep(x, t)), x, t)
        mean, var = schedule.posterior(x_0, x, t, s, variance)
        x = mean + (var.sqrt() * draw(x, generator, "DDPM")).to(x.dtype) if t > 0 else mean
        yield Step(t, x, x_0, s)


def ddpm_sample(
    model: Model,
    x: Tensor,
    schedule: NoiseSchedule,
    steps: int | None = None,
    *,
    variance: str = "fixed_small",
    generator: torch.Generator | None = None,
) -> Tensor:
    """x_0 (B, …) from x = x_T: the last of `ddpm_steps`."""
    return last(ddpm_steps(model, x, schedule, steps, variance=variance, generator=generator)).x
