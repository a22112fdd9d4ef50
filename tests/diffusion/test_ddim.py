"""DDIM where the right answer is known: Gaussian data, DDPM as a special case, and the way back."""

from itertools import pairwise

import pytest
import torch

from minicc.diffusion.ddim import (
    ddim_invert,
    ddim_invert_steps,
    ddim_sample,
    ddim_sigma,
    ddim_sigma_hat,
    ddim_step,
    ddim_steps,
)
from minicc.diffusion.ddpm import ddpm_sample, ddpm_steps
from minicc.diffusion.dpm_solver import dpm_solver_sample
from minicc.diffusion.schedule import NoiseSchedule
from minicc.diffusion.steps import last, timestep
from minicc.errors import Error
from tests.diffusion.gaussians import GaussianData, normals

TO_ONE = NoiseSchedule(steps_offset=0, set_alpha_to_one=True)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_step_lands_on_the_marginal_of_the_lower_level_whatever_eta(eta):
    """Lemma 1 of the paper by Monte Carlo: knowing x_0 and ε, x_s ~ N(√ᾱ_s x_0, 1 − ᾱ_s)."""
    schedule, t, s, x_0 = NoiseSchedule(), 700, 500, 0.8
    eps, z = normals(2, 400_000)
    abar_t, abar_s = schedule.alpha_bar(t, eps), schedule.alpha_bar(s, eps)
    x_s = ddim_step(torch.full_like(eps, x_0), eps, abar_s, ddim_sigma(abar_t, abar_s, eta), z)
    expected = schedule.add_noise(torch.full_like(eps, x_0), normals(400_000, seed=9), s)
    assert x_s.mean().item() == pytest.approx(expected.mean().item(), abs=0.01)
    assert x_s.std().item() == pytest.approx(expected.std().item(), rel=0.01)


def test_deterministic_ddim_halves_its_error_with_twice_the_steps():
    """A first-order solver of the probability-flow ODE, whose end is known exactly for Gaussian data."""
    world = GaussianData(NoiseSchedule(spacing="trailing", set_alpha_to_one=True))
    x = normals(1, 8)
    errors = [
        (ddim_sample(world.epsilon, x, world.schedule, steps) - world.x_0_on_the_ode(x, 999)).abs().max().item()
        for steps in (25, 50, 100)
    ]
    assert all(1.6 < a / b < 2.6 for a, b in pairwise(errors)), errors


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_samples_are_spread_as_the_data_are(eta):
    world = GaussianData(NoiseSchedule(spacing="trailing", set_alpha_to_one=True), mean=-0.3, std=0.6)
    x = normals(2, 20_000, dtype=torch.float32)
    steps = 250  # fewer steps of η = 1 spread too little: 0.57 for 100
    samples = ddim_sample(world.epsilon, x, world.schedule, steps, eta=eta, generator=seeded())
    assert samples.mean().item() == pytest.approx(-0.3, abs=0.03)
    assert samples.std().item() == pytest.approx(0.6, rel=0.05)


def test_with_eta_one_it_is_ddpm():
    """Section 4.1: η = 1 is DDPM's ancestral sampling with β̃, step for step and from the same noise."""
    world, x = GaussianData(TO_ONE), normals(2, 5)
    ours = ddim_steps(world.epsilon, x, TO_ONE, 50, eta=1.0, generator=seeded())
    ddpm = ddpm_steps(world.epsilon, x, TO_ONE, 50, generator=seeded())
    for a, b in zip(ours, ddpm, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-6, atol=1e-6)


def test_sigma_hat_is_ddpm_with_its_larger_variance_until_the_last_step():
    """Table 1's last row: DDPM with √β."""
    world, x = GaussianData(TO_ONE), normals(2, 5)
    ours = list(ddim_steps(world.epsilon, x, TO_ONE, 50, eta=1.0, sigma_hat=True, generator=seeded()))
    ddpm = list(ddpm_steps(world.epsilon, x, TO_ONE, 50, variance="fixed_large", generator=seeded()))
    for a, b in zip(ours, ddpm, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-6, atol=1e-6)
    assert torch.equal(ours[-1].x, ours[-1].x_0)  # no noise in the result


def test_sigma_hat_is_larger_than_sigma():
    a, b = TO_ONE.alpha_bar(400), TO_ONE.alpha_bar(380)
    assert ddim_sigma_hat(a, b) > ddim_sigma(a, b, 1.0) > ddim_sigma(a, b, 0.5) > ddim_sigma(a, b, 0.0) == 0


def test_without_eta_the_noise_alone_decides():
    world, x = GaussianData(NoiseSchedule()), normals(1, 4)
    first = ddim_sample(world.epsilon, x, world.schedule, 20, generator=seeded(1))
    assert torch.equal(first, ddim_sample(world.epsilon, x, world.schedule, 20))


def test_with_eta_the_seed_decides_too():
    world, x = GaussianData(NoiseSchedule()), normals(1, 4)
    a, b, c = (ddim_sample(world.epsilon, x, world.schedule, 20, eta=1.0, generator=seeded(n)) for n in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_loop_of_the_docstring_is_the_sampler():
    world, schedule, x = GaussianData(NoiseSchedule()), NoiseSchedule(), normals(2, 3)
    expected = ddim_sample(world.epsilon, x, schedule, 20)
    for t, s in schedule.pairs(20):
        x_0, eps = schedule.split(world.epsilon(x, timestep(x, t)), x, t)
        x = ddim_step(x_0, eps, schedule.alpha_bar(s, x))
    assert torch.equal(x, expected)


def test_every_step_says_where_it_is():
    world, schedule = GaussianData(NoiseSchedule()), NoiseSchedule()
    steps = list(ddim_steps(world.epsilon, normals(2, 3), schedule, 10))
    assert [(step.t, step.s) for step in steps] == schedule.pairs(10)
    assert all(step.x.shape == step.x_0.shape == (2, 3) for step in steps)


def test_the_model_is_asked_with_one_long_timestep_a_picture():
    seen = []

    def model(x, t):
        seen.append(t)
        return x

    ddim_sample(model, normals(3, 2), NoiseSchedule(), 5)
    assert [t.tolist() for t in seen] == [[t] * 3 for t in (801, 601, 401, 201, 1)]
    assert {t.dtype for t in seen} == {torch.long}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_sampler_keeps_the_dtype(dtype):
    x = normals(2, 3).to(dtype)
    assert ddim_sample(lambda x, t: 0.5 * x, x, NoiseSchedule(), 5, eta=1.0, generator=seeded()).dtype == dtype


def test_from_pure_noise_only_v_and_x_0_find_the_way():
    """Zero terminal SNR: x_T is noise alone, so ε̂ says nothing; v̂ = −x̂₀ there."""
    x = normals(2, 4)
    for prediction, constant in (("v_prediction", -0.5), ("sample", 0.5)):
        schedule = NoiseSchedule(prediction=prediction, zero_terminal_snr=True, spacing="trailing")
        first = next(iter(ddim_steps(lambda x, t, c=constant: torch.full_like(x, c), x, schedule, 10)))
        torch.testing.assert_close(first.x_0, torch.full_like(x, 0.5))
        expected = schedule.add_noise(torch.full_like(x, 0.5), x, first.s)  # all of x_T was noise
        torch.testing.assert_close(first.x, expected)
    with pytest.raises(Error, match="Use v_prediction or sample"):
        ddim_sample(lambda x, t: x, x, NoiseSchedule(zero_terminal_snr=True, spacing="trailing"), 10)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"eta": 0.5}, "eta=0.5 draws noise at every step: pass generator="),
        ({"eta": 1.5}, "eta=1.5: expected 0"),
        ({"eta": -0.1}, "eta=-0.1: expected 0"),
        ({"sigma_hat": True}, "pass eta=1"),
    ],
)
def test_noise_that_cannot_be_drawn_is_an_error(options, says):
    with pytest.raises(Error, match=says):
        ddim_sample(lambda x, t: x, normals(1, 2), NoiseSchedule(), 5, **options)


def test_the_last_of_nothing_is_an_error():
    with pytest.raises(Error, match="made no step"):
        last(iter([]))


# ── inversion ─────────────────────────────────────────────────────────────────────────────────────────────────────


def shifted_invert(model, x, schedule, steps):
    """The well-known mistake: the picture is taken for x_{t_1}, and every step goes from t to the next t above."""
    for s, t in pairwise([t for t, _ in reversed(schedule.pairs(steps))]):
        x_0, eps = schedule.split(model(x, timestep(x, s)), x, s)
        x = ddim_step(x_0, eps, schedule.alpha_bar(t, x))
    return x


def round_trip(world, picture, invert, steps=50, **options) -> float:
    """The largest error of picture → noise → picture."""
    noise = invert(world.epsilon, picture, world.schedule, steps, **options)
    return (ddim_sample(world.epsilon, noise, world.schedule, steps) - picture).abs().max().item()


@pytest.mark.parametrize(("offset", "to_one"), [(1, False), (0, True)])
def test_a_picture_survives_the_way_to_noise_and_back_and_does_not_if_levels_are_shifted(offset, to_one):
    world = GaussianData(NoiseSchedule(steps_offset=offset, set_alpha_to_one=to_one))
    picture = world.mean + world.std * normals(1, 64)
    right, wrong = (round_trip(world, picture, invert) for invert in (ddim_invert, shifted_invert))
    assert right < 0.15
    assert wrong > 1.5 * right, f"right {right:.3f}, shifted {wrong:.3f}"


def test_the_round_trip_gets_better_with_more_steps():
    world = GaussianData(NoiseSchedule())
    picture = world.mean + world.std * normals(1, 64)
    errors = [round_trip(world, picture, ddim_invert, steps) for steps in (25, 50, 100)]
    assert errors[0] > 1.6 * errors[1] > 1.6**2 * errors[2], errors


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_fixed_point_iterations_make_the_round_trip_nearly_exact(prediction):
    schedule = NoiseSchedule(prediction=prediction)
    world = GaussianData(schedule)

    def model(x, t):
        eps = world.epsilon(x, t)
        a, s = schedule.signal_and_noise(t, x)
        return schedule.target((x - s * eps) / a, eps, t)

    picture = world.mean + world.std * normals(1, 64)
    errors = []
    for n in (0, 2, 20):
        noise = ddim_invert(model, picture, schedule, 20, fixed_point=n)
        errors.append((ddim_sample(model, noise, schedule, 20) - picture).abs().max().item())
    assert errors[0] > 3 * errors[1] > 9 * errors[2], errors
    assert errors[2] < 1e-5, errors


def test_the_noise_found_is_the_noise_the_picture_came_from():
    world, x = GaussianData(NoiseSchedule()), normals(1, 64)
    picture = ddim_sample(world.epsilon, x, world.schedule, 50)
    torch.testing.assert_close(
        ddim_invert(world.epsilon, picture, world.schedule, 50, fixed_point=30), x, rtol=1e-4, atol=1e-4
    )


def test_inversion_goes_up_through_samplings_levels():
    world, schedule = GaussianData(NoiseSchedule()), NoiseSchedule()
    steps = list(ddim_invert_steps(world.epsilon, normals(1, 2), schedule, 10))
    assert [step.t for step in steps] == schedule.timesteps(10).flip(0).tolist()
    assert [step.s for step in steps] == [step.t for step in steps]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_x_may_lie_on_another_device_than_the_tables(prediction):
    """Torch's meta device computes no values, but refuses to mix devices as a GPU does."""
    schedule = NoiseSchedule(prediction=prediction)
    x, t = torch.zeros(2, 4, 8, 8, device="meta"), torch.zeros(2, dtype=torch.long)
    for at in (7, -1, t, t.to("meta")):
        assert schedule.add_noise(x, x, at).device.type == "meta"
        assert schedule.posterior(x, x, at)[0].device.type == "meta"
    for options in ({}, {"eta": 1.0, "generator": seeded()}):
        assert ddim_sample(lambda x, t: x, x, schedule, 5, **options).device.type == "meta"
    assert ddim_invert(lambda x, t: x, x, schedule, 5, fixed_point=1).device.type == "meta"
    assert ddpm_sample(lambda x, t: x, x, schedule, 5, generator=seeded()).device.type == "meta"
    assert dpm_solver_sample(lambda x, t: x, x, schedule, 5).device.type == "meta"
