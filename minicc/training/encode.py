"""Latents and text embeddings, computed once and kept: what the locked models say of each sample never changes."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm, trange

from minicc.pipeline import StableDiffusion
from minicc.training.cache import digest_of, kept
from minicc.training.data import in_range


def latents_of(path: Path, sd: StableDiffusion, images: Tensor) -> Tensor:
    """Scaled latents of uint8 pictures, (N, 4, h, w) in half precision: a hundred thousand of 128 pixels are 200 MB.

    Kept at `path`; computed again if the pictures or the VAE's encoder are others.
    """
    return kept(path, digest_of(*encoder_of(sd), images), lambda: {"latents": encode_images(sd, images)})["latents"]


def encoder_of(sd: StableDiffusion) -> tuple[object, ...]:
    """All of the VAE that latents depend on: another decoder leaves them what they are."""
    return sd.vae.encoder, sd.vae.quant_conv, sd.vae.config.scaling_factor


@torch.no_grad()
def encode_images(sd: StableDiffusion, images: Tensor, batch: int = 32) -> Tensor:
    """(N, 4, h, w) float16 of (N, 3, H, W): uint8, or in [-1, 1]."""
    starts = trange(0, len(images), batch, desc="encoding pictures")
    parts = (images[i : i + batch] for i in starts)
    return torch.cat([sd.encode_image(x if x.is_floating_point() else in_range(x)).half().cpu() for x in parts])


def contexts_of(path: Path, sd: StableDiffusion, captions: list[str]) -> Tensor:
    """Text embeddings, (N, 77, D) in half precision, kept like latents."""
    digest = digest_of(sd.text_encoder, sorted(sd.tokenizer.get_vocab().items()), captions)
    return kept(path, digest, lambda: {"context": encode_captions(sd, captions)})["context"]


@torch.no_grad()
def encode_captions(sd: StableDiffusion, captions: list[str], batch: int = 64) -> Tensor:
    """(N, 77, D) float16."""
    starts = trange(0, len(captions), batch, desc="encoding captions")
    return torch.cat([sd.encode_text(captions[i : i + batch]).half().cpu() for i in starts])


def folder_latents(path: Path, sd: StableDiffusion, pictures: Dataset) -> Tensor:
    """(N, 2, 4, h, w) in half precision: of each picture and of its mirror image, kept like latents.

    pictures: dicts with image (3, H, W) in [-1, 1], read one after the other, so that any number of them fits.
    """
    digest = digest_of(*encoder_of(sd), *(digest_of(image) for image in images_of(pictures, "checking pictures")))
    return kept(path, digest, lambda: {"latents": encode_both_ways(sd, pictures)})["latents"]


@torch.no_grad()
def encode_both_ways(sd: StableDiffusion, pictures: Dataset) -> Tensor:
    pairs = (torch.stack([x, x.flip(-1)]) for x in images_of(pictures, "encoding pictures"))
    return torch.stack([sd.encode_image(pair).half().cpu() for pair in pairs])


def images_of(pictures: Dataset, saying: str) -> Iterator[Tensor]:
    """The pictures' tensors, with a progress bar."""
    for i in tqdm(range(len(pictures)), desc=saying):  # type: ignore[arg-type]
        yield pictures[i]["image"]
