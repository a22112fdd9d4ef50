"""The VAE's Gaussian over latents, against torch's own, and the sizes that go in and come out."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from minicc.models.configs import VAEConfig
from minicc.models.vae import VAE, Gaussian
from tests.parity.reference import randomize


def gaussian(generator: torch.Generator, count: int = 1) -> Gaussian:
    """Another mean and spread for each of two latents."""
    mean, logvar = torch.randn(2, 1, 2, 1, 1, generator=generator, dtype=torch.float64)
    return Gaussian(*(x.expand(count, -1, -1, -1) for x in (mean, logvar)))


def test_samples_have_the_mean_and_the_standard_deviation(generator):
    q = gaussian(generator, count=200_000)
    z = q.sample(generator)
    torch.testing.assert_close(z.mean(0), q.mean[0], rtol=0, atol=0.02)
    torch.testing.assert_close(z.std(0), (0.5 * q.logvar[0]).exp(), rtol=0.01, atol=0)


def test_the_kl_divergence_is_torchs(generator):
    q = gaussian(generator, count=3)
    expected = kl_divergence(Normal(q.mean, (0.5 * q.logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(q.kl(), expected.sum((1, 2, 3)))


def test_a_samples_gradient_reaches_mean_and_spread(generator):
    """∂z/∂mean = 1, ∂z/∂logvar = (z − mean)/2: the reparametrisation."""
    mean, logvar = (x.clone().requires_grad_() for x in (gaussian(generator).mean, gaussian(generator).logvar))
    z = Gaussian(mean, logvar).sample(generator)
    by_mean, by_logvar = torch.autograd.grad(z.sum(), (mean, logvar))
    torch.testing.assert_close(by_mean, torch.ones_like(mean))
    torch.testing.assert_close(by_logvar, (z - mean).detach() / 2)


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_each_level_but_the_last_halves_the_side(levels):
    vae = randomize(VAE(VAEConfig(block_out_channels=(8,) * levels, norm_num_groups=4, layers_per_block=1)))
    x = torch.zeros(1, 3, 3 * vae.stride, 2 * vae.stride)
    assert vae.stride == 2 ** (levels - 1)
    q = vae.encode(x)
    assert q.mean.shape == q.logvar.shape == (1, 4, 3, 2)
    assert vae.decode(q.mean).shape == x.shape


def test_the_log_variance_is_kept_within_its_bounds():
    vae = VAE(VAEConfig(block_out_channels=(8,), norm_num_groups=4, layers_per_block=1))
    with torch.no_grad():
        vae.quant_conv.bias[4:6], vae.quant_conv.bias[6:] = 1e4, -1e4
    logvar = vae.encode(torch.zeros(1, 3, 2, 2)).logvar
    assert (logvar[:, :2] == 20).all()
    assert (logvar[:, 2:] == -30).all()
