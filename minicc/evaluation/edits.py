"""How good an edit inside a mask is, where the true picture is known: change outside, seam, lost parts, old outline.

Pictures are (H, W, 3) uint8 on white, masks (H, W) bool. The truth scores perfectly in all of them.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

from minicc.data.dolls.colours import CLOTH
from minicc.data.tensors import on_white
from minicc.evaluation.metrics import delta_e

BLOCK = 32  # pixels: seams are compared with the truth within blocks of so many
VISIBLE = 10.0  # ΔE2000 by which two pictures differ in plain sight
FEWEST = 16  # pixels; a region with less is not judged
NAMES = tuple(CLOTH)
NAMED = rgb2lab(np.array([CLOTH[name] for name in NAMES], np.uint8))  # (12, 3)


def outside_change(before: Image.Image, after: Image.Image, mask: np.ndarray) -> int:
    """The largest change of any value, alpha included, outside the mask: 0 … 255. 255 if the modes differ."""
    if before.mode != after.mode or before.size != after.size:
        return 255
    difference = np.abs(np.asarray(before).astype(int) - np.asarray(after))  # (H, W, 3 or 4)
    return int(difference[~mask].max(initial=0))


def seam(result: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """(jumps of the result, jumps of the truth) across the mask's edge; their ratio is 1 where there is no seam.

    A jump is the distance in Lab of two neighbours of which one is masked. They are summed in blocks of 32×32 pixels,
    and a block of the result counts at least what it does in the truth: an outline lost here makes up for no seam
    there.
    """
    ours, true = edge_jumps(result, mask), edge_jumps(truth, mask)
    return float(np.maximum(ours, true).sum()), float(true.sum())


def edge_jumps(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The jumps of every block, (⌈H/32⌉, ⌈W/32⌉)."""
    lab, (height, width) = rgb2lab(picture), mask.shape
    sums = np.zeros((-(-height // BLOCK), -(-width // BLOCK)))
    for down, right in ((1, 0), (0, 1)):
        here, there = np.s_[: height - down, : width - right], np.s_[down:, right:]
        ys, xs = np.nonzero(mask[here] != mask[there])
        jumps = np.linalg.norm(lab[here][ys, xs] - lab[there][ys, xs], axis=-1)
        np.add.at(sums, (ys // BLOCK, xs // BLOCK), jumps)
    return sums


def mean_delta_e(result: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    """The mean ΔE2000 to the truth over a region; nan if it is smaller than 16 pixels."""
    if where.sum() < FEWEST:
        return float("nan")
    return float(delta_e(result[where], truth[where]).mean())


def outline_share(result: np.ndarray, truth: np.ndarray, leaks: list[np.ndarray], where: np.ndarray) -> float:
    """How much of a changed outline is the new one: the share of pixels nearer to the truth than to any leak.

    leaks: the new clothes in the old outline, then whatever else could have stayed. where: the pixels in which the
    outlines differ, so that an outline that did not change scores 0 and not the half; of these, those that differ in
    plain sight. All pictures are blurred alike (σ = 1.5), so that a stripe or a line may lie a pixel off.
    nan if fewer than 16 pixels are left.
    """
    where = where & (delta_e(truth, leaks[0]) > VISIBLE)
    if where.sum() < FEWEST:
        return float("nan")
    seen, *known = (blurred(picture)[where] for picture in (result, truth, *leaks))
    to_truth, *to_leaks = (delta_e(seen, picture) for picture in known)
    return float(np.all([to_truth <= d for d in to_leaks], axis=0).mean())


def blurred(picture: np.ndarray) -> np.ndarray:
    return gaussian_filter(picture.astype(np.float32), (1.5, 1.5, 0)).round().astype(np.uint8)


def colour_name(pixels: np.ndarray) -> str:
    """The dolls' colour that is nearest in Lab to the mean of some pixels, (N, 3) uint8.

    A light and vivid pixel weighs more than a dark one, so that outlines and folds do not name a garment: by the
    median, six in ten garments of the LPC characters were black or brown.
    """
    lab = rgb2lab(pixels[None])[0]
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    weights = (lightness + 1) * (chroma + 5)  # black and grey weigh little, not nothing
    mean = np.average(lab, axis=0, weights=weights)
    return NAMES[int(np.linalg.norm(NAMED - mean, axis=-1).argmin())]


def colours_right(result: np.ndarray, truth: np.ndarray, index: np.ndarray) -> list[bool]:
    """Whether each garment has the colour of the truth, by name. index: (H, W), the truth's classes: 1 … 5 clothes."""
    regions = [index == number for number in range(1, 6)]
    return [colour_name(result[r]) == colour_name(truth[r]) for r in regions if r.sum() >= FEWEST]


def filled_with_mean(before: Image.Image, mask: np.ndarray) -> Image.Image:
    """The classical fill: the mean colour, on white, of what lay under the mask. RGB or RGBA, as `before`."""
    return filled(before, mask, np.asarray(on_white(before))[mask].mean(0))


def filled(before: Image.Image, mask: np.ndarray, colour: np.ndarray) -> Image.Image:
    """One colour, (3,), all over the mask. RGB or RGBA, as `before`."""
    pixels = np.array(before)
    pixels[mask] = 255  # the alpha, if there is one
    pixels[mask, :3] = colour.round()
    return Image.fromarray(pixels, before.mode)


def average(values: Sequence[float]) -> float:
    """The mean of what was measured; nan if nothing was."""
    found = np.asarray(values, float)
    found = found[~np.isnan(found)]
    return float(found.mean()) if found.size else float("nan")
