"""A picture of a garment, made ready: on white, centred, as the trainable copy was trained to see it."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minicc.data.folder import plain_ground
from minicc.data.tensors import on_white, to_tensor
from minicc.errors import PictureError
from minicc.models.blocks import KeysValues
from minicc.models.controlnet import ControlNet
from minicc.models.garment import see, together
from minicc.pipeline import StableDiffusion

MARGIN = 0.06  # of the side, around the garment
TOLERANCE = 12  # of 255: how far from the ground's colour a pixel of the garment is at least


def garment_picture(garment: Image.Image, side: int) -> Image.Image:
    """A garment of any size and mode → RGB on white, side × side, the garment in its middle.

    What is transparent, or has the colour of a plain ground, is cut away. Raises PictureError if there is nothing to
    see, or if the ground is busy: what is garment and what is not cannot be told there.
    """
    picture, shown = cut_out(garment)
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    if rows.size == 0:
        raise PictureError("the garment's picture is empty: expected a garment on a plain or transparent ground")
    pixels = np.where(shown[..., None], np.asarray(picture), 255).astype(np.uint8)
    piece = Image.fromarray(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = side * (1 - 2 * MARGIN) / max(piece.size)
    width, height = (max(1, round(n * scale)) for n in piece.size)
    sheet = Image.new("RGB", (side, side), "white")
    sheet.paste(piece.resize((width, height), Image.Resampling.LANCZOS), ((side - width) // 2, (side - height) // 2))
    return sheet


def cut_out(garment: Image.Image) -> tuple[Image.Image, np.ndarray]:
    """The picture on white, and where the garment is, (H, W) bool."""
    picture = on_white(garment)
    alpha = np.asarray(garment.convert("RGBA"))[..., 3]
    if alpha.min() < 128:
        return picture, alpha >= 128
    ground = plain_ground(picture)
    if ground is None:
        raise PictureError(
            "the garment's ground is busy: cut the garment out (transparent PNG), or show it on one plain colour"
        )
    return picture, abs(np.asarray(picture).astype(int) - ground).max(-1) > TOLERANCE


@torch.no_grad()
def seen(sd: StableDiffusion, control: ControlNet, garments: list[Image.Image]) -> KeysValues:
    """What the copy sees of one garment, or of several worn together."""
    empty = sd.encode_text([""])
    return together(*(see(control, latents_of(sd, picture), empty) for picture in garments))


def latents_of(sd: StableDiffusion, garment: Image.Image) -> Tensor:
    """(1, 4, h, w)."""
    return sd.encode_image(to_tensor(garment_picture(garment, sd.side)))
