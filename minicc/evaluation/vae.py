"""`minicc evaluate vae`: how well pictures come back from their latents."""

from collections.abc import Sequence

import torch
from torch import Tensor

from minicc.data.dolls import Doll
from minicc.data.tensors import to_tensors
from minicc.evaluation.base import all_right, first_doll, pictures, test_dolls
from minicc.evaluation.goals import Figures
from minicc.evaluation.metrics import bytes_of, psnr, ssim
from minicc.evaluation.settled import Answers, each_right
from minicc.models.vae import VAE
from minicc.reader import AttributeReader


def evaluate_vae(vae: VAE, reader: AttributeReader, n: int = 200, seed: int = 0) -> Figures:
    """vae_psnr (dB) and vae_ssim of n test dolls in held-out combinations; the same of one garment of each, alone.

    reader_on_reconstruction: of how many dolls the reader still reads all clothes right; attributes: each of them.
    """
    dolls = test_dolls(first_doll(seed), n)
    images = pictures(dolls)
    right = Answers(dolls).right(reader.read(reconstructed(vae, images)).numpy())
    return {
        **likeness(vae, images, "vae"),
        **likeness(vae, garments(dolls), "garment"),
        "reader_on_reconstruction": all_right(right),
        "attributes": each_right(right, dolls),
    }


def garments(dolls: Sequence[Doll]) -> Tensor:
    """A garment of each doll as a shop shows it: (n, 3, 128, 128) in [-1, 1]."""
    return to_tensors(doll.flat(doll.slots[i % len(doll.slots)]) for i, doll in enumerate(dolls))


def likeness(vae: VAE, images: Tensor, name: str) -> dict[str, float]:
    """Means over the pictures, of each beside its reconstruction."""
    truth, again = bytes_of(images), bytes_of(reconstructed(vae, images))
    return {f"{name}_psnr": float(psnr(truth, again).mean()), f"{name}_ssim": float(ssim(truth, again).mean())}


@torch.no_grad()
def reconstructed(vae: VAE, images: Tensor, batch: int = 16) -> Tensor:
    """Decoded means of the posteriors, (n, 3, H, W), clipped to [-1, 1]; on the pictures' device, in their type."""
    here = next(vae.parameters())
    return torch.cat([vae.decode(vae.encode(x.to(here)).mean).to(images) for x in images.split(batch)]).clamp(-1, 1)
