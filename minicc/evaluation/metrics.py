"""Figures of merit for pictures: how far from the truth, pixel by pixel and as a population."""

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity
from torch import Tensor


def bytes_of(x: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] → (B, H, W, 3) uint8, as saved pictures hold it."""
    array = (x.detach().float().cpu().clamp(-1, 1) + 1) * 127.5
    return array.round().permute(0, 2, 3, 1).numpy().astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """10 log₁₀(255² / mean (a − b)²) of each picture, dB. a, b: (B, H, W, 3) uint8. Returns (B,); ∞ where equal."""
    error = np.square(a.astype(np.float64) - b).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / error)


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of each picture (Wang et al. 2004: Gaussian window, σ = 1.5). Returns (B,)."""
    return np.array([ssim_map(x, y).mean() for x, y in zip(a, b, strict=True)])


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same for every pixel of one picture, (H, W): the mean over its channels."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(a, b, channel_axis=-1, data_range=255, full=True, **options)[1].mean(-1)


def iou(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> float:
    """Intersection over union of two masks, over all pictures; 1 if both are empty."""
    union = (a | b).sum().item()
    return (a & b).sum().item() / union if union else 1.0


def delta_e(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """CIEDE2000 colour difference of each pixel (Sharma et al. 2005); 1 is just noticeable. (…, 3) uint8 → (…)."""
    return deltaE_ciede2000(rgb2lab(a), rgb2lab(b))


def frechet(x: Tensor, y: Tensor) -> float:
    """Fréchet distance of two populations of features (N, D), as if both were Gaussian (Heusel et al. 2017).

    ‖μ_x − μ_y‖² + tr(Σ_x + Σ_y − 2 (Σ_x Σ_y)^½)

    Σ_x Σ_y has the eigenvalues of Σ_x^½ Σ_y Σ_x^½, which is symmetric: that holds for N < D, too.
    """
    a, b = x.double().numpy(), y.double().numpy()
    sx, sy = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(sx)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T  # Σ_x^½
    overlap = np.sqrt(np.linalg.eigvalsh(root @ sy @ root).clip(0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(sx + sy) - 2 * overlap)
