"""Whole trajectories against diffusers' schedulers, with a deterministic stand-in for the network; clipping off."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from minicc.diffusion.ddim import ddim_invert_steps, ddim_steps
from minicc.diffusion.ddpm import ddpm_steps
from minicc.diffusion.dpm_solver import dpm_solver_steps
from minicc.diffusion.schedule import NoiseSchedule
from minicc.errors import Error

TOLERANCE = 1e-5  # relative to the largest value of the step, float32
KINDS = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
SPACINGS = ("leading", "trailing", "linspace")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
STEPS = (5, 20, 50)
ENDS = {"stable_diffusion": (1, False), "plain": (0, True)}  # steps_offset, set_alpha_to_one
SCHEDULES = list(product(KINDS, PREDICTIONS, (False, True), ENDS))


def pair(cls: type, kind: str, prediction: str, zero_snr: bool, end: str, spacing: str, **options: Any) -> tuple:
    """Our schedule, and the reference's scheduler of the same settings."""
    offset, to_one = ENDS[end]
    ours = NoiseSchedule(
        kind, prediction=prediction, zero_terminal_snr=zero_snr, spacing=spacing, steps_offset=offset,
        set_alpha_to_one=to_one,
    )  # fmt: skip
    if cls in (DDIMScheduler, DDIMInverseScheduler):
        options["set_alpha_to_one"] = to_one
    if cls is not DPMSolverMultistepScheduler:
        options["clip_sample"] = False
    theirs = cls(
        beta_schedule=KINDS[kind], beta_start=ours.beta_start, beta_end=ours.beta_end, prediction_type=prediction,
        rescale_betas_zero_snr=zero_snr, timestep_spacing=spacing, steps_offset=offset, **options,
    )  # fmt: skip
    return ours, theirs


def model(x: Tensor, t: Tensor) -> Tensor:
    """A smooth stand-in for the network; depends on x and on t, so a wrong timestep shows."""
    u = t.float().view(-1, 1, 1, 1) / 1000
    return 0.8 * torch.tanh(x) * torch.cos(5 * u) + 0.3 * u


def x_T() -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(7))


def their_steps(theirs: Any, x: Tensor, steps: int, **options: Any) -> Iterator[Tensor]:
    """x after every step of a reference scheduler, driven as its pipelines do."""
    theirs.set_timesteps(steps)
    for t in theirs.timesteps:
        x = theirs.step(model(x, t.expand(len(x))), t, x, **options).prev_sample
        yield x


def assert_same_path(ours: Iterable[Any], theirs: Iterable[Tensor]) -> None:
    """Every step within TOLERANCE of the reference's, whose values are finite."""
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert b.isfinite().all(), f"step {i}: the reference itself is not finite"
        error = ((a.x - b).abs().max() / b.abs().max()).item()
        assert error <= TOLERANCE, f"step {i}, t={a.t}: relative error {error:.1e}"


def in_double(theirs: Any) -> Any:
    """A copy of the reference scheduler with its tables in float64."""
    theirs = deepcopy(theirs)
    theirs.alphas_cumprod = theirs.alphas_cumprod.double()
    theirs.final_alpha_cumprod = theirs.final_alpha_cumprod.double()
    return theirs


def divides_by_zero(prediction: str, zero_snr: bool, spacing: str) -> bool:
    """ε̂ at ᾱ = 0: leading spacing of few steps is the only one that never goes there."""
    return prediction == "epsilon" and zero_snr and spacing != "leading"


@pytest.mark.parametrize(("kind", "zero_snr"), list(product(KINDS, (False, True))))
def test_the_tables_are_the_references_bit_for_bit(kind, zero_snr):
    ours, theirs = pair(DDPMScheduler, kind, "v_prediction", zero_snr, "plain", "leading")
    assert torch.equal(ours.betas, theirs.betas)
    assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_and_velocity_are_the_references(kind, generator):
    ours, theirs = pair(DDPMScheduler, kind, "v_prediction", False, "plain", "leading")
    x_0, noise = torch.randn(2, 8, 3, 4, 4, generator=generator)
    t = torch.randint(1000, (8,), generator=generator)
    torch.testing.assert_close(ours.add_noise(x_0, noise, t), theirs.add_noise(x_0, noise, t), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.velocity(x_0, noise, t), theirs.get_velocity(x_0, noise, t), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("spacing", "end"), list(product(SPACINGS, ENDS)))
def test_the_timesteps_are_the_references_for_every_number_of_steps(spacing, end):
    ours, theirs = pair(DDIMScheduler, "scaled_linear", "epsilon", False, end, spacing)
    compared = 0
    for steps in range(1, 1001):
        theirs.set_timesteps(steps)
        if theirs.timesteps.max() > 999:  # the reference would fail at the first step, with an IndexError
            with pytest.raises(Error, match="the last is 999"):
                ours.timesteps(steps)
        elif len(theirs.timesteps) == steps:  # by trailing, the reference's arange now and then makes one too many
            assert ours.timesteps(steps).tolist() == theirs.timesteps.tolist(), f"{steps} steps"
            compared += 1
    assert compared > 900


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("kind", "prediction", "zero_snr", "end"), SCHEDULES)
def test_ddim_takes_the_references_path(kind, prediction, zero_snr, end, eta, spacing):
    ours, theirs = pair(DDIMScheduler, kind, prediction, zero_snr, end, spacing)
    if divides_by_zero(prediction, zero_snr, spacing):
        with pytest.raises(Error, match="says nothing about x_0"):
            list(ddim_steps(model, x_T(), ours, 5))
        return
    for steps in STEPS:
        a, b = (torch.Generator().manual_seed(3) for _ in range(2))
        path = list(ddim_steps(model, x_T(), ours, steps, eta=eta, generator=a))
        reference = list(their_steps(theirs, x_T(), steps, eta=eta, generator=b))
        if eta == 1 and ours.alpha_bar(path[0].t) < 1e-7 and reference[0].isnan().all():
            assert_goes_where_the_reference_cannot(path[0], theirs, steps)
        else:
            assert_same_path(path, reference)


def assert_goes_where_the_reference_cannot(first: Any, theirs: Any, steps: int) -> None:
    """From ᾱ ≈ 0 with η = 1, 1 − ᾱ_s − σ² is 0 but rounding takes it below, and the reference's root of it is NaN.

    Held instead against the reference in float64, with η a little below 1.
    """
    noise = torch.randn(x_T().shape, generator=torch.Generator().manual_seed(3))
    t = first.t
    theirs = in_double(theirs)
    theirs.set_timesteps(steps)
    output = model(x_T(), torch.full((2,), t)).double()
    expected = theirs.step(output, t, x_T().double(), eta=1 - 1e-8, variance_noise=noise.double()).prev_sample
    torch.testing.assert_close(first.x.double(), expected, rtol=0, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize("spacing", ["leading", "trailing"])  # the reference's inversion has no linspace
@pytest.mark.parametrize(("kind", "prediction", "zero_snr", "end"), SCHEDULES)
def test_ddim_inversion_takes_the_references_path(kind, prediction, zero_snr, end, spacing):
    ours, theirs = pair(DDIMInverseScheduler, kind, prediction, zero_snr, end, spacing)
    if prediction == "sample" and ours.set_alpha_to_one:
        with pytest.raises(Error, match="says nothing about ε"):  # the reference divides by 0
            list(ddim_invert_steps(model, x_T(), ours, 5))
        return
    for steps in STEPS:
        assert_same_path(ddim_invert_steps(model, x_T(), ours, steps), their_steps(theirs, x_T(), steps))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize(("kind", "prediction", "zero_snr", "end"), SCHEDULES)
def test_ddpm_takes_the_references_path(kind, prediction, zero_snr, end, variance, spacing):
    ours, theirs = pair(DDPMScheduler, kind, prediction, zero_snr, end, spacing, variance_type=variance)
    if divides_by_zero(prediction, zero_snr, spacing):
        with pytest.raises(Error, match="says nothing about x_0"):
            list(ddpm_steps(model, x_T(), ours, 5, generator=torch.Generator()))
        return
    for steps in STEPS:
        a, b = (torch.Generator().manual_seed(3) for _ in range(2))
        path = ddpm_steps(model, x_T(), ours, steps, variance=variance, generator=a)
        assert_same_path(path, their_steps(theirs, x_T(), steps, generator=b))


def test_ddpm_takes_the_references_path_through_all_thousand_timesteps():
    ours, theirs = pair(DDPMScheduler, "linear", "epsilon", False, "plain", "leading")
    a, b = (torch.Generator().manual_seed(3) for _ in range(2))
    assert_same_path(ddpm_steps(model, x_T(), ours, generator=a), their_steps(theirs, x_T(), 1000, generator=b))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside the reference
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("final", "lower"), [("zero", True), ("sigma_min", True), ("sigma_min", False)])
@pytest.mark.parametrize(("kind", "prediction", "zero_snr", "end"), SCHEDULES)
def test_dpm_solver_takes_the_references_path(kind, prediction, zero_snr, end, final, lower, spacing):
    options = {"final_sigmas_type": final, "lower_order_final": lower}
    ours, theirs = pair(DPMSolverMultistepScheduler, kind, prediction, zero_snr, end, spacing, **options)
    for steps in STEPS:
        path = dpm_solver_steps(model, x_T(), ours, steps, lower_order_final=lower, final_sigma=final)
        assert_same_path(path, their_steps(theirs, x_T(), steps))


@pytest.mark.parametrize("schedule", [NoiseSchedule(), NoiseSchedule("cosine", spacing="trailing", steps_offset=0)])
def test_the_reference_opens_our_config_and_we_open_its(schedule):
    theirs = DDIMScheduler.from_config(schedule.to_config())
    assert np.array_equal(theirs.alphas_cumprod, schedule.alphas_cumprod)
    assert NoiseSchedule.from_config(dict(theirs.config)) == schedule
