"""The noise schedule: how much picture is left at each timestep, and what follows from that.

    q(x_t | x_0) = N(√ᾱ_t x_0, (1 − ᾱ_t) I),   ᾱ_t = Π_{i≤t} α_i,   α_i = 1 − β_i          (Ho et al. 2020, eq. 4)

Timesteps run from 0, the least noise, to T − 1. A level below 0 is the end: no noise, or what is left at level 0.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from minicc.diffusion.betas import BETA_RANGE, cosine_betas, linear_betas, scaled_linear_betas, zero_terminal_snr
from minicc.errors import Error
from minicc.fields import checked

PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")
VARIANCES = ("fixed_small", "fixed_large")
KIND_OF = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}  # diffusers' words
# What an absent key means in a scheduler_config.json, and our name for the field.
CONFIG_FIELDS: dict[str, tuple[str, Any]] = {
    "num_train_timesteps": ("num_timesteps", 1000),
    "beta_start": ("beta_start", 0.0001),
    "beta_end": ("beta_end", 0.02),
    "prediction_type": ("prediction", "epsilon"),
    "rescale_betas_zero_snr": ("zero_terminal_snr", False),
    "timestep_spacing": ("spacing", "leading"),
    "steps_offset": ("steps_offset", 0),
    "set_alpha_to_one": ("set_alpha_to_one", True),
}


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise Error unless value is one of choices."""
    if value not in choices:
        raise Error(f"{name}={value!r} is unknown: choose one of {', '.join(choices)}")


@dataclass(frozen=True)
class NoiseSchedule:
    """Noise levels, predictions and timesteps of a diffusion model; the defaults are Stable Diffusion 1.x's.

    Tables are float32 on the CPU; every method takes x on any device and in any dtype, and t as an int or a (B,) long
    tensor. Raises Error for an unknown kind, prediction or spacing and for impossible numbers.
    """

    kind: str = "scaled_linear"  # of β: linear (DDPM), scaled_linear (Stable Diffusion), cosine
    num_timesteps: int = 1000  # T
    beta_start: float | None = None  # None: the kind's own, 0.00085 (scaled_linear), 0.0001 (linear); cosine has none
    beta_end: float | None = None  # None: the kind's own, 0.012 (scaled_linear), 0.02 (linear); cosine has none
    prediction: str = "epsilon"  # what the model returns: epsilon, v_prediction, sample (= x_0)
    zero_terminal_snr: bool = False  # rescale β so that ᾱ_{T−1} = 0; for v_prediction and sample
    spacing: str = "leading"  # how few timesteps are picked out of T: leading, trailing, linspace
    steps_offset: int = 1  # added to leading timesteps
    set_alpha_to_one: bool = False  # the end (s < 0) has ᾱ = 1; False: ᾱ_0, as Stable Diffusion was released

    def __post_init__(self) -> None:
        one_of("kind", self.kind, tuple(BETA_RANGE))
        one_of("prediction", self.prediction, PREDICTIONS)
        one_of("spacing", self.spacing, SPACINGS)
        for name, default in zip(("beta_start", "beta_end"), BETA_RANGE[self.kind], strict=True):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)  # frozen for everybody else
        self._check_numbers()

    def _check_numbers(self) -> None:
        start, end = self._beta_range
        if not 0 < start <= end < 1:
            raise Error(f"beta_start={start}, beta_end={end}: expected 0 < beta_start ≤ beta_end < 1")
        if self.num_timesteps < 2:
            raise Error(f"num_timesteps={self.num_timesteps}: expected 2 or more (official models have 1000)")
        if self.steps_offset < 0:
            raise Error(f"steps_offset={self.steps_offset}: expected 0 or more (Stable Diffusion has 1)")

    @property
    def _beta_range(self) -> tuple[float, float]:
        assert self.beta_start is not None
        assert self.beta_end is not None
        return self.beta_start, self.beta_end

    # ── tables ────────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def betas(self) -> Tensor:
        """β_t: (T,)."""
        n = self.num_timesteps
        if self.kind == "cosine":
            betas = cosine_betas(n)
        else:
            betas = {"linear": linear_betas, "scaled_linear": scaled_linear_betas}[self.kind](n, *self._beta_range)
        return zero_terminal_snr(betas) if self.zero_terminal_snr else betas

    @cached_property
    def alphas(self) -> Tensor:
        """α_t = 1 − β_t: (T,)."""
        return 1 - self.betas

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t = Π_{i≤t} α_i: (T,)."""
        return self.alphas.cumprod(0)

    @cached_property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio ᾱ_t / (1 − ᾱ_t): (T,)."""
        return self.alphas_cumprod / (1 - self.alphas_cumprod)

    def alpha_bar(self, t: int | Tensor, like: Tensor | None = None, end: float | None = None) -> Tensor:
        """ᾱ_t; for t < 0 the end's: `end` if given, else 1 or ᾱ_0 as set_alpha_to_one says.

        Returns 0-d for an int t, (B,) for t (B,). Given like (B, …): in its precision, at least float32, and for a
        batch of timesteps on its device and shaped (B, 1, …) to multiply it. Raises Error for an int t ≥ T.
        """
        if isinstance(t, int) and t >= self.num_timesteps:
            raise Error(f"timestep {t} is off the table: the schedule has 0 … {self.num_timesteps - 1}")
        t = torch.as_tensor(t)
        table = self.alphas_cumprod.to(t.device)
        if end is None:
            end = 1.0 if self.set_alpha_to_one else self.alphas_cumprod[0].item()
        abar = torch.where(t < 0, end, table[t.clamp(min=0)])
        if like is None:
            return abar
        abar = abar.to(torch.promote_types(like.dtype, torch.float32))
        return abar if t.ndim == 0 else abar.to(like.device).view(-1, *[1] * (like.ndim - 1))

    def signal_and_noise(self, t: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1 − ᾱ_t), ready to multiply like (B, …)."""
        abar = self.alpha_bar(t, like)
        return abar.sqrt(), (1 - abar).sqrt()

    # ── the forward process and what the network learns ───────────────────────────────────────────────────────────

    def add_noise(self, x_0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """A sample of q(x_t | x_0): x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε (Ho et al. 2020, eq. 4). x_0, noise: (B, …)."""
        a, s = self.signal_and_noise(t, x_0)
        return (a * x_0 + s * noise).to(x_0.dtype)

    def velocity(self, x_0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """v = √ᾱ_t ε − √(1−ᾱ_t) x_0 (Salimans & Ho 2022, arXiv 2202.00512, section 4). x_0, noise: (B, …)."""
        a, s = self.signal_and_noise(t, x_0)
        return (a * noise - s * x_0).to(x_0.dtype)

    def target(self, x_0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """What the network is to predict, given x_0, noise (B, …): ε, v or x_0, as `prediction` says."""
        if self.prediction == "epsilon":
            return noise
        return x_0 if self.prediction == "sample" else self.velocity(x_0, noise, t)

    def x_0_from(self, output: Tensor, x_t: Tensor, t: int | Tensor) -> Tensor:
        """x̂₀ from the network's output: (x_t − √(1−ᾱ_t) ε̂)/√ᾱ_t, or √ᾱ_t x_t − √(1−ᾱ_t) v̂, or the output itself.

        Raises Error for a predicted ε where ᾱ_t = 0: there x_t is noise alone.
        """
        if self.prediction == "sample":
            return output
        a, s = self.signal_and_noise(t, x_t)
        if self.prediction == "v_prediction":
            return (a * x_t - s * output).to(x_t.dtype)
        if (a == 0).any():
            raise Error(f"ᾱ_t = 0 at t={t}: ε̂ says nothing about x_0. Use v_prediction or sample, or leading spacing")
        return ((x_t - s * output) / a).to(x_t.dtype)

    def epsilon_from(self, output: Tensor, x_t: Tensor, t: int | Tensor) -> Tensor:
        """ε̂ from the network's output: itself, or √ᾱ_t v̂ + √(1−ᾱ_t) x_t, or (x_t − √ᾱ_t x̂₀)/√(1−ᾱ_t).

        Raises Error for a predicted x_0 where ᾱ_t = 1: there x_t holds no noise.
        """
        if self.prediction == "epsilon":
            return output
        a, s = self.signal_and_noise(t, x_t)
        if self.prediction == "v_prediction":
            return (a * output + s * x_t).to(x_t.dtype)
        if (s == 0).any():
            raise Error(f"ᾱ_t = 1 at t={t}: x̂₀ says nothing about ε. Use set_alpha_to_one=False, or another prediction")
        return ((x_t - a * output) / s).to(x_t.dtype)

    def split(self, output: Tensor, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """The network's output as x̂₀ and ε̂, with x_t = √ᾱ_t x̂₀ + √(1−ᾱ_t) ε̂: each (B, …)."""
        return self.x_0_from(output, x_t, t), self.epsilon_from(output, x_t, t)

    def velocity_from(self, output: Tensor, x_t: Tensor, t: int | Tensor) -> Tensor:
        """v̂ from the network's output, by way of x̂₀ and ε̂."""
        if self.prediction == "v_prediction":
            return output
        return self.velocity(*self.split(output, x_t, t), t)

    def posterior(
        self, x_0: Tensor, x_t: Tensor, t: int | Tensor, s: int | Tensor | None = None, variance: str = "fixed_small"
    ) -> tuple[Tensor, Tensor]:
        """Mean (B, …) and variance of q(x_s | x_t, x_0), s = t − 1 unless given (Ho et al. 2020, eq. 6 and 7).

            α = ᾱ_t/ᾱ_s,  β = 1 − α
            μ̃ = √ᾱ_s β/(1−ᾱ_t) x_0 + √α (1−ᾱ_s)/(1−ᾱ_t) x_t
            β̃ = (1−ᾱ_s)/(1−ᾱ_t) β

        variance: fixed_small is β̃, exact for a known x_0; fixed_large is β, the other choice of section 3.2.
        Below 0, s is the picture itself: ᾱ_s = 1.
        """
        one_of("variance", variance, VARIANCES)
        abar_t, abar_s = self.alpha_bar(t, x_t), self.alpha_bar(t - 1 if s is None else s, x_t, end=1.0)
        alpha = abar_t / abar_s
        beta = 1 - alpha
        mean = abar_s.sqrt() * beta / (1 - abar_t) * x_0 + alpha.sqrt() * (1 - abar_s) / (1 - abar_t) * x_t
        return mean.to(x_t.dtype), beta if variance == "fixed_large" else (1 - abar_s) / (1 - abar_t) * beta

    # ── the timesteps of a sampler ────────────────────────────────────────────────────────────────────────────────

    def timesteps(self, steps: int) -> Tensor:
        """The timesteps a sampler visits, descending: (steps,) long (Lin et al. 2023, arXiv 2305.08891, table 2).

        leading: 0, r, 2r, … plus steps_offset, r = T // steps; trailing: T − 1 and down by T/steps; linspace: both
        ends. Always `steps` of them. CompVis's own DDIM takes 1 + range(0, T, T // steps) instead: 31 timesteps for
        30 steps, and past the table for some; where T // steps divides T, as for 50, the two agree.
        Raises Error if steps is not in 1 … T, or if the offset pushes the first timestep off the table.
        """
        n = self.num_timesteps
        if not 1 <= steps <= n:
            raise Error(f"steps={steps}: expected 1 … {n}, the timesteps the model was trained on")
        if self.spacing == "linspace":
            r = (n - 1) / max(steps - 1, 1)
            return torch.tensor([round(i * r) for i in reversed(range(steps))])
        if self.spacing == "trailing":
            r = n - (n - n / steps)  # n / steps, rounded as numpy.arange does: at ties (.5) it decides
            return torch.tensor([round(n - i * r) - 1 for i in range(steps)])
        ts = torch.arange(steps - 1, -1, -1) * (n // steps) + self.steps_offset
        if ts[0] >= n:
            raise Error(f"steps={steps} and steps_offset={self.steps_offset} start at t={ts[0]}, the last is {n - 1}")
        return ts

    def pairs(self, steps: int) -> list[tuple[int, int]]:
        """(t, s) for each step of DDIM: from noise level t to s = t − T // steps, below 0 at the end.

        So diffusers has it for every spacing. With leading, s is the next t exactly, as with trailing where steps
        divides T; else the two drift apart by a timestep or so, and the samples' spread with them.
        """
        return [(t, t - self.num_timesteps // steps) for t in self.timesteps(steps).tolist()]

    # ── diffusers' scheduler_config.json ──────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "NoiseSchedule":
        """The schedule that a diffusers scheduler_config.json describes, whatever the sampler it names.

        Keys that belong to one sampler only are left alone; an absent key has diffusers' default.
        Raises Error for a beta_schedule, prediction or spacing unknown here, and for a table of trained betas.
        """
        one_of("beta_schedule", config.get("beta_schedule", "linear"), tuple(KIND_OF))
        if config.get("trained_betas") is not None:
            raise Error(
                "trained_betas: a table of betas is not supported: beta_schedule with beta_start and beta_end is"
            )
        values = dict(CONFIG_FIELDS.values())
        values |= checked(cls, config, {theirs: ours for theirs, (ours, _) in CONFIG_FIELDS.items()})
        return cls(**values | {"kind": KIND_OF[config.get("beta_schedule", "linear")]})

    def to_config(self) -> dict[str, Any]:
        """A scheduler_config.json as a dict, that diffusers' DDIMScheduler opens."""
        theirs = {ours: theirs for theirs, ours in KIND_OF.items()}
        config = {"_class_name": "DDIMScheduler", "beta_schedule": theirs[self.kind], "clip_sample": False}
        return config | {key: getattr(self, ours) for key, (ours, _) in CONFIG_FIELDS.items()}
