"""The stage that teaches the trainable copy to see a garment."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from minicc.data.masks import paint
from minicc.data.tensors import to_image, to_tensors
from minicc.errors import Error
from minicc.models.attention_maps import mass_on_truth
from minicc.models.blocks import KeysValues, Recording, keys_values
from minicc.models.controlnet import ControlNet
from minicc.models.zero_conv import lock
from minicc.outfit import phase2
from minicc.outfit.compose import make_hint
from minicc.outfit.garment import looked_at
from minicc.outfit.phase1 import prepare
from minicc.pipeline import StableDiffusion
from minicc.training.data import Key, in_range
from minicc.training.draws import Draws, rng
from minicc.training.stages import Phase1Stage, dropped, grid, noised


class Phase2Stage(Phase1Stage):
    """Phase 1's stage, and a garment that the copy sees.

        L = E λ_t Σ w (ε − ε_θ(x_t, t, ∅, c_hint, garment))² / Σ w      (λ_t and w: see `Phase1Stage.loss`)

    A tenth of the batches have no garment but their sentence, as in phase 1: so the copy forgets nothing, and guidance
    can move from there towards the garment. With a garment the sentence is empty, and all that is known of the clothes
    is their picture.
    """

    phase = 2
    without = 0.1  # the share of batches without a garment
    inside = 2.0

    def __init__(self, sd: StableDiffusion, control: ControlNet, *args: Any, supervise: float = 0.0, **kwargs: Any):
        """As phase 1's stage; the garment goes through the VAE in every step, as it varies.

        supervise: the weight of `attention_loss`; it needs the batch's `where`, and a control with joint attention.
        """
        super().__init__(sd, control, *args, **kwargs)
        if not supervise >= 0:
            raise Error(f"supervise={supervise}: a weight in the loss, expected 0 or more")
        self.vae, self.supervise = lock(sd.vae), supervise

    @property
    def told(self) -> dict[str, float]:
        return super().told | {"supervise": self.supervise}

    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """batch: as for phase 1, and garment (B, 3, H, W) in [-1, 1]; where (B, h, w, 2), if attention is taught."""
        z = batch["latents"].to(self.empty)
        bare = draws.once() < self.without
        context = dropped(self.context(batch).to(z), self.empty, self.drop if bare else 1.0, draws)
        hint = make_hint(batch["image"], batch["mask"]).to(z)
        x_t, t, target = noised(z, self.sd.schedule, draws)
        garment = {} if bare else looked_at(self.sd, self.control, batch["garment"], hint)
        text = keys_values(self.control, context) | garment
        text = Recording(text) if self.supervise else text  # for the loss on attention
        locked = keys_values(self.unet, context) | garment  # it finds nothing there, but in the way "decoder"
        output = self.unet(x_t, t, locked, self.control(x_t, t, text, hint))
        loss = self.loss(output, target, batch["mask"], t)
        if isinstance(text, Recording) and not bare:
            loss = loss + self.supervise * attention_loss(self.control, text, garment, batch["where"])
        return loss

    def sheet(self) -> Image.Image | None:
        """Characters, garments, what the copy sees of the characters, and the garments worn: 20 steps, seed 0."""
        if not self.shown:
            return None
        images, masks, garments = (torch.stack([s[name] for s in self.shown]) for name in ("image", "mask", "garment"))
        ready = [prepare(self.sd, to_image(x), m[0].numpy() > 0) for x, m in zip(images, masks, strict=True)]
        made = [r.image for r in phase2.batch(self.sd, self.control, ready, garments, [0] * len(ready), steps=20)]
        hints = make_hint(images, masks).clamp(min=0) * 2 - 1
        return grid([images, garments, hints, to_tensors(made)])


def attention_loss(control: ControlNet, recording: Recording, garment: KeysValues, where: Tensor) -> Tensor:
    """−log of the share of attention that lies on the true garment cell, mean over the cells that show one, then over
    the pictures, those that show none counting 0; 0-d.

    recording: the context of the characters' pass; where: see `attention_maps.true_cells`.
    """
    mass, known = mass_on_truth(control, recording, garment, where)  # (B, N)
    return -((mass.clamp(min=1e-6).log() * known).sum(1) / known.sum(1).clamp(min=1)).mean()


class Worn(Dataset):
    """Dolls, one garment of each alone, and masks, fresh for every position of the run: as hands paint them over it, or
    the automatic one; where there are latents of mirror images, half of the dolls are mirrored.
    """

    def __init__(
        self, dolls: dict[str, Tensor], worn: dict[str, Tensor], latents: Tensor, context: Tensor, seed: int,
        vary: bool = True, where: Tensor | None = None,
    ):  # fmt: skip
        """dolls, worn: of dolls_cache; latents: (N, 1 or 2, 4, h, w), the second of mirror images; context:
        (N, 77, D). vary: the garment's place, scale and mirror, so that nothing is learned from where it lies in its
        picture. where: (N, h, w, 2), of dolls_cache: the samples tell as well which point of the garment each cell
        shows.
        """
        self.where = where
        self.dolls, self.worn, self.latents, self.context = dolls, worn, latents, context
        self.seed, self.vary = seed, vary

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, position = key
        random = rng(self.seed, position, 3)
        mirrored = int(random.integers(self.latents.shape[1]))
        automatic = random.random() < AUTOMATIC
        image, region = self.dolls["image"][index], self.worn["reach" if automatic else "region"][index]
        if mirrored:
            image, region = image.flip(-1), region.flip(-1)
        mask = region.numpy() > 0 if automatic else paint(region.numpy() > 0, random)
        flat, theta = in_range(self.worn["flat"][index]), variation(random) if self.vary else UNMOVED
        sample = {
            "image": in_range(image),
            "mask": torch.from_numpy(mask.astype(np.float32))[None],
            "garment": moved(flat, theta) if self.vary else flat,
            "latents": self.latents[index, mirrored],
            "context": self.context[index],
            "name": f"doll {index}",
        }
        if self.where is None:
            return sample
        where = self.where[index].flip(1) if mirrored else self.where[index]  # (h, w, 2)
        return sample | {"where": moved_points(where.float(), theta)}


AUTOMATIC = 0.5  # of the masks; painted ones tell by their outline how long the garment is, and these do not
UNMOVED = torch.eye(2, 3)


def varied(flat: Tensor, random: np.random.Generator) -> Tensor:
    """A garment's picture (3, H, W) on white: scaled by 0.75 … 1.1, moved by up to a tenth, mirrored or not."""
    return moved(flat, variation(random))


def variation(random: np.random.Generator) -> Tensor:
    """(2, 3): from a point of the new picture, in [-1, 1], to the old one's. Mirrored, scaled, moved."""
    scale, mirror = random.uniform(0.75, 1.1), -1 if random.random() < 0.5 else 1
    dx, dy = random.uniform(-0.2, 0.2, 2)
    return torch.tensor([[mirror / scale, 0, dx], [0, 1 / scale, dy]], dtype=torch.float32)


def moved(flat: Tensor, theta: Tensor) -> Tensor:
    """A picture (3, H, W) on white, moved."""
    where = F.affine_grid(theta[None], [1, *flat.shape], align_corners=False)
    return F.grid_sample(flat[None] - 1, where, align_corners=False)[0] + 1  # outside: 0, which is white


def moved_points(points: Tensor, theta: Tensor) -> Tensor:
    """Points (…, 2) of a picture, in [0, 1], where they lie after `moved`: the inverse of theta."""
    return ((2 * points - 1 - theta[:, 2]) / theta.diagonal() + 1) / 2
