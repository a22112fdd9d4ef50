"""What a drawing shows, and the plain ground that it stands on."""

import numpy as np
from PIL import Image

from minicc.data.tensors import on_white

SHARE = 0.8  # of the border that has one colour, at least: a sleeve or a skirt may be cut off by it
TOLERANCE = 12  # of 255: how far from the ground's colour a pixel of what is shown is at least


def plain_ground(image: Image.Image, tolerance: float = 6, share: float = 0.9) -> np.ndarray | None:
    """The colour of an RGB picture's border, (3,), if nearly all of the border has it; else None."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(float)  # (N, 3)
    colour = np.median(border, axis=0)
    return colour.round().astype(np.uint8) if (abs(border - colour).max(-1) <= tolerance).mean() >= share else None


def foreground(image: Image.Image) -> np.ndarray | None:
    """(H, W) bool: what is not transparent, or in an opaque picture not of its ground's colour; None: a busy ground."""
    if "A" in image.getbands() or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 128:
            return alpha >= 128
    picture = on_white(image)
    ground = plain_ground(picture, share=SHARE)
    if ground is None:
        return None
    return abs(np.asarray(picture).astype(np.int16) - ground.astype(np.int16)).max(-1) > TOLERANCE
