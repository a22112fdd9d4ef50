"""DDIM: a sampler that may skip timesteps and need not draw noise, and the way back from a picture to its noise.

Song et al. 2020, arXiv 2010.02502. The paper's α is the ᾱ of DDPM and of this code.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from minicc.diffusion.schedule import NoiseSchedule
from minicc.diffusion.steps import Model, Step, draw, last, timestep
from minicc.errors import Error


def ddim_sigma(abar_t: Tensor, abar_s: Tensor, eta: float) -> Tensor:
    """σ = η √((1−ᾱ_s)/(1−ᾱ_t)) √(1 − ᾱ_t/ᾱ_s) (eq. 16): η = 0 deterministic, η = 1 DDPM's √β̃."""
    return eta * ((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)).sqrt()


def ddim_sigma_hat(abar_t: Tensor, abar_s: Tensor) -> Tensor:
    """σ̂ = √(1 − ᾱ_t/ᾱ_s): DDPM's larger √β, the last row of Table 1 (appendix D.3)."""
    return (1 - abar_t / abar_s).sqrt()


def ddim_step(
    x_0: Tensor, eps: Tensor, abar_s: Tensor, sigma: Tensor | float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """To noise level s, up or down, given what the model made of x_t (eq. 12); σz is left out unless z is given.

        x_s = √ᾱ_s x̂₀ + √(1−ᾱ_s−σ²) ε̂ + σ z

    x_0, eps, noise: (B, …), the first two from `NoiseSchedule.split`. abar_s: 0-d or (B, 1, …); sigma: of `ddim_sigma`.
    """
    direction = (1 - abar_s - sigma**2).clamp(min=0).sqrt()  # rounding may leave −10⁻⁸ where it is 0
    x_s = abar_s.sqrt() * x_0 + direction * eps
    return (x_s if noise is None else x_s + sigma * noise).to(x_0.dtype)


def check_eta(eta: float, sigma_hat: bool) -> None:
    """Raise Error unless η is in 0 … 1, and 1 beside σ̂."""
    if not 0 <= eta <= 1:
        raise Error(f"eta={eta}: expected 0 (deterministic) … 1 (as much noise as DDPM)")
    if sigma_hat and eta != 1:
        raise Error(f"sigma_hat=True with eta={eta}: σ̂ stands beside σ(η=1) only, pass eta=1")


@torch.no_grad()
def ddim_steps(
    model: Model,
    x: Tensor,
    schedule: NoiseSchedule,
    steps: int = 50,
    *,
    eta: float = 0.0,
    sigma_hat: bool = False,
    generator: torch.Generator | None = None,
) -> Iterator[Step]:
    """Yield a Step for each of `steps` noise levels, from x = x_T (B, …) down to x_0.

    eta: 0 … 1; above 0, each step draws noise from generator. sigma_hat: with eta=1, z is scaled by σ̂ and not by σ
    (which stays under the root); in the last step, whose x is the result, by 0.
    Raises Error for another eta, or if there is noise to draw and no generator.

    To change x between the steps, write the loop out; inpainting puts the known part back so:

        for t, s in schedule.pairs(steps):
            x_0, eps = schedule.split(model(x, timestep(x, t)), x, t)
            x = ddim_step(x_0, eps, schedule.alpha_bar(s, x))
            x = mask * x + (1 - mask) * schedule.add_noise(known, noise, s)
    """
    check_eta(eta, sigma_hat)
    for t, s in schedule.pairs(steps):
        x_0, eps = schedule.split(model(x, timestep(x, t)), x, t)
        abar_t, abar_s = schedule.alpha_bar(t, x), schedule.alpha_bar(s, x)
        sigma = ddim_sigma(abar_t, abar_s, eta)
        x = ddim_step(x_0, eps, abar_s, sigma)
        if eta > 0:
            scale = ddim_sigma_hat(abar_t, abar_s) * (s >= 0) if sigma_hat else sigma
            x = (x + scale * draw(x, generator, f"eta={eta}")).to(x.dtype)
        yield Step(t, x, x_0, s)


def ddim_sample(
    model: Model,
    x: Tensor,
    schedule: NoiseSchedule,
    steps: int = 50,
    *,
    eta: float = 0.0,
    sigma_hat: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """x_0 (B, …) from x = x_T: the last of `ddim_steps`."""
    return last(ddim_steps(model, x, schedule, steps, eta=eta, sigma_hat=sigma_hat, generator=generator)).x


def ddim_step_back(x_s: Tensor, eps: Tensor, abar_s: Tensor, abar_t: Tensor) -> Tensor:
    """The deterministic step t → s solved for x_t = √ᾱ_t (x_s − √(1−ᾱ_s) ε)/√ᾱ_s + √(1−ᾱ_t) ε. All (B, …)."""
    x_0 = (x_s - (1 - abar_s).sqrt() * eps) / abar_s.sqrt()
    return (abar_t.sqrt() * x_0 + (1 - abar_t).sqrt() * eps).to(x_s.dtype)


@torch.no_grad()
def ddim_invert_steps(
    model: Model, x_0: Tensor, schedule: NoiseSchedule, steps: int = 50, fixed_point: int = 0
) -> Iterator[Step]:
    """Yield a Step (its s is t: the level of its x) for each noise level, from the picture x_0 (B, …) up to its noise.

    Sampling goes x_t → x_s by ε̂(x_t, t). The way back looks for x_t, so the model sees x_s in its place, at that same
    t; noise levels are those of sampling, the picture is at the end's (s < 0) and not at the first timestep's: mixing
    these up is the well-known off-by-one. fixed_point: how often the model is asked again, with the x_t just found;
    a few make the round trip nearly exact. Raises Error as `NoiseSchedule.split` does.
    """
    x = x_0
    for t, s in reversed(schedule.pairs(steps)):
        abar_t, abar_s = schedule.alpha_bar(t, x), schedule.alpha_bar(s, x)
        pred, eps = schedule.split(model(x, timestep(x, t)), x, s)
        x_t = ddim_step(pred, eps, abar_t)
        for _ in range(fixed_point):
            pred, eps = schedule.split(model(x_t, timestep(x, t)), x_t, t)
            x_t = ddim_step_back(x, eps, abar_s, abar_t)
        x = x_t
        yield Step(t, x, pred, t)


def ddim_invert(model: Model, x_0: Tensor, schedule: NoiseSchedule, steps: int = 50, fixed_point: int = 0) -> Tensor:
    """The noise x_T (B, …) from which `ddim_sample`, with the same steps and η = 0, draws x_0 again."""
    return last(ddim_invert_steps(model, x_0, schedule, steps, fixed_point)).x
