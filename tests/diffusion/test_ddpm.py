"""DDPM's loss and sampler where the best network is known."""

import pytest
import torch

from minicc.diffusion.ddpm import ddpm_loss, ddpm_sample, ddpm_steps, min_snr_weight
from minicc.diffusion.schedule import NoiseSchedule
from minicc.errors import Error
from tests.diffusion.gaussians import GaussianData, normals

LINEAR = NoiseSchedule("linear")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_loss_of_the_best_network_is_what_cannot_be_known():
    """E Var(ε | x_t) = mean over t of ᾱ std²/(ᾱ std² + 1 − ᾱ), for Gaussian data; any other network loses more."""
    world = GaussianData(LINEAR, mean=0.2, std=0.7)
    x_0 = 0.2 + 0.7 * normals(40_000, 4)
    signal = LINEAR.alphas_cumprod.double() * 0.7**2
    expected = (signal / (signal + 1 - LINEAR.alphas_cumprod.double())).mean().item()
    best = ddpm_loss(world.epsilon, x_0, LINEAR, seeded()).item()
    assert best == pytest.approx(expected, rel=0.03)
    assert ddpm_loss(lambda x, t: 1.1 * world.epsilon(x, t), x_0, LINEAR, seeded()).item() > best


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_zero_for_a_network_that_knows_the_one_picture(prediction):
    schedule = NoiseSchedule(prediction=prediction)
    picture = torch.full((8, 3, 4, 4), 0.25, dtype=torch.float64)

    def model(x_t, t):
        a, s = schedule.signal_and_noise(t, x_t)
        return schedule.target(picture, (x_t - a * picture) / s, t)

    assert ddpm_loss(model, picture, schedule, seeded()).item() < 1e-12


def test_the_loss_draws_every_timestep_and_its_noise_from_the_generator():
    seen = []

    def model(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    losses = [ddpm_loss(model, torch.zeros(20_000, 1), LINEAR, seeded(n)).item() for n in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    assert losses[0] == pytest.approx(1, rel=0.05)  # ε has variance 1
    assert seen[0].unique().numel() == 1000


def test_the_loss_has_a_gradient():
    weight = torch.ones((), requires_grad=True)
    ddpm_loss(lambda x, t: weight * x, normals(4, 3), LINEAR, seeded()).backward()
    assert weight.grad is not None
    assert weight.grad != 0


def test_a_thousand_steps_draw_samples_spread_as_the_data_are():
    world = GaussianData(LINEAR, mean=-0.3, std=0.6)
    samples = ddpm_sample(world.epsilon, normals(2, 10_000, dtype=torch.float32), LINEAR, generator=seeded())
    assert samples.mean().item() == pytest.approx(-0.3, abs=0.02)
    assert samples.std().item() == pytest.approx(0.6, rel=0.03)


@pytest.mark.parametrize(("variance", "std"), [("fixed_small", 0.0), ("fixed_large", 1.0)])
def test_each_variance_is_exact_for_its_data(variance, std):
    """Section 3.2: β̃ is right for one picture, β for x_0 ~ N(0, I); then every x_s has its marginal's spread."""
    world = GaussianData(LINEAR, mean=0.0, std=std)
    x = normals(1, 40_000)
    other = {"fixed_small": "fixed_large", "fixed_large": "fixed_small"}[variance]
    worst = {}
    for choice in (variance, other):
        gaps = []
        for step in ddpm_steps(world.epsilon, x, LINEAR, 10, variance=choice, generator=seeded()):
            if step.s >= 0:
                abar = LINEAR.alphas_cumprod[step.s].item()
                gaps.append(abs(step.x.var().item() / (abar * std**2 + 1 - abar) - 1))
        worst[choice] = max(gaps)
    assert worst[variance] < 0.05, worst
    assert worst[other] > 0.2, worst


def test_no_noise_is_added_at_timestep_zero():
    world = GaussianData(LINEAR)
    for variance in ("fixed_small", "fixed_large"):
        *_, final = ddpm_steps(
            world.epsilon, normals(2, 3), NoiseSchedule("linear", steps_offset=0), 10, variance=variance,
            generator=seeded(),
        )  # fmt: skip
        assert final.t == 0
        assert torch.equal(final.x, final.x_0)


def test_sampling_without_a_generator_or_with_an_unknown_variance_is_an_error():
    with pytest.raises(Error, match="DDPM draws noise at every step: pass generator="):
        ddpm_sample(lambda x, t: x, normals(1, 2), LINEAR, 5)
    with pytest.raises(Error, match="variance='learned' is unknown: choose one of fixed_small, fixed_large"):
        ddpm_sample(lambda x, t: x, normals(1, 2), LINEAR, 5, variance="learned", generator=seeded())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weights_give_every_prediction_the_same_loss_on_the_picture(prediction):
    schedule = NoiseSchedule(prediction=prediction)
    x_0, noise, wrong = (normals(8, 3, seed=seed) for seed in (1, 2, 3))
    t = torch.tensor([0, 50, 150, 300, 500, 700, 900, 999])
    x_t = schedule.add_noise(x_0, noise, t)
    abar = schedule.alphas_cumprod[t].view(-1, 1)
    wrong_noise = (x_t - abar.sqrt() * wrong) / (1 - abar).sqrt()  # what a model that sees `wrong` in x_t would say
    output = schedule.target(wrong, wrong_noise, t)
    loss = min_snr_weight(schedule, t, 5.0) * (output - schedule.target(x_0, noise, t)).square().mean(1)
    snr = abar[:, 0] / (1 - abar[:, 0])
    assert snr[0] > 5 > snr[-1]
    torch.testing.assert_close(loss, snr.clamp(max=5) * (wrong - x_0).square().mean(1), rtol=1e-3, atol=1e-5)
