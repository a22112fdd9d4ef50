"""Metrics against closed forms and against pictures whose differences are known."""

import numpy as np
import pytest
import torch

from minicc.evaluation.metrics import bytes_of, delta_e, frechet, psnr, ssim


def test_psnr_of_a_constant_difference():
    a = np.full((2, 8, 8, 3), 100, np.uint8)
    b = a.copy()
    b[0] += 16
    found = psnr(a, b)
    assert found[0] == pytest.approx(20 * np.log10(255 / 16))
    assert found[1] == np.inf


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    little, much = (np.clip(a + rng.normal(0, s, a.shape), 0, 255).astype(np.uint8) for s in (5, 50))
    assert ssim(a, a)[0] == pytest.approx(1)
    assert 1 > ssim(a, little)[0] > ssim(a, much)[0]


def test_delta_e_on_pairs_of_the_papers_table():
    """Rows 17 to 20 of table 1 in Sharma et al. 2005, through Lab → sRGB bytes, so to the bytes' precision."""
    from skimage.color import lab2rgb

    one = np.array([[50.0, 2.5, 0.0]] * 4)
    other = np.array([[73.0, 25.0, -18.0], [61.0, -5.0, 29.0], [56.0, -27.0, -3.0], [58.0, 24.0, 15.0]])
    a, b = ((lab2rgb(lab) * 255).round().astype(np.uint8) for lab in (one, other))
    assert delta_e(a, b) == pytest.approx([27.1492, 22.8977, 31.9030, 19.4535], abs=1)
    assert delta_e(a, a) == pytest.approx([0] * 4, abs=1e-6)
    assert delta_e(np.zeros((1, 3), np.uint8), np.full((1, 3), 255, np.uint8)) == pytest.approx([100], abs=0.01)


def test_the_frechet_distance_of_two_gaussians_is_its_closed_form():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200_000, 2, generator=generator) * torch.tensor([1.0, 2.0])
    y = torch.randn(200_000, 2, generator=generator) * torch.tensor([3.0, 2.0]) + torch.tensor([1.0, 0.0])
    assert frechet(x, y) == pytest.approx(1 + (3 - 1) ** 2, rel=0.02)
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_of_fewer_pictures_than_features_is_a_number_without_a_warning(generator, recwarn):
    x = torch.randn(6, 20, generator=generator)
    assert frechet(x, x.flip(0)) == pytest.approx(0, abs=1e-4)
    assert frechet(x, x + 1) == pytest.approx(20)
    assert len(recwarn) == 0


def test_bytes_are_as_saved_pictures_hold_them():
    x = torch.tensor([-1.2, -1.0, 0.0, 1.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    assert bytes_of(x)[0, 0, :, 0].tolist() == [0, 0, 128, 255]
