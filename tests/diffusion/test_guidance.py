"""Guidance against a mixture of two Gaussians, whose scores and classifier are known."""

import pytest
import torch
from torch.distributions import Normal

from minicc.diffusion.ddim import ddim_sample
from minicc.diffusion.guidance import classifier_free_guidance, classifier_guidance, guided
from minicc.diffusion.schedule import NoiseSchedule
from minicc.errors import Error
from tests.diffusion.gaussians import normals

SCHEDULE = NoiseSchedule(spacing="trailing", set_alpha_to_one=True)
MEANS, STD = (-1.0, 1.5), 0.3  # two classes, equally likely


def class_log_densities(x, t):
    """log p(x_t | y) for both classes: (2, …)."""
    abar = SCHEDULE.alpha_bar(t, x)
    std = (abar * STD**2 + 1 - abar).sqrt()
    return torch.stack([Normal(abar.sqrt() * mean, std).log_prob(x) for mean in MEANS])


def log_prob_of_second(x, t):
    """The exact noisy classifier: log p(y = 1 | x_t), (B,)."""
    return class_log_densities(x, t).log_softmax(0)[1].flatten(1).sum(1)


def epsilon_of(log_density):
    """The exact noise prediction −√(1−ᾱ_t) ∇ log p(x_t), by autograd."""

    def epsilon(x, t):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (score,) = torch.autograd.grad(log_density(x, t).sum(), x)
        return -SCHEDULE.signal_and_noise(t, x)[1] * score

    return epsilon


uncond = epsilon_of(lambda x, t: class_log_densities(x, t).logsumexp(0))
cond = epsilon_of(lambda x, t: class_log_densities(x, t)[1])


@pytest.mark.parametrize("t", [20, 400, 900])
def test_a_classifier_turns_the_unconditional_noise_into_the_conditional(t):
    """Bayes: ∇log p(x|y) = ∇log p(x) + ∇log p(y|x). With the sign the other way it would not hold."""
    x = normals(6, 1)
    got = classifier_guidance(uncond(x, t), x, t, log_prob_of_second, 1.0, SCHEDULE)
    torch.testing.assert_close(got, cond(x, t))


def test_a_classifier_leads_samples_to_its_class():
    def model(x, t):
        return classifier_guidance(uncond(x, t), x, t, log_prob_of_second, 1.0, SCHEDULE)

    x = normals(2000, 1)
    assert (ddim_sample(uncond, x, SCHEDULE, 50) > 0.25).double().mean() < 0.6
    assert (ddim_sample(model, x, SCHEDULE, 50) > 0.25).double().mean() > 0.99


def test_classifier_free_guidance_is_guidance_by_the_classifier_it_implies():
    """Ho & Salimans 2022, section 3.2: the implicit classifier p(y|x) ∝ p(x|y)/p(x)."""
    x, t = normals(6, 1), 300
    free = classifier_free_guidance(cond(x, t), uncond(x, t), 3.0)
    torch.testing.assert_close(free, classifier_guidance(uncond(x, t), x, t, log_prob_of_second, 3.0, SCHEDULE))


def test_classifier_guidance_leaves_no_graph_and_takes_a_batch_of_timesteps():
    x, t = normals(3, 1), torch.tensor([20, 400, 900])
    got = classifier_guidance(uncond(x, t), x, t, log_prob_of_second, 1.0, SCHEDULE)
    assert not got.requires_grad
    torch.testing.assert_close(got, cond(x, t))


def test_scale_one_is_the_condition_and_scale_zero_is_none():
    c, u = normals(2, 2, 4, 3, 3)
    torch.testing.assert_close(classifier_free_guidance(c, u, 1.0), c)
    assert torch.equal(classifier_free_guidance(c, u, 0.0), u)
    torch.testing.assert_close(classifier_free_guidance(c, u, 7.5), (1 + 6.5) * c - 6.5 * u)  # eq. 6, w = 6.5


def test_rescale_gives_each_picture_the_spread_of_its_condition():
    """Lin et al. 2023, eq. 15 and 16."""
    c, u = normals(2, 2, 4, 3, 3)
    c = c * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    plain, full = (classifier_free_guidance(c, u, 7.5, rescale=phi) for phi in (0.0, 1.0))
    torch.testing.assert_close(full.flatten(1).std(1), c.flatten(1).std(1))
    assert (plain.flatten(1).std(1) > 2 * c.flatten(1).std(1)).all()
    torch.testing.assert_close(classifier_free_guidance(c, u, 7.5, rescale=0.7), 0.7 * full + 0.3 * plain)


def test_rescale_is_the_references():
    rescale_noise_cfg = pytest.importorskip(
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion"
    ).rescale_noise_cfg
    c, u = normals(2, 2, 4, 3, 3)
    expected = rescale_noise_cfg(u + 7.5 * (c - u), c, guidance_rescale=0.7)
    torch.testing.assert_close(classifier_free_guidance(c, u, 7.5, rescale=0.7), expected)


def test_rescale_outside_its_range_is_an_error():
    c = normals(1, 4)
    with pytest.raises(Error, match=r"rescale=1\.5: expected 0"):
        classifier_free_guidance(c, c, 7.5, rescale=1.5)


class Recorder:
    """A network that answers with its context's mean times x, and remembers how it was called."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, context):
        assert len(x) == len(t) == len(context)
        self.batches.append(len(x))
        return context.mean((1, 2)).view(-1, 1, 1, 1) * x


@pytest.mark.parametrize("empty", [1, 2])
def test_both_branches_run_in_one_call(empty):
    network, x, t = Recorder(), normals(2, 4, 3, 3), torch.tensor([5, 5])
    context, nothing = torch.full((2, 7, 8), 2.0), torch.full((empty, 7, 8), 0.5)
    got = guided(network, context, nothing, 3.0)(x, t)
    assert network.batches == [4]
    torch.testing.assert_close(got, (0.5 + 3 * (2.0 - 0.5)) * x)


def test_scale_one_runs_the_condition_alone():
    network, x = Recorder(), normals(2, 4, 3, 3)
    got = guided(network, torch.full((2, 7, 8), 2.0), torch.zeros(1, 7, 8), 1.0)(x, torch.tensor([5, 5]))
    assert network.batches == [2]
    torch.testing.assert_close(got, 2.0 * x)


def test_contexts_that_do_not_fit_are_an_error():
    with pytest.raises(Error, match=r"uncond_context is \(1, 77, 1024\) but context is \(2, 77, 768\)"):
        guided(Recorder(), torch.zeros(2, 77, 768), torch.zeros(1, 77, 1024), 7.5)
