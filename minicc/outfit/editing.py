"""An automatic mask as a person would correct it: holes filled, grown or shrunk, what must stay taken out."""

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes, generate_binary_structure, label

from minicc.errors import PictureError

DISK = generate_binary_structure(2, 1)  # the four neighbours: so many times make a diamond, nearly a disk


def edited(
    layer: np.ndarray, *, grow: int = 0, fill: bool = True, smallest: int = 0, without: np.ndarray | None = None
) -> np.ndarray:
    """A mask made better, (H, W) bool.

    layer: (H, W) bool. smallest: spots of fewer pixels are dropped first. fill: holes are filled. grow: pixels outward,
    or inward if below 0. without: what never belongs to it, such as hair, face and hands; taken out last.
    Raises PictureError if `without` has another size.
    """
    if without is not None and without.shape != layer.shape:
        raise PictureError(
            f"the mask is {layer.shape}, what must stay {without.shape}: expected the same height, width"
        )
    mask = without_spots(layer, smallest) if smallest else layer
    mask = binary_fill_holes(mask) if fill else mask
    if grow:
        change = binary_dilation if grow > 0 else binary_erosion
        mask = change(mask, DISK, iterations=min(abs(grow), sum(mask.shape)))  # of SciPy's, a C int
    return mask if without is None else mask & ~without


def without_spots(layer: np.ndarray, smallest: int) -> np.ndarray:
    """The layer without its connected parts of fewer pixels than `smallest`."""
    parts, _ = label(layer, generate_binary_structure(2, 2))
    large = np.bincount(parts.ravel()) >= smallest
    large[0] = False  # the background
    return large[parts]
