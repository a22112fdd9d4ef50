"""The attribute reader: what a picture of a doll shows. It judges what the other models draw."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from minicc.data.dolls.facts import FACTS
from minicc.errors import Error
from minicc.models.blocks import ResBlock
from minicc.pipeline import SHIPPED

FEATURES = 256


class AttributeReader(nn.Module):
    """A small convolutional classifier with one linear head for each fact of `dolls.FACTS`.

    Dolls stand in one place, so the last map is flattened, not averaged: the network knows where the shoes are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.SiLU(),  # (B, 32, 64, 64)
            nn.Conv2d(32, 64, 3, stride=2, padding=1),  # (B, 64, 32, 32)
            ResBlock(64, 64, None, 8, 1e-5),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),  # (B, 128, 16, 16)
            ResBlock(128, 128, None, 8, 1e-5),
            nn.Conv2d(128, 144, 3, stride=2, padding=1),  # (B, 144, 8, 8)
            ResBlock(144, 144, None, 8, 1e-5), nn.SiLU(),
            nn.Conv2d(144, 24, 1), nn.Flatten(), nn.Linear(24 * 8 * 8, FEATURES),  # (B, FEATURES)
        )  # fmt: skip
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, len(values)) for name, values in FACTS.items()})

    def features(self, images: Tensor) -> Tensor:
        """images: (B, 3, 128, 128) in [-1, 1]. Returns (B, FEATURES)."""
        return self.body(images)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of every fact's values."""
        if images.shape[1:] != (3, 128, 128):
            raise Error(f"the reader sees pictures of 3×128×128, not {'×'.join(map(str, images.shape[1:]))}")
        h = torch.nn.functional.silu(self.features(images))
        return {name: head(h) for name, head in self.heads.items()}

    @torch.no_grad()
    def read(self, images: Tensor, batch: int = 64) -> Tensor:
        """(B, len(FACTS)) uint8, on the CPU: the likeliest value of every fact, as `dolls.facts.numbers`."""
        logits = (self(x.to(self.here)) for x in images.split(batch))
        return torch.cat([torch.stack([v.argmax(-1) for v in one.values()], -1).cpu() for one in logits]).byte()

    @torch.no_grad()
    def embed(self, images: Tensor, batch: int = 64) -> Tensor:
        """(B, FEATURES), on the CPU: the features, in whose space Fréchet distances are measured."""
        return torch.cat([self.features(x.to(self.here)).float().cpu() for x in images.split(batch)])

    @property
    def here(self) -> Tensor:
        """A weight: pictures go to its device and type."""
        return next(self.parameters())


def load_reader(path: str | Path = SHIPPED / "tiny-reader") -> AttributeReader:
    """The shipped reader, or one that `minicc train reader` saved. Raises Error if it is not one."""
    file = Path(path) / "model.safetensors"
    reader = AttributeReader()
    try:
        state: Mapping[str, Tensor] = load_file(file)
        reader.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except (OSError, SafetensorError, RuntimeError) as problem:
        raise Error(f"{file} is no attribute reader ({problem}); train one with: minicc train reader") from problem
    return reader.eval().requires_grad_(False)
