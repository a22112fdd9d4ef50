"""DPM-Solver++(2M): of second order, and DDIM where it is of first."""

from itertools import pairwise

import pytest
import torch

from minicc.diffusion.ddim import ddim_sample, ddim_step
from minicc.diffusion.dpm_solver import dpm_solver_sample, dpm_solver_step, dpm_solver_steps
from minicc.diffusion.schedule import NoiseSchedule
from minicc.errors import Error
from tests.diffusion.gaussians import GaussianData, normals


def test_its_first_order_step_is_ddim():
    """Section 4.1 of the paper: DPM-Solver++(1) and deterministic DDIM are the same map."""
    schedule, (x, eps) = NoiseSchedule(), normals(2, 1, 6)
    abar_t, abar_s = schedule.alpha_bar(700, x), schedule.alpha_bar(600, x)
    x_0 = schedule.x_0_from(eps, x, 700)
    torch.testing.assert_close(dpm_solver_step(x, x_0, abar_t, abar_s), ddim_step(x_0, eps, abar_s))


def test_its_second_order_step_follows_a_line_of_predictions_better():
    """If x̂₀ is a straight line in λ, the end of the path is known: here by 4,000 tiny first-order steps."""
    schedule, x = NoiseSchedule(), normals(1, 6)
    u, t, s = (schedule.alpha_bar(n, x) for n in (800, 700, 600))
    lam = lambda abar: 0.5 * torch.logit(abar)  # noqa: E731
    line = lambda l: 0.3 + 0.2 * (l - lam(t))  # noqa: E731
    exact, grid = x, torch.linspace(lam(t).item(), lam(s).item(), 4_001, dtype=torch.float64)
    for a, b in pairwise(torch.sigmoid(2 * grid)):
        exact = dpm_solver_step(exact, line(0.5 * (lam(a) + lam(b))), a, b)
    second = dpm_solver_step(x, line(lam(t)), t, s, before=(line(lam(u)), u))
    first = dpm_solver_step(x, line(lam(t)), t, s)
    assert (second - exact).abs().max() < 0.2 * (first - exact).abs().max()


def errors_of(sample, steps: tuple[int, ...]) -> list[float]:
    """Distance from the exact end of the ODE, from x_T down to noise level 0, for Gaussian data."""
    schedule = NoiseSchedule("linear", spacing="linspace")
    world, x = GaussianData(schedule), normals(1, 8)
    exact = schedule.alpha_bar(0, x)
    z = (x - schedule.alpha_bar(999, x).sqrt() * world.mean) / world.std_at(999, x)
    end = exact.sqrt() * world.mean + world.std_at(0, x) * z
    return [(sample(world.epsilon, x, schedule, n) - end).abs().max().item() for n in steps]


def test_twice_the_steps_leave_a_quarter_of_the_error():
    def sample(*args):
        return dpm_solver_sample(*args, final_sigma="sigma_min", lower_order_final=False)

    errors = errors_of(sample, (50, 100, 200))
    assert all(a / b > 2.8 for a, b in pairwise(errors)), errors


@pytest.mark.parametrize("steps", [10, 20, 50])
@pytest.mark.parametrize("std", [0.5, 0.9])
def test_for_the_same_number_of_calls_it_ends_nearer_than_ddim(steps, std):
    """By trailing spacing, where both visit the same timesteps; narrow data (std 0.1) gain nothing from it."""
    schedule = NoiseSchedule(spacing="trailing", set_alpha_to_one=True)
    world, x = GaussianData(schedule, std=std), normals(1, 8)
    exact = world.x_0_on_the_ode(x, 999)
    solver, ddim = (f(world.epsilon, x, schedule, steps) for f in (dpm_solver_sample, ddim_sample))
    assert (solver - exact).abs().max() < 0.85 * (ddim - exact).abs().max()


def test_to_the_end_without_noise_the_result_is_the_last_prediction():
    world = GaussianData(NoiseSchedule())
    *_, final = dpm_solver_steps(world.epsilon, normals(2, 3), world.schedule, 20)
    torch.testing.assert_close(final.x, final.x_0)
    assert final.s < 0


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_it_makes_as_many_steps_as_asked(spacing):
    world = GaussianData(NoiseSchedule(spacing=spacing))
    assert len(list(dpm_solver_steps(world.epsilon, normals(1, 2), world.schedule, 7))) == 7


def test_an_unknown_final_sigma_is_an_error():
    with pytest.raises(Error, match="final_sigma='one' is unknown: choose one of zero, sigma_min"):
        dpm_solver_sample(lambda x, t: x, normals(1, 2), NoiseSchedule(), 5, final_sigma="one")
