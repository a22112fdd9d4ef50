"""How sure must a point be for the garment to be laid there? The thresholds of minicc/outfit/laying.py, each in turn.

    python benchmarks/laying.py [--n 32] [--seed 5] [--steps 25]

Dolls of no table, drawn once under true masks, then laid with every value of every threshold.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

import minicc
from minicc.data.tensors import on_white, to_image, to_tensors
from minicc.evaluation.phase2 import figures, reconstruction
from minicc.evaluation.wears import Wear, dressed, wears
from minicc.outfit import laying
from minicc.outfit.garment import Placed, placed
from minicc.outfit.reach import kinds_in
from minicc.reader import load_reader

VALUES = {"DOUBT": (0.25, 0.35, 0.7, 1.0), "OTHER": (15.0, 20.0, 35.0), "AROUND": (3.0, 8.0)}
SHOWN = ("garment", "colour", "pattern", "delta_e", "delta_e_raw", "ssim", "own_over_other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("n", 32), ("seed", 5), ("steps", 25)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    a = parser.parse_args()
    sd, detector, reader = minicc.load("tiny"), minicc.ClothingDetector.load("tiny"), load_reader()
    control = minicc.ControlNet.load("tiny-phase2", unet=sd.unet).eval()
    asked = wears(a.n, a.seed)
    masks, goal = [one.mask for one in asked], [reconstruction(sd, one) for one in asked]
    drawn = dressed(sd, control, asked, masks, "drawn", steps=a.steps, guidance=2.0)
    ready = [told(sd, detector, one, picture) for one, picture in zip(asked, drawn, strict=True)]
    print("| | " + " | ".join(SHOWN) + " |\n|" + "---|" * (len(SHOWN) + 1))

    def show(name: str, pictures: Sequence[Image.Image]) -> None:
        found = figures(pictures, asked, masks, goal, reader)
        print(f"| {name} | " + " | ".join(f"{found[key]:.3g}" for key in SHOWN) + " |", flush=True)

    def laid() -> list[Image.Image]:
        pairs = zip(ready, drawn, strict=True)
        return through(sd, asked, [Image.fromarray(laying.worn(*one)) if one else picture for one, picture in pairs])

    show("drawn", drawn)
    show("drawn, through the VAE", through(sd, asked, drawn))
    show("laid", laid())
    for name, values in VALUES.items():
        usual = getattr(laying, name)
        for value in values:
            setattr(laying, name, value)
            show(f"{name} {value:g} for {usual:g}", laid())
        setattr(laying, name, usual)


Told = tuple[np.ndarray, Placed, np.ndarray, np.ndarray, np.ndarray]  # what `laying.worn` takes


def told(sd: minicc.StableDiffusion, detector: minicc.ClothingDetector, one: Wear, drawn: Image.Image) -> Told | None:
    """A drawing and what the detector says of it; None where phase 2 lays nothing."""
    garment, now = placed(one.garment, sd.side), detector.find(sd, drawn)
    assert now.points is not None
    x, y, doubt = now.points
    x = 1 - x if one.theta[0, 0] < 0 else x  # whether it is mirrored, attention tells: here it is known
    region = now.layer("dress" if one.slot == "onepiece" else one.slot) & one.mask
    if not region.any() or not laying.layable(garment, kinds_in(sd, detector, garment)):
        return None
    return np.asarray(on_white(drawn)), garment, garment.lying(np.stack([x, y], -1)), doubt * garment.part, region


@torch.no_grad()
def through(sd: minicc.StableDiffusion, asked: Sequence[Wear], pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """The pictures as the VAE gives them, in their masks."""
    x = sd.decode_latents(sd.encode_image(to_tensors(pictures)))
    rows = zip(asked, x, strict=True)
    return [
        Image.fromarray(np.where(one.mask[..., None], np.asarray(to_image(p)), np.asarray(on_white(one.character))))
        for one, p in rows
    ]


if __name__ == "__main__":
    main()
