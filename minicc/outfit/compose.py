"""Masks and pastes: what of the picture is generated, on which grid, and that nothing else changes."""

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import binary_propagation, maximum_filter
from torch import Tensor

from minicc.data.masks import clothes_in
from minicc.data.pictures import as_mask
from minicc.data.samples import CLASSES
from minicc.errors import PictureError


def read_mask(mask: Image.Image | np.ndarray, size: tuple[int, int], feather: int = 0) -> np.ndarray:
    """The declared mask, (H, W) bool: painted where the mask is at least half bright, grown outward by feather pixels.

    A picture is read as `open_mask` reads a file: an RGBA mask whose alpha varies by its alpha (painted on a
    transparent sheet), a palette of class numbers, or greys up to 15, by where these are clothes (hair and skin are
    none), others by brightness. An array (H, W) of booleans is the mask, one of numbers a grey picture of these.
    Raises PictureError for another size than the picture's, or if nothing is painted.
    """
    painted = brightness(mask) if isinstance(mask, Image.Image) else painted_in(np.asarray(mask))
    height, width = painted.shape
    if (width, height) != size:
        raise PictureError(
            f"mask is {width}×{height} but character is {size[0]}×{size[1]}: paint the mask on the same picture"
        )
    if not painted.any():
        raise PictureError(
            "the mask is empty, nothing in it is half bright: "
            "paint white over the clothes that shall change, black elsewhere"
        )
    for doubt in doubts(painted):
        warnings.warn(doubt, stacklevel=3)
    return grow(painted, feather)


def painted_in(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool from an array: of booleans as it is, of numbers as `open_mask` reads a grey picture."""
    if mask.ndim != 2 or not mask.size or mask.dtype.kind not in "biuf":
        what = f"an array of shape {mask.shape} and type {mask.dtype}"
        raise PictureError(f"mask is {what}; expected (height, width), booleans or grey values")
    if mask.dtype == bool:
        return mask
    kind = np.float32 if mask.dtype.kind == "f" else np.uint8 if mask.max() <= 255 else np.int32
    return brightness(Image.fromarray(mask.clip(0).astype(kind)))


def brightness(mask: Image.Image) -> np.ndarray:
    """(H, W) bool from a mask picture of any mode."""
    mask.load()  # until then a picture of 48 bits a pixel, which Pillow reads as 24, says that it is wide
    mask, _ = as_mask(mask, [])
    if mask.mode == "P":
        return clothed(np.asarray(mask))
    values = np.asarray(mask.convert("L"))
    if "A" in mask.getbands():
        alpha = np.asarray(mask.getchannel("A"))
        if alpha.max() == 0:
            raise PictureError("the mask is empty, transparent everywhere: paint over the clothes that shall change")
        if alpha.min() != alpha.max():
            if ((alpha >= 128) & (values < 128)).mean() > 0.02:
                warnings.warn(
                    "the mask is transparent in parts: what is not counts as painted, also black", stacklevel=4
                )
            values = alpha
    soft = ((values > 16) & (values < 239)).mean()
    if soft > 0.02:
        warnings.warn(f"{soft:.0%} of the mask is grey: half bright and more counts as painted", stacklevel=4)
    return values >= 128


def clothed(index: np.ndarray) -> np.ndarray:
    """(H, W) bool from class numbers: the clothes; all that is not 0, if there are none or the numbers are others."""
    clothes = clothes_in(index)
    return clothes if clothes.any() and index.max() < len(CLASSES) else index > 0


def doubts(painted: np.ndarray) -> list[str]:
    """What looks unintended about a mask, in words."""
    if painted.all():
        return ["the mask covers the whole picture: nothing of the character is kept"]
    edge = np.concatenate([painted[0], painted[-1], painted[:, 0], painted[:, -1]])
    above = painted[0].mean() > 0.9 and painted[-1].mean() < 0.5  # a bust's clothes reach the lower border
    if (above or edge.mean() > 0.9) and painted.mean() > 0.5:
        return ["the mask covers the border and leaves the middle: is it inverted? White is what changes"]
    return []


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask and all that lies within so many pixels of it (a square brush)."""
    if pixels < 0:
        raise PictureError(f"feather={pixels}: it grows the mask outward, 0 pixels or more")
    if pixels == 0:
        return mask
    return maximum_filter(mask, 2 * min(pixels, max(mask.shape)) + 1, mode="constant")


def latent_mask(mask: Tensor, stride: int) -> Tensor:
    """(B, 1, H, W) → (B, 1, H/8, W/8): a latent cell is generated if any of its pixels is masked."""
    return F.max_pool2d(mask, stride)


def blank(image: Tensor, mask: Tensor) -> Tensor:
    """The picture in [-1, 1] with the masked pixels grey: what the VAE may see of the character."""
    return image * (1 - mask)


def make_hint(image: Tensor, mask: Tensor) -> Tensor:
    """The picture in [0, 1], masked pixels −1 in all three channels (ControlNet 1.1 inpaint's convention).

    image: (B, 3, H, W) in [-1, 1]; mask: (B, 1, H, W), 1 where masked.
    """
    return torch.where(mask > 0.5, -1.0, (image + 1) / 2)


def seamless(generated: Tensor, image: Tensor, mask: Tensor, reach: int = 8) -> Tensor:
    """Generated pictures (B, 3, H, W) in [-1, 1] inside the mask, changed to meet the known pixels; these outside.

    The decoder misses the known pixels, too, by u = image − generated. Inside the mask, u starts at 0 and is averaged
    with its four neighbours again and again, as heat flows in from an edge that is held: Jacobi's method for ∇²u = 0,
    the membrane of Pérez et al. 2003 (Poisson Image Editing). reach² rounds carry it about `reach` pixels inward: by
    default one latent cell, and not into the middle of a garment, whose colours are right as they are.

    image: (1 or B, 3, H, W) in [-1, 1]; mask: (1 or B, 1, H, W), 1 where masked.
    """
    inside = mask > 0.5
    known = (image - generated).masked_fill(inside, 0)
    u = known
    for _ in range(reach**2):
        v = F.pad(u, (1, 1, 1, 1), mode="replicate")
        mean = (v[..., :-2, 1:-1] + v[..., 2:, 1:-1] + v[..., 1:-1, :-2] + v[..., 1:-1, 2:]) / 4
        u = torch.where(inside, mean, known)
    return torch.where(inside, (generated + u).clamp(-1, 1), image)


def paste(character: Image.Image, generated: Image.Image, mask: np.ndarray) -> Image.Image:
    """The character with the masked pixels from `generated` (RGB, on white), in the character's mode: RGB or RGBA.

    On a transparent background, masked pixels that are white and reach the transparent outside stay transparent.
    """
    out = np.array(character)  # (H, W, 3 or 4), a copy
    new = np.asarray(generated)
    out[mask, :3] = new[mask]
    if out.shape[-1] == 4:
        out[mask, 3] = np.where(background(out[..., 3] == 0, new, mask), 0, 255)[mask]
    return Image.fromarray(out, character.mode)


def background(transparent: np.ndarray, generated: np.ndarray, mask: np.ndarray, tolerance: int = 10) -> np.ndarray:
    """(H, W) bool: what is background after generation, by a flood of near-white from the transparent pixels outside.

    Without transparent pixels outside the mask, nothing is background.
    """
    outside = transparent & ~mask
    white = mask & (generated.min(-1) >= 255 - tolerance)
    return binary_propagation(outside, np.ones((3, 3)), mask=outside | white)
