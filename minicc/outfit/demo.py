"""`minicc demo`: a paper doll redressed by a sentence (phase 1) and by the picture of a garment (phase 2)."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from minicc.data import dolls
from minicc.data.masks import clothes_in, paint
from minicc.data.write import check_writable, save_pictures
from minicc.models.controlnet import ControlNet
from minicc.outfit import phase1, phase2
from minicc.outfit.clothing import ClothingDetector
from minicc.pipeline import StableDiffusion, load


def demo(
    out: Path, steps: int = 50, seed: int = 0, device: str | None = None, dtype: torch.dtype | None = None
) -> list[Path]:  # fmt: skip
    """Redress a doll in both ways; returns the pictures written to `out`. Raises PictureError if they cannot be."""
    check_writable(out / "phase1.png")
    sd, doll, other = load("tiny", device, dtype), dolls.draw(seed, split="test"), dolls.draw(seed + 1, split="test")
    return [*by_sentence(sd, doll, other, out, steps, seed), *by_garment(sd, doll, other, out, steps, seed)]


def by_sentence(
    sd: StableDiffusion, doll: dolls.Doll, other: dolls.Doll, out: Path, steps: int, seed: int
) -> list[Path]:
    """Phase 1: the doll, a mask painted loosely over its clothes old and new, and what the other wears, in words."""
    worn = clothes_in(doll.index) | clothes_in(doll.wearing(other.outfit).index)
    mask = paint(worn, np.random.default_rng((seed,)), "loose")
    control = ControlNet.load("tiny-phase1", unet=sd.unet)
    result = phase1.generate(sd, control, doll.image, mask, other.outfit_text, steps=steps, seed=seed, progress=True)
    written = saved({"character": doll.image, "mask": result.mask, "result": result.image}, out, "phase1")
    print(f'"{other.outfit_text}": {written[-1]} (character, mask, result)')
    return written


def by_garment(
    sd: StableDiffusion, doll: dolls.Doll, other: dolls.Doll, out: Path, steps: int, seed: int
) -> list[Path]:
    """Phase 2: the doll, and a garment of the other doll's as a shop shows it; nobody paints."""
    garment = other.flat(next(slot for slot in other.slots if slot in ("top", "bottom", "onepiece")))
    control, detector = ControlNet.load("tiny-phase2", unet=sd.unet), ClothingDetector.load("tiny")
    result = phase2.generate(sd, control, doll.image, garment, detector=detector, steps=steps, seed=seed, progress=True)
    pictures = {"character": doll.image, "garment": garment, "mask": result.mask, "result": result.image}
    written = saved(pictures, out, "phase2")
    print(f"the garment, worn: {written[-1]} (character, garment, the mask found, narrowed to what changed, result)")
    print(f"its colours: ΔE2000 {result.colour_error:.1f} from the garment's")
    return written


def saved(pictures: dict[str, Image.Image], out: Path, phase: str) -> list[Path]:
    """Each picture as a file, and all side by side as the last one."""
    named = {f"{phase}-{name}": picture for name, picture in pictures.items()}
    named[phase] = strip(list(pictures.values()))
    return save_pictures({out / f"{name}.png": picture for name, picture in named.items()})


def strip(pictures: list[Image.Image], gap: int = 8) -> Image.Image:
    """Pictures side by side on white."""
    width = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    x = 0
    for picture in pictures:
        sheet.paste(picture, (x, 0), picture if picture.mode == "RGBA" else None)
        x += picture.width + gap
    return sheet
