"""Pictures and masks as tensors and back: PIL at the surface, (B, C, H, W) in [-1, 1] inside."""

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def on_white(image: Image.Image) -> Image.Image:
    """RGB; what is transparent shows white, as the models were trained."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """A picture of any mode → (1, 3, H, W) in [-1, 1]."""
    array = np.asarray(on_white(image), dtype=np.float32)  # (H, W, 3)
    return torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1)[None]  # (1, 3, H, W)


def to_tensors(images: Iterable[Image.Image]) -> Tensor:
    """Pictures of one size → (B, 3, H, W) in [-1, 1]."""
    return torch.cat([to_tensor(image) for image in images])


def to_image(x: Tensor) -> Image.Image:
    """(3, H, W) or (1, 3, H, W) in [-1, 1], clipped → RGB."""
    array = x.detach().float().cpu().reshape(-1, *x.shape[-2:]).permute(1, 2, 0).numpy()  # (H, W, 3)
    return Image.fromarray(((array + 1) * 127.5).round().clip(0, 255).astype(np.uint8))


def mask_tensor(mask: np.ndarray) -> Tensor:
    """(H, W) bool → (1, 1, H, W) float, 1 where masked."""
    return torch.from_numpy(mask.astype(np.float32))[None, None]
