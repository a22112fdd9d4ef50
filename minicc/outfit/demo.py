"""`minicc demo`: a paper doll, its clothes masked, a sentence, and the doll in what the sentence says."""

from pathlib import Path

from PIL import Image

from minicc.data import dolls
from minicc.data.masks import paint
from minicc.models.controlnet import ControlNet
from minicc.outfit import phase1
from minicc.pipeline import SHIPPED, StableDiffusion, load
from minicc.training.draws import rng

CLOTHES = (1, 2, 3)  # index classes of a doll that the demo repaints: top, bottom, one-piece


def demo(out: Path, steps: int = 50, seed: int = 0) -> list[Path]:
    """Draw a doll, paint a mask over its clothes, generate new ones; returns the pictures written to `out`."""
    sd, control = models()
    doll = dolls.draw(seed, split="test")
    layer = (doll.index[..., None] == CLOTHES).any(-1)
    mask = paint(layer, rng(seed), "loose")
    prompt = dolls.draw(seed + 1, split="test").outfit_text
    result = phase1.generate(sd, control, doll.image, mask, prompt, steps=steps, seed=seed, progress=True)
    pictures = {"character": doll.image, "mask": result.mask, "result": result.image}
    out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(out / f"{name}.png")
    strip(list(pictures.values())).save(out / "demo.png")
    print(f'"{prompt}": {out / "demo.png"} (character, mask, result)')
    return [out / f"{name}.png" for name in (*pictures, "demo")]


def models() -> tuple[StableDiffusion, ControlNet | None]:
    """The shipped models; while some are missing, what there is in their place, and a word about it."""
    if (SHIPPED / "tiny-phase1").is_dir():
        sd = load("tiny")
        return sd, ControlNet.load("tiny-phase1", unet=sd.unet)  # on its device and in its precision
    if (SHIPPED / "tiny").is_dir():
        print("No ControlNet ships yet: the locked base fills the mask alone, from the sentence and what surrounds it.")
        return load("tiny"), None
    from minicc.small import small_controlnet, small_stable_diffusion

    print("No trained weights ship yet: these are small and random, so the masked part will be noise.")
    sd = small_stable_diffusion()
    return sd, small_controlnet(sd)


def strip(pictures: list[Image.Image], gap: int = 8) -> Image.Image:
    """Pictures side by side on white."""
    width = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    x = 0
    for picture in pictures:
        sheet.paste(picture, (x, 0), picture if picture.mode == "RGBA" else None)
        x += picture.width + gap
    return sheet
