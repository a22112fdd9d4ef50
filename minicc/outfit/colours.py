"""How far the colours of a result are from the garment's: one number for each picture that is made."""

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment
from skimage.color import deltaE_ciede2000, rgb2lab

from minicc.outfit.garment import placed

DRAWN = 128  # pixels of the garment that are compared


def colour_error(garments: list[Image.Image], result: Image.Image, mask: np.ndarray, side: int = 128) -> float:
    """The mean ΔE2000 between the garments' colours and those generated; about 2 is hardly seen, 10 plainly.

    Nothing says which pixel shows which, so of all ways to give each of 128 garment pixels a generated pixel of its own
    the best is taken (the assignment problem, Kuhn 1955). Twice as many generated ones stand ready: what is skin or
    background under a loose mask may stay without a partner. mask: (H, W) bool, where it was generated.
    """
    seen = [placed(garment, side) for garment in garments]
    cloth = np.concatenate([np.asarray(one.picture)[one.shown] for one in seen])  # (N, 3)
    a, b = drawn(cloth, DRAWN), drawn(np.asarray(result.convert("RGB"))[mask], 2 * DRAWN)
    distance = deltaE_ciede2000(rgb2lab(a)[:, None], rgb2lab(b)[None])  # (128, 256)
    return float(distance[linear_sum_assignment(distance)].mean())


def drawn(pixels: np.ndarray, count: int) -> np.ndarray:
    """So many of the pixels (N, 3), always the same ones."""
    return pixels[np.random.default_rng(0).choice(len(pixels), count, replace=len(pixels) < count)]
