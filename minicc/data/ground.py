"""What a drawing shows, and the plain ground that it stands on."""

import numpy as np
from PIL import Image
from scipy.ndimage import label

from minicc.data.masks import Box, extent, neighbourhood
from minicc.data.pixel_art import square_side
from minicc.data.tensors import on_white

SHARE = 0.8  # of the border that has one colour, at least: a sleeve or a skirt may be cut off by it
OPAQUE = 128  # alpha from which on a pixel is shown
MARGIN = 40  # a figure's longer side is so many times the ground that is left beside it
FILLS = 0.9  # of its picture's longer side: a figure so large is as large as paper dolls are, and stays as it is
FILLS_PIXEL_ART = 0.7  # the same of pixel art no larger than what is seen: a crop would blow its pixels up unevenly
TOLERANCE = 12  # of 255: how far from the ground's colour a pixel of what is shown is at least


def plain_ground(image: Image.Image, tolerance: float = 6, share: float = 0.9) -> np.ndarray | None:
    """The colour of an RGB picture's border, (3,), if nearly all of the border has it; else None."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(float)  # (N, 3)
    colour = np.median(border, axis=0)
    return colour.round().astype(np.uint8) if (abs(border - colour).max(-1) <= tolerance).mean() >= share else None


def foreground(image: Image.Image) -> np.ndarray | None:
    """(H, W) bool: what is not transparent, or in an opaque picture not its ground; None: a busy ground.

    What is white on white, as a shirt's stripes, is shown, if it does not reach the border. Another ground's colour
    within the drawing is a hole: few clothes have just that colour.
    """
    alpha = transparency(image)
    if alpha is not None:
        return alpha >= OPAQUE
    picture = on_white(image)
    ground = plain_ground(picture, share=SHARE)
    if ground is None:
        return None
    like_ground = distance(picture, ground) <= TOLERANCE
    white = ground.min() >= 255 - TOLERANCE
    return ~(reaching_border(like_ground) if white else like_ground)


def clearness(image: Image.Image) -> np.ndarray:
    """(H, W), 0 to 1: how clearly a pixel is not ground; its alpha, or how far it is from a plain ground's colour."""
    alpha, picture = transparency(image), on_white(image)
    if alpha is not None:
        return alpha / 255
    ground = plain_ground(picture, share=SHARE)
    return np.ones(picture.size[::-1]) if ground is None else distance(picture, ground) / 255


def transparency(image: Image.Image) -> np.ndarray | None:
    """(H, W) uint8, the alpha of a picture of which something is transparent; else None."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return None
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    return alpha if alpha.min() < OPAQUE else None


def distance(picture: Image.Image, colour: np.ndarray) -> np.ndarray:
    """(H, W) int: how far each pixel of an RGB picture is from a colour (3,), in the channel where it is farthest."""
    return abs(np.asarray(picture).astype(np.int16) - colour.astype(np.int16)).max(-1)


def figure_box(image: Image.Image, side: int, marked: np.ndarray | None = None) -> Box | None:
    """Where a figure stands on a plain or transparent ground, with a margin like paper dolls; None: a busy ground,
    nothing on it, or a figure that fills the picture already.

    side: of the pictures that the models see; marked: (H, W) bool, what shall be in the box as well.
    """
    shown = foreground(image)
    if shown is None or not shown.any():
        return None
    shown = shown if marked is None else shown | marked
    left, top, right, bottom = box = neighbourhood(shown, margin=max(1, max(extent(shown)) // MARGIN))
    fills = FILLS_PIXEL_ART if max(image.size) <= side and square_side(image) > 1 else FILLS
    return box if max(right - left, bottom - top) < fills * max(image.size) else None


def reaching_border(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: those parts of a mask that touch the picture's border; pixels are joined by their sides."""
    parts, _ = label(mask)
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return np.isin(parts, np.unique(border[border > 0]))
