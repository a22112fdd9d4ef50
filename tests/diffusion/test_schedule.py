"""The noise schedule against what its words mean: chains of single steps, joint Gaussians, densities on a grid."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minicc.diffusion.schedule import PREDICTIONS, NoiseSchedule
from minicc.errors import Error
from tests.diffusion.gaussians import normals

KINDS = ("linear", "scaled_linear", "cosine")


def chain_moments(schedule: NoiseSchedule, t: int) -> tuple[float, float]:
    """Factor on x_0 and variance of x_t, by walking x_i = √(1−β_i) x_{i−1} + √β_i ε, one β at a time."""
    factor, variance = 1.0, 0.0
    for beta in schedule.betas[: t + 1].double().tolist():
        factor, variance = math.sqrt(1 - beta) * factor, (1 - beta) * variance + beta
    return factor, variance


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [0, 1, 300, 999])
def test_one_jump_to_t_is_the_chain_of_all_single_steps(kind, t):
    """q(x_t | x_0) of eq. 4 against the definition of the forward process, eq. 2."""
    schedule = NoiseSchedule(kind)
    factor, variance = chain_moments(schedule, t)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    assert schedule.add_noise(one, zero, t).item() == pytest.approx(factor, rel=3e-4, abs=1e-7)
    assert schedule.add_noise(zero, one, t).item() == pytest.approx(math.sqrt(variance), rel=3e-4)


def test_the_default_is_stable_diffusion_and_linear_is_ddpm():
    sd, ddpm = NoiseSchedule(), NoiseSchedule("linear")
    assert sd.betas[[0, -1]].tolist() == pytest.approx([0.00085, 0.012])
    assert ddpm.betas[[0, -1]].tolist() == pytest.approx([0.0001, 0.02])
    assert sd.alphas_cumprod[-1].item() == pytest.approx(0.00466, rel=1e-3)  # the noise SD never quite reaches
    assert NoiseSchedule("linear", beta_start=0.001).betas[[0, -1]].tolist() == pytest.approx([0.001, 0.02])


def test_cosine_follows_the_cosine_until_its_beta_is_capped():
    """ᾱ_t = f(t)/f(0) (Nichol & Dhariwal 2021, eq. 17), although the table is built of capped β."""
    u = torch.arange(1, 1001, dtype=torch.float64) / 1000
    f = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    expected = f / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    schedule = NoiseSchedule("cosine")
    torch.testing.assert_close(schedule.alphas_cumprod[:990].double(), expected[:990], rtol=1e-4, atol=1e-6)
    assert schedule.betas.max().item() == pytest.approx(0.999)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_terminal_snr_leaves_nothing_of_the_picture_and_the_first_step_as_it_was(kind):
    plain, rescaled = NoiseSchedule(kind), NoiseSchedule(kind, prediction="v_prediction", zero_terminal_snr=True)
    assert rescaled.snr[-1] == 0 < plain.snr[-1]
    assert rescaled.alphas_cumprod[0].item() == pytest.approx(plain.alphas_cumprod[0].item(), rel=1e-6)
    root, before = rescaled.alphas_cumprod.sqrt(), plain.alphas_cumprod.sqrt()
    slope = root.diff() / before.diff()  # √ᾱ is shifted and scaled as a whole
    torch.testing.assert_close(slope, slope[500].expand(999), rtol=2e-2, atol=0)


def test_snr_is_signal_power_over_noise_power(generator):
    schedule = NoiseSchedule()
    x_0, noise = torch.randn(2, 1, 100_000, generator=generator)
    for t in (10, 500, 900):
        signal, rest = (schedule.add_noise(a, b, t).var() for a, b in ((x_0, 0 * noise), (0 * x_0, noise)))
        assert (signal / rest).item() == pytest.approx(schedule.snr[t].item(), rel=0.05)


# ── the posterior, by two ways that do not know its formula ───────────────────────────────────────────────────────


@pytest.mark.parametrize(("t", "s"), [(1, 0), (500, 499), (999, 998), (981, 961), (600, 100)])
def test_the_posterior_is_the_conditional_of_the_joint_gaussian(t, s):
    """(x_s, x_t) given x_0 is jointly normal; conditioning on x_t is linear algebra: μ_s + Σ_st Σ_tt⁻¹ (x_t − μ_t)."""
    schedule, x_0, x_t = NoiseSchedule(), 0.7, -0.4
    (a, var_s), (b, var_t) = chain_moments(schedule, s), chain_moments(schedule, t)
    cov = b / a * var_s  # x_t = (b/a) x_s + independent noise
    mean = a * x_0 + cov / var_t * (x_t - b * x_0)
    variance = var_s - cov**2 / var_t
    got, got_variance = schedule.posterior(*(torch.full((1, 1), v, dtype=torch.float64) for v in (x_0, x_t)), t, s)
    assert got.item() == pytest.approx(mean, rel=1e-3, abs=1e-4)
    assert got_variance.item() == pytest.approx(variance, rel=1e-3)


@pytest.mark.parametrize("t", [5, 400, 999])
def test_the_posterior_is_the_normalised_product_of_two_densities(t):
    """Bayes on a grid: q(x_{t−1} | x_t, x_0) ∝ q(x_t | x_{t−1}) q(x_{t−1} | x_0)."""
    schedule, x_0, x_t = NoiseSchedule("linear"), 0.3, 0.9
    beta, (factor, variance) = schedule.betas[t].item(), chain_moments(schedule, t - 1)
    x = torch.linspace(-8, 8, 400_001, dtype=torch.float64)
    log_density = -((x_t - math.sqrt(1 - beta) * x) ** 2) / (2 * beta) - (x - factor * x_0) ** 2 / (2 * variance)
    p = log_density.softmax(0)
    mean = (p * x).sum()
    point = (torch.full((1, 1), v, dtype=torch.float64) for v in (x_0, x_t))
    got, got_variance = schedule.posterior(*point, t)
    assert got.item() == pytest.approx(mean.item(), abs=1e-4)
    assert got_variance.item() == pytest.approx((p * (x - mean) ** 2).sum().item(), rel=2e-3)


def test_the_large_variance_is_that_of_the_forward_step():
    """β from s to t is 1 − Π α over the steps between (section 3.2's other choice)."""
    schedule, x = NoiseSchedule(), torch.zeros(1, 1)
    _, large = schedule.posterior(x, x, 700, 650, variance="fixed_large")
    assert large.item() == pytest.approx(1 - schedule.alphas[651:701].double().prod().item(), rel=1e-4)
    _, small = schedule.posterior(x, x, 700, 650)
    assert small < large


def test_the_posterior_of_the_end_is_the_picture_itself():
    x_0, x_t = normals(2, 1, 4)
    mean, variance = NoiseSchedule().posterior(x_0, x_t, 0)
    torch.testing.assert_close(mean, x_0)
    assert variance == 0


def test_the_posterior_takes_a_batch_of_timesteps():
    schedule, (x_0, x_t) = NoiseSchedule(), normals(2, 3, 4, 2, 2)
    mean, variance = schedule.posterior(x_0, x_t, torch.tensor([0, 40, 999]))
    for i, t in enumerate((0, 40, 999)):
        one, one_variance = schedule.posterior(x_0[i : i + 1], x_t[i : i + 1], t)
        torch.testing.assert_close(mean[i : i + 1], one)
        torch.testing.assert_close(variance[i].squeeze(), one_variance)


# ── predictions ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(t=st.integers(0, 999), prediction=st.sampled_from(PREDICTIONS), kind=st.sampled_from(KINDS[:2]))
def test_whatever_is_predicted_x_0_epsilon_and_v_come_back(t, prediction, kind):
    schedule = NoiseSchedule(kind, prediction=prediction)
    x_0, noise = normals(2, 3, 4, seed=t)
    x_t = schedule.add_noise(x_0, noise, t)
    output = schedule.target(x_0, noise, t)
    found_x_0, found_noise = schedule.split(output, x_t, t)
    torch.testing.assert_close(found_x_0, x_0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found_noise, noise, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(schedule.velocity_from(output, x_t, t), schedule.velocity(x_0, noise, t))


def test_v_is_the_speed_along_the_circle_from_picture_to_noise():
    """With √ᾱ = cos φ, √(1−ᾱ) = sin φ: v = dx_φ/dφ (Salimans & Ho 2022), here by finite differences."""
    schedule, (x_0, noise) = NoiseSchedule(), normals(2, 1, 5)
    phi, d = schedule.alpha_bar(300, x_0).sqrt().acos(), 1e-5
    speed = ((phi + d).cos() * x_0 + (phi + d).sin() * noise - (phi - d).cos() * x_0 - (phi - d).sin() * noise) / (
        2 * d
    )
    torch.testing.assert_close(schedule.velocity(x_0, noise, 300), speed, rtol=1e-6, atol=1e-8)


def test_a_batch_of_timesteps_is_each_of_them_alone():
    schedule, (x_0, noise) = NoiseSchedule(prediction="v_prediction"), normals(2, 3, 4, 2, 2, dtype=torch.float32)
    t = torch.tensor([-1, 40, 999])
    for method in (schedule.add_noise, schedule.velocity, schedule.x_0_from, schedule.epsilon_from):
        together = method(x_0, noise, t)
        apart = [method(x_0[i : i + 1], noise[i : i + 1], int(t[i])) for i in range(3)]
        torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_dtype_of_x_is_kept(dtype, prediction):
    schedule, (x, y) = NoiseSchedule(prediction=prediction), normals(2, 2, 3, dtype=torch.float32).to(dtype)
    for t in (500, torch.tensor([1, 500])):
        got = (schedule.add_noise(x, y, t), schedule.target(x, y, t), *schedule.split(x, y, t))
        got = (*got, schedule.velocity_from(x, y, t), schedule.posterior(x, y, t)[0])
        assert {g.dtype for g in got} == {dtype}


def test_below_zero_is_the_end():
    """Trap 9: Stable Diffusion's last step goes to ᾱ_0 (`alphas_prev[0] = alphas_cumprod[0]`), others' to 1."""
    x_0, noise = normals(2, 2, 3)
    to_one, stable = NoiseSchedule(set_alpha_to_one=True), NoiseSchedule()
    assert torch.equal(to_one.add_noise(x_0, noise, -19), x_0)
    assert torch.equal(stable.add_noise(x_0, noise, -19), stable.add_noise(x_0, noise, 0))
    assert stable.alpha_bar(torch.tensor([-5, 0, 3])).tolist() == stable.alphas_cumprod[[0, 0, 3]].tolist()


# ── timesteps ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spacing", "first", "last"), [("leading", 901, 1), ("trailing", 999, 99), ("linspace", 999, 0)]
)
def test_ten_timesteps_of_each_spacing(spacing, first, last):
    """Lin et al. 2023, table 2 (and Stable Diffusion's offset of 1 for leading)."""
    ts = NoiseSchedule(spacing=spacing).timesteps(10)
    assert (ts[0], ts[-1], len(ts)) == (first, last, 10)
    assert (ts.diff() < 0).all()


def test_leading_hands_every_level_over_to_the_next_step():
    pairs = NoiseSchedule().pairs(30)
    assert [s for _, s in pairs[:-1]] == [t for t, _ in pairs[1:]]
    assert pairs[-1][0] == 1
    assert pairs[-1][1] < 0


def test_thirty_steps_are_thirty_although_compvis_makes_them_thirty_one():
    """Trap 9: the official DDIM takes 1 + range(0, 1000, 1000 // S): for S = 30 one too many, for S = 50 ours."""
    compvis = {steps: [1 + t for t in range(0, 1000, 1000 // steps)][::-1] for steps in (30, 50)}
    ours = {steps: NoiseSchedule().timesteps(steps).tolist() for steps in (30, 50)}
    assert len(compvis[30]) == 31
    assert len(ours[30]) == 30
    assert ours[30] == compvis[30][1:]
    assert ours[50] == compvis[50]


def test_a_thousand_steps_with_an_offset_run_off_the_table_and_say_so():
    assert max(1 + t for t in range(0, 1000, 1)) == 1000  # CompVis: past ᾱ_999
    with pytest.raises(Error, match="steps=1000 and steps_offset=1 start at t=1000, the last is 999"):
        NoiseSchedule().timesteps(1000)
    assert NoiseSchedule(steps_offset=0).timesteps(1000).tolist() == list(range(999, -1, -1))
