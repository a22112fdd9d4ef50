"""The measured figures that docs/scaling.md computes with: bytes a sample, samples a second, FLOPs a step.

    python benchmarks/scaling.py [--dolls 60] [--out docs/scaling.json]

FLOPs are counted, not timed: PyTorch's counter goes through one full-size phase-1 step on the meta device. The rest is
one small run: dolls drawn, their masks and pictures packed, latents of the full size written to shards and streamed.
"""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minicc.data import dolls
from minicc.data.masks import clothes_in, paint
from minicc.models.configs import TextConfig
from minicc.models.controlnet import ControlNet, trainable
from minicc.models.text import encode_text, text_encoder
from minicc.models.unet import UNet
from minicc.models.vae import VAE
from minicc.training.draws import rng
from minicc.training.shards import Shards, write_shards

SIDE, LATENT, WORDS, WIDTH = 512, (4, 64, 64), 77, 768  # of Stable Diffusion 1.5


def flops() -> dict[str, float]:
    """Of one picture: a phase-1 step, its parts, and what a cache saves."""
    with torch.device("meta"):
        unet, vae, text = UNet(), VAE(), text_encoder(TextConfig())
        control = ControlNet.from_unet(unet)
        image, ids = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, WORDS, dtype=torch.long)
        x, t, context = torch.zeros(1, *LATENT), torch.zeros(1), torch.zeros(1, WORDS, WIDTH)
    trainable(unet, control)

    def step() -> None:
        unet(x, t, context, control(x, t, context, image)).mean().backward()

    def full() -> None:
        unet.requires_grad_(True)
        unet(x, t, context).mean().backward()

    with torch.no_grad():
        found = {
            "U-Net, forward": counted(lambda: unet(x, t, context)),
            "VAE's encoder": counted(lambda: vae.encode(image)),
            "text encoder": counted(lambda: encode_text(text, ids)),
        }
    return found | {"phase-1 step": counted(step), "fine-tuning step of the U-Net": counted(full)}


def counted(run: object) -> float:
    with FlopCounterMode(display=False) as counter:
        run()  # type: ignore[operator]
    return float(counter.get_total_flops())


def states() -> dict[str, int]:
    """Bytes: locked weights in half precision, and all that AdamW training keeps of what learns, in float32."""
    with torch.device("meta"):
        unet = UNet()
        control = ControlNet.from_unet(unet)
    weights, copy = (sum(p.numel() for p in module.parameters()) for module in (unet, control))
    return {
        "locked U-Net, half precision": 2 * weights,
        "ControlNet in training": 16 * copy,
        "U-Net in training": 16 * weights,
    }


def characters(count: int) -> list[tuple[bytes, np.ndarray]]:
    """Dolls at full size as a data set would store them, WebP without loss, and where their clothes are."""
    drawn = (dolls.draw(seed, size=SIDE) for seed in range(count))
    return [(stored(doll.image.convert("RGB"), "WEBP", lossless=True), clothes_in(doll.index)) for doll in drawn]


def sample_bytes(some: list[tuple[bytes, np.ndarray]]) -> dict[str, float]:
    """Mean bytes of a sample's parts at full size."""
    masks = [len(stored(Image.fromarray(worn), "PNG")) for _, worn in some]
    latents = 2 * int(np.prod(LATENT))
    return {
        "picture, WebP without loss": float(np.mean([len(picture) for picture, _ in some])),
        "mask, PNG": float(np.mean(masks)),
        "latents, float16": latents, "token ids, uint16": 2 * WORDS, "text embedding, float16": 2 * WORDS * WIDTH,
    }  # fmt: skip


def stored(picture: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def stream(folder: Path, count: int = 2000) -> dict[str, float]:
    """Latents and token ids in shards: bytes a sample on disk, and how fast one process reads them."""
    write_shards(some_latents(count), folder, size=500)
    disk = sum(path.stat().st_size for path in folder.iterdir())
    start = time.perf_counter()
    for _ in islice(Shards(folder).samples(0), count):
        pass
    return {
        "bytes a sample in shards": disk / count,
        "samples a second, one process": count / (time.perf_counter() - start),
    }


def painting(some: list[tuple[bytes, np.ndarray]]) -> float:
    """How many samples of phase 1 one process makes a second of stored pictures: decoded, a mask painted over them."""
    start = time.perf_counter()
    for seed, (picture, worn) in enumerate(some):
        np.asarray(Image.open(io.BytesIO(picture)))
        paint(worn, rng(seed, 0, 3))
    return len(some) / (time.perf_counter() - start)


def some_latents(count: int) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        z = torch.randn(LATENT, generator=generator).half()
        yield {"latents": z, "ids": torch.zeros(WORDS, dtype=torch.uint16)}


def throughput(seconds: float = 10) -> float:
    """FLOPs a second that a forward pass of the tiny U-Net reaches on this machine: what an estimate is tried on."""
    from minicc.training.tiny import UNET

    unet: nn.Module = UNet(UNET).eval()
    given = torch.randn(8, 4, 16, 16), torch.zeros(8), torch.randn(8, WORDS, UNET.cross_attention_dim)
    with torch.no_grad():
        one = counted(lambda: unet(*given))
        runs, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            unet(*given)
            runs += 1
    return one * runs / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dolls", type=int, default=60, help="how many pictures the means are of")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/scaling.json"), help="all figures, as they were measured"
    )
    a = parser.parse_args()
    some = characters(a.dolls)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "FLOP a picture": flops(),
            "bytes": states() | sample_bytes(some),
            "shards": stream(Path(folder)),
            "samples a second, one process": {"pictures decoded, masks painted": painting(some)},
            "this machine, FLOP a second": {"tiny U-Net forward": throughput()},
        }
    for what, figures in found.items():
        for name, value in figures.items():
            print(f"{what:<30}{name:<40}{value:24,.0f}")
    a.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
