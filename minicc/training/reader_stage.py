"""The stage that trains the attribute reader."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from minicc.data.dolls.facts import FACTS
from minicc.models.vae import VAE
from minicc.models.zero_conv import lock
from minicc.reader import AttributeReader
from minicc.training.data import Key, in_range
from minicc.training.draws import Draws, rng
from minicc.training.stage import SMALL, Stage
from minicc.weights.export import write_safetensors


class ReaderStage(Stage):
    """The reader learns every fact at once: the sum of the facts' cross entropies.

    Half of the pictures are blurred, noisy or moved a little, so that it does not judge drawings by their sharpness.
    """

    lighter = SMALL

    def __init__(self, reader: AttributeReader, vae: VAE | None = None):
        """vae: every other picture goes through it, as all do that a Stable Diffusion draws."""
        super().__init__()
        self.reader, self.vae = reader.requires_grad_(True), vae and lock(vae)

    @property
    def trained(self) -> nn.Module:
        return self.reader

    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """batch: image (B, 3, 128, 128) in [-1, 1], facts (B, len(FACTS))."""
        x = batch["image"] if self.vae is None else reconstructed(self.vae, batch["image"])
        logits = self.reader(worn_out(x, draws))
        columns = zip(logits.values(), batch["facts"].long().unbind(-1), strict=True)
        return sum((F.cross_entropy(z.float(), y) for z, y in columns), torch.zeros(()))


@torch.no_grad()
def reconstructed(vae: VAE, x: Tensor) -> Tensor:
    """Every other picture as the VAE gives it back. x: (B, 3, H, W) in [-1, 1], in a random order.

    Processes with batches of an even number change the same ones as one process with the whole.
    """
    mixed = x.clone()
    mixed[::2] = vae.decode(vae.encode(x[::2]).mean).clamp(-1, 1).to(x)
    return mixed


def worn_out(x: Tensor, draws: Draws) -> Tensor:
    """Half of the pictures blurred to a random share, with a little noise, and shifted by up to two pixels."""
    changed = (draws.rand(len(x)) < 0.5).to(x.device)[:, None, None, None]
    share = draws.rand(len(x)).to(x.device)[:, None, None, None]
    blurred = torch.lerp(x, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), share)
    noisy = blurred + 0.04 * draws.randn_like(x)
    dy, dx = (int(5 * draws.once()) - 2 for _ in range(2))
    return torch.where(changed, noisy.roll((dy, dx), (-2, -1)), x)


class Labelled(Dataset):
    """Dolls with their facts, half of them mirrored: no fact tells left from right."""

    def __init__(self, dolls: dict[str, Tensor], seed: int):
        """dolls: of dolls_cache."""
        self.dolls, self.seed = dolls, seed

    def __len__(self) -> int:
        return len(self.dolls["image"])

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, position = key
        image = self.dolls["image"][index]
        mirrored = rng(self.seed, position, 3).random() < 0.5
        image = in_range(image.flip(-1) if mirrored else image)
        return {"image": image, "facts": self.dolls["facts"][index], "name": f"doll {index}"}


def save_reader(reader: AttributeReader, folder: Path) -> Path:
    """In half precision, as model.safetensors in the folder, whole or not at all. Raises WeightsError if it cannot."""
    notes = {"format": "pt", "facts": ",".join(FACTS)}
    write_safetensors(reader.state_dict(), folder / "model.safetensors", notes, torch.float16)
    return folder
