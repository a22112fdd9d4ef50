"""The stage that teaches the trainable copy to see a garment."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from minicc.data.masks import paint
from minicc.data.tensors import to_image, to_tensor
from minicc.models.blocks import keys_values
from minicc.models.controlnet import ControlNet
from minicc.models.garment import see
from minicc.models.zero_conv import lock
from minicc.outfit import phase2
from minicc.outfit.compose import latent_mask, make_hint
from minicc.pipeline import StableDiffusion
from minicc.training.data import Key, in_range
from minicc.training.draws import Draws, rng
from minicc.training.stages import Phase1Stage, dropped, grid, noised


class Phase2Stage(Phase1Stage):
    """Phase 1's stage, and a garment that the copy sees.

        L = E ‖w ⊙ (ε − ε_θ(x_t, t, ∅, c_hint, garment))‖²,   w² = 1 outside the mask, `inside` within

    A tenth of the batches have no garment but their sentence, as in phase 1: so the copy forgets nothing, and guidance
    can move from there towards the garment. With a garment the sentence is empty, and all that is known of the clothes
    is their picture.
    """

    without = 0.1  # the share of batches without a garment
    inside = 2.0  # how much more a latent cell inside the mask counts

    def __init__(self, sd: StableDiffusion, control: ControlNet, *args: Any, **kwargs: Any):
        """As phase 1's stage; the garment goes through the VAE in every step, as it varies."""
        super().__init__(sd, control, *args, **kwargs)
        self.vae = lock(sd.vae)

    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """batch: as for phase 1, and garment (B, 3, H, W) in [-1, 1]."""
        z = batch["latents"].to(self.empty)
        bare = draws.once() < self.without
        context = dropped(batch["context"].to(z), self.empty, self.drop if bare else 1.0, draws)
        hint = make_hint(batch["image"], batch["mask"]).to(z)
        x_t, t, target = noised(z, self.sd.schedule, draws)
        text = keys_values(self.control, context)
        if not bare:
            text |= see(self.control, self.sd.encode_image(batch["garment"]).to(z), self.empty)
        output = self.unet(x_t, t, context, self.control(x_t, t, text, hint))
        weight = 1 + (self.inside - 1) * latent_mask(batch["mask"], self.sd.vae.stride)  # (B, 1, h, w)
        error = F.mse_loss(output.float(), target.float(), reduction="none")
        return (weight * error).sum() / (weight.sum() * error.shape[1])

    def sheet(self) -> Image.Image | None:
        """Characters, garments, what the copy sees of the characters, and the garments worn: 20 steps, seed 0."""
        if not self.shown:
            return None
        images, masks, garments = (torch.stack([s[name] for s in self.shown]) for name in ("image", "mask", "garment"))
        made = [
            phase2.generate(self.sd, self.control, to_image(x), to_image(g), mask=m[0].numpy() > 0, steps=20).image
            for x, m, g in zip(images, masks, garments, strict=True)
        ]
        hints = make_hint(images, masks).clamp(min=0) * 2 - 1
        return grid([images, garments, hints, torch.cat([to_tensor(p) for p in made])])


class Worn(Dataset):
    """Dolls, one garment of each alone, and masks as hands paint them over it, fresh for every position of the run."""

    def __init__(
        self, dolls: dict[str, Tensor], worn: dict[str, Tensor], latents: Tensor, context: Tensor, seed: int,
        vary: bool = True,
    ):  # fmt: skip
        """dolls, worn: of dolls_cache; latents: (N, 4, h, w); context: (N, 77, D). vary: the garment's place, scale and
        mirror, so that nothing is learned from where it lies in its picture.
        """
        self.dolls, self.worn, self.latents, self.context = dolls, worn, latents, context
        self.seed, self.vary = seed, vary

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, position = key
        random = rng(self.seed, position, 3)
        painted = paint(self.worn["region"][index].numpy() > 0, random)
        flat = in_range(self.worn["flat"][index])
        return {
            "image": in_range(self.dolls["image"][index]),
            "mask": torch.from_numpy(painted.astype(np.float32))[None],
            "garment": varied(flat, random) if self.vary else flat,
            "latents": self.latents[index],
            "context": self.context[index],
            "name": f"doll {index}",
        }


def varied(flat: Tensor, random: np.random.Generator) -> Tensor:
    """A garment's picture (3, H, W) on white: scaled by 0.75 … 1.1, moved by up to a tenth, mirrored or not."""
    scale, mirror = random.uniform(0.75, 1.1), -1 if random.random() < 0.5 else 1
    dx, dy = random.uniform(-0.2, 0.2, 2)
    theta = torch.tensor([[mirror / scale, 0, dx], [0, 1 / scale, dy]], dtype=torch.float32)[None]
    where = F.affine_grid(theta, [1, *flat.shape], align_corners=False)
    return F.grid_sample(flat[None] - 1, where, align_corners=False)[0] + 1  # outside: 0, which is white
