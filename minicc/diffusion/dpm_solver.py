"""DPM-Solver++(2M): a second-order solver for the price of DDIM (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

In the half-log-SNR λ = log(√ᾱ/√(1−ᾱ)) the path from x_t to x_s is exact but for x̂₀ along it, which is taken as a
straight line through the last two predictions. Its first-order form is DDIM.
"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from minicc.diffusion.schedule import NoiseSchedule, one_of
from minicc.diffusion.steps import Model, Step, last, timestep

FINAL_SIGMAS = ("zero", "sigma_min")
SMALLEST = 2.0**-24  # the reference's choice


class LiftedSchedule(NoiseSchedule):
    """The same schedule, but where ᾱ_{T−1} = 0 it is 2⁻²⁴: λ there would be −∞."""

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        abar = self.alphas.cumprod(0)
        if self.zero_terminal_snr:
            abar[-1] = SMALLEST
        return abar


def dpm_timesteps(schedule: NoiseSchedule, steps: int) -> list[int]:
    """`steps` timesteps, descending: leading and linspace cut the schedule in steps + 1 and leave the lowest out."""
    if schedule.spacing == "trailing":
        return schedule.timesteps(steps).tolist()
    return schedule.timesteps(steps + 1).tolist()[:-1]


def half_log_snr(abar: Tensor) -> Tensor:
    """λ = log √ᾱ − log √(1−ᾱ); ∞ at ᾱ = 1."""
    return abar.sqrt().log() - (1 - abar).sqrt().log()


def dpm_solver_step(
    x: Tensor, x_0: Tensor, abar_t: Tensor, abar_s: Tensor, before: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """One step x_t → x_s (algorithm 2; α = √ᾱ, σ = √(1−ᾱ)).

        h = λ_s − λ_t,   r = (λ_t − λ_u)/h
        D = x̂₀ + (x̂₀ − x̂₀ᵘ)/(2r)                    first order: D = x̂₀
        x_s = σ_s/σ_t x_t − α_s (e^{−h} − 1) D

    before: x̂₀ᵘ and ᾱ_u of the step before; None: first order, and so it must be where ᾱ_s = 1 (h = ∞).
    """
    h = half_log_snr(abar_s) - half_log_snr(abar_t)
    D = x_0
    if before is not None:
        x_0_u, abar_u = before
        r = (half_log_snr(abar_t) - half_log_snr(abar_u)) / h
        D = x_0 + (x_0 - x_0_u) / (2 * r)
    sigma_t, sigma_s = (1 - abar_t).sqrt(), (1 - abar_s).sqrt()
    return (sigma_s / sigma_t * x - abar_s.sqrt() * torch.expm1(-h) * D).to(x.dtype)


@torch.no_grad()
def dpm_solver_steps(
    model: Model,
    x: Tensor,
    schedule: NoiseSchedule,
    steps: int = 20,
    *,
    lower_order_final: bool = True,
    final_sigma: str = "zero",
) -> Iterator[Step]:
    """Yield Step(t, x_s, x̂₀) from x = x_T (B, …) down to x_0.

    lower_order_final: with fewer than 15 steps the last is of first order, for stability. final_sigma: the result is
    free of noise ("zero", its last step always of first order), or at noise level 0 ("sigma_min").
    Raises Error for another final_sigma, or where the timesteps do not fit the schedule.
    """
    one_of("final_sigma", final_sigma, FINAL_SIGMAS)
    schedule = LiftedSchedule(**asdict(schedule))
    end = 1.0 if final_sigma == "zero" else schedule.alphas_cumprod[0].item()
    low_end = final_sigma == "zero" or (lower_order_final and steps < 15)
    before = None
    for t, s in pairwise([*dpm_timesteps(schedule, steps), -1]):
        abar_t, abar_s = (schedule.alpha_bar(u, x, end=end) for u in (t, s))
        x_0 = schedule.x_0_from(model(x, timestep(x, t)), x, t)
        x = dpm_solver_step(x, x_0, abar_t, abar_s, None if s < 0 and low_end else before)
        before = x_0, abar_t
        yield Step(t, x, x_0, s)


def dpm_solver_sample(
    model: Model,
    x: Tensor,
    schedule: NoiseSchedule,
    steps: int = 20,
    *,
    lower_order_final: bool = True,
    final_sigma: str = "zero",
) -> Tensor:
    """x_0 (B, …) from x = x_T: the last of `dpm_solver_steps`."""
    options = {"lower_order_final": lower_order_final, "final_sigma": final_sigma}
    return last(dpm_solver_steps(model, x, schedule, steps, **options)).x  # type: ignore[arg-type]
