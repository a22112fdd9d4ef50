"""The stage that teaches a detector which point of its garment's picture each pixel of a dressed character shows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import trange

from minicc.models.zero_conv import lock
from minicc.outfit.clothing import ClothingDetector, Head, both_ways, looking
from minicc.pipeline import StableDiffusion
from minicc.training.data import Key, in_range
from minicc.training.detector_stage import at, centres
from minicc.training.draws import Draws, rng
from minicc.training.stage import SMALL, Stage
from minicc.training.stages import grid

PLACES = 96  # pixels of each picture that are kept
THROUGH = 0.75  # of the pictures, the share that goes through the VAE: what is read later was drawn by it
NOISE = 0.15  # the most noise on their latents, in parts of their deviation: a drawing is not as clean as a doll


class PointsStage(Stage):
    """One head learns where on the garment's picture each pixel lies, and how far it may be off.

        L = E |p − p̂|₁ / b + 2 log b

    The logarithm of Laplace's density with a scale b that the head tells itself: what it cannot know it learns to doubt
    (Kendall & Gal 2017, arXiv 1703.04977). The models and the detector's other heads stay as they are, so their maps
    are computed once, at some pixels of each picture.
    """

    lighter = SMALL

    def __init__(self, sd: StableDiffusion, detector: ClothingDetector, shown: Sequence[dict[str, Any]] = ()):
        """detector: with a head for points. shown: the samples of the validation sheet, dicts with image and points."""
        super().__init__()
        assert detector.points is not None
        self.sd, self.detector, self.shown = sd, lock(detector), shown
        self.head: Head = detector.points.requires_grad_(True)
        self.locked = nn.ModuleList([lock(sd.unet), lock(sd.vae), lock(sd.text_encoder)])

    @property
    def trained(self) -> nn.Module:
        return self.head

    def train(self, mode: bool = True) -> "PointsStage":
        super().train(mode)
        self.locked.eval()
        return self

    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """batch: maps (B, C, PLACES, 1), standardised, of all levels; points (B, PLACES, 2)."""
        maps = batch["maps"].to(next(self.head.parameters())).split(self.detector.channels, dim=1)
        x, y, log_b = self.detector.points_of(self.head(maps)[..., 0]).unbind(1)  # (B, PLACES) each
        off = (torch.stack([x, y], -1) - batch["points"].to(x)).abs().sum(-1)
        return (off / log_b.exp() + 2 * log_b).mean()

    @torch.no_grad()
    def sheet(self) -> Image.Image | None:
        """Three rows: pictures; their points, a colour each; what the head tells."""
        if not self.shown:
            return None
        images, points = (torch.stack([sample[name] for sample in self.shown]) for name in ("image", "points"))
        told = self.detector.points_in(both_ways(looking(self.sd, self.detector.t), images))
        assert told is not None
        known = ~points.isnan().any(-1)  # (B, H, W)
        return grid([images, coloured(points.permute(0, 3, 1, 2), known), coloured(told[:, :2].cpu(), known)])


def coloured(points: Tensor, known: Tensor) -> Tensor:
    """Points (B, 2, H, W) in [0, 1] as colours, (B, 3, H, W) in [-1, 1]; white where none is known."""
    x, y = points.nan_to_num().clamp(0, 1).unbind(1)
    colours = torch.stack([x, y, 1 - x], 1) * 2 - 1
    return torch.where(known[:, None], colours, 1.0)


class Shown(Dataset):
    """What a detector's features say at some pixels of dressed dolls, and which points these show; kept from before."""

    def __init__(self, kept: dict[str, Tensor]):
        """kept: of `maps_and_points`."""
        self.kept = kept

    def __len__(self) -> int:
        return len(self.kept["maps"])

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, _ = key
        maps, points = self.kept["maps"][index], self.kept["points"][index]
        return {"maps": maps[..., None], "points": points, "name": f"doll {index}"}


@torch.no_grad()
def maps_and_points(
    sd: StableDiffusion, detector: ClothingDetector, images: Tensor, points: Tensor, seed: int, batch: int = 16
) -> dict[str, Tensor]:
    """maps (N, C, PLACES) float16, standardised, of all levels, and points (N, PLACES, 2), at pixels that show any.

    images: (N, 3, H, W) uint8; points: (N, H, W, 2), NaN where none is shown. Most pictures go through the VAE first,
    half are mirrored. Those without any point are left out.
    """
    look, kept = looking(sd, detector.t), {"maps": list[Tensor](), "points": list[Tensor]()}
    for start in trange(0, len(images), batch, desc="reading features"):
        random = rng(seed, start, 12)
        known = points[start : start + batch].float()
        x = through(sd, in_range(images[start : start + batch]).to(sd.device), random)
        for i in np.flatnonzero(random.random(len(x)) < 0.5):
            x[i], known[i] = x[i].flip(-1), mirrored(known[i])
        some = [i for i in range(len(x)) if not known[i].isnan().all()]
        if not some:
            continue
        where, there = zip(*(places(known[i], random) for i in some), strict=True)
        maps = detector.standardised(look(x[some]))
        kept["maps"].append(torch.cat([at(m, torch.stack(where)) for m in maps], 1)[..., 0].half().cpu())
        kept["points"].append(torch.stack(there))
    return {name: torch.cat(parts) for name, parts in kept.items()}


def mirrored(points: Tensor) -> Tensor:
    """What the mirror image of a picture shows: (H, W, 2); the garment's own picture is mirrored, too."""
    x, y = points.flip(1).unbind(-1)
    return torch.stack([1 - x, y], -1)


def places(points: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Some pixels that show a point, (PLACES, 1, 2) in [-1, 1], and these points, (PLACES, 2)."""
    rows, columns = (~points.isnan().any(-1)).nonzero().unbind(1)
    chosen = torch.from_numpy(random.integers(len(rows), size=PLACES))
    height, width = points.shape[:2]
    u = torch.stack([(columns[chosen] + 0.5) / width, (rows[chosen] + 0.5) / height], -1)
    return centres(u, (height, width))[:, None], points[rows[chosen], columns[chosen]]


def through(sd: StableDiffusion, x: Tensor, random: np.random.Generator) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1]; most of them as the VAE gives them, from latents with a little noise."""
    chosen = np.flatnonzero(random.random(len(x)) < THROUGH)
    if len(chosen) == 0:
        return x
    z = sd.encode_image(x[chosen])
    much = torch.from_numpy(random.random((len(z), 1, 1, 1)) * NOISE).to(z)
    noise = torch.from_numpy(random.standard_normal(z.shape)).to(z)
    x = x.clone()
    x[chosen] = sd.decode_latents(z + much * noise).clamp(-1, 1).to(x)
    return x
