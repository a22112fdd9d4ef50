"""How well a detector tells which point of its garment's picture each pixel shows."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from minicc.data.dolls import Doll
from minicc.data.dolls.wardrobe import PATTERNED
from minicc.data.masks import bounds
from minicc.evaluation.edits import average
from minicc.outfit.clothing import ClothingDetector
from minicc.outfit.extent import Extent
from minicc.outfit.garment import placed
from minicc.outfit.laying import DOUBT, steps_between
from minicc.pipeline import StableDiffusion


def points_told(sd: StableDiffusion, detector: ClothingDetector, dolls: Sequence[Doll]) -> dict[str, float]:
    """Of the dolls' tops, bottoms and one-pieces, means over these garments.

    error: by how many pixels of the doll's picture the points are off, the median of a garment's. within_one: the
    share of pixels off by less than one. sure: the share that the detector believes well enough to be laid;
    sure_within_one: of those. box: the error if the garment's box in the doll's picture were stretched to its box
    in its own. Empty for a detector that has not learned points.
    """
    if detector.points is None:
        return {}
    rows = []
    for doll in tqdm(dolls, desc="reading points"):
        found = detector.find(sd, doll.image).points
        assert found is not None
        told, doubt = np.moveaxis(found[:2], 0, -1), found[2]
        for slot in (slot for slot in doll.slots if slot in PATTERNED):
            extent = placed(doll.flat(slot), doll.size).extent
            assert extent is not None
            true = extent.parts(doll.correspondence(slot))
            known = ~np.isnan(true).any(-1)
            if not known.any():
                continue
            step = float(np.nanmedian(steps_between(true)))
            off, box = (np.linalg.norm((p - true)[known], axis=-1) / step for p in (told, stretched(known, extent)))
            sure = doubt[known] < DOUBT * step
            right = off < 1
            rows.append((np.median(off), right.mean(), sure.mean(), average(right[sure]), np.median(box)))
    names = ("error", "within_one", "sure", "sure_within_one", "box")
    return {name: average([row[i] for row in rows]) for i, name in enumerate(names)}


def stretched(worn: np.ndarray, extent: Extent) -> np.ndarray:
    """The points (H, W, 2) if the box of what is worn, (H, W) bool, were stretched to that of the garment's picture."""
    height, width = worn.shape
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    left, top, right, bottom = bounds(worn)
    x = extent.left + (columns - left) / (right - left) * (extent.right - extent.left)
    y = extent.top + (rows - top) / (bottom - top) * (extent.bottom - extent.top)
    return extent.parts(np.stack([x, y], -1))
