"""Latents and text embeddings, computed once and kept: what the locked models say of each sample never changes."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm, trange

from minicc.errors import PictureError
from minicc.pipeline import StableDiffusion
from minicc.training.cache import digest_of, kept
from minicc.training.data import in_range


def at_once(images: Tensor) -> int:
    """How many pictures (…, H, W) a VAE takes together: 32 of 128 × 128, 2 of 512 × 512, where SD's widest level then
    holds 0.3 GB a map.
    """
    return max(1, 32 * 128**2 // (images.shape[-2] * images.shape[-1]))


def latents_of(path: Path, sd: StableDiffusion, images: Tensor) -> Tensor:
    """Scaled latents of uint8 pictures and of their mirror images, (N, 2, 4, h, w) in half precision: of a hundred
    thousand of 128 pixels 400 MB.

    Kept at `path`; computed again if the pictures or the VAE's encoder are others.
    """
    digest = digest_of("both ways", *encoder_of(sd), images)
    return kept(path, digest, lambda: {"latents": encode_images(sd, images)})["latents"]


def encoder_of(sd: StableDiffusion) -> tuple[object, ...]:
    """All of the VAE that latents depend on: another decoder leaves them what they are."""
    return sd.vae.encoder, sd.vae.quant_conv, sd.vae.config.scaling_factor


def encode_images(sd: StableDiffusion, images: Tensor) -> Tensor:
    """(N, 2, 4, h, w) float16 of uint8 pictures (N, 3, H, W)."""
    batch = at_once(images)
    starts = trange(0, len(images), batch, desc="encoding pictures")
    return torch.cat([both_ways(sd, in_range(images[i : i + batch])) for i in starts])


@torch.no_grad()
def both_ways(sd: StableDiffusion, images: Tensor) -> Tensor:
    """Scaled latents of pictures (B, 3, H, W) in [-1, 1] and of their mirror images, (B, 2, 4, h, w) float16."""
    return torch.stack([sd.encode_image(x).half().cpu() for x in (images, images.flip(-1))], dim=1)


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
    return kept(path, digest, lambda: {"latents": encode_pictures(sd, pictures)})["latents"]


def encode_pictures(sd: StableDiffusion, pictures: Dataset) -> Tensor:
    return torch.cat([both_ways(sd, image[None]) for image in images_of(pictures, "encoding pictures")])


def images_of(pictures: Dataset, saying: str) -> Iterator[Tensor]:
    """The pictures' tensors, with a progress bar."""
    for i in tqdm(range(len(pictures)), desc=saying):  # type: ignore[arg-type]
        sample = pictures[i]
        if sample.get("number", i) != i:  # a folder's next sample: its latents would stand beside other words
            raise PictureError(f"{saying}: number {i} can no longer be read, as the warning says; start again")
        yield sample["image"]
