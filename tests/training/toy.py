"""A stage so small that a thousand steps take a second; as a script, a run that a test can kill."""

import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from minicc.training.config import TrainConfig
from minicc.training.draws import Draws, rng
from minicc.training.loop import train
from minicc.training.stage import Stage


class ToyStage(Stage):
    """A two-layer network denoises rows of eight numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 8))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.net.parameters():
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))

    @property
    def trained(self) -> nn.Module:
        return self.net

    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        noise = draws.randn_like(batch["x"])
        return (self.net(batch["x"] + noise) - batch["x"]).square().mean()


class Rows(Dataset):
    """Rows of numbers, slightly changed at every visit, as augmentation does."""

    def __init__(self, length: int = 37, broken: int | None = None, number: float = math.nan):
        """broken: the row that holds nothing but `number`."""
        self.length, self.broken, self.number = length, broken, number

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, position = key
        x = rng(9, index).standard_normal(8) + 0.1 * rng(8, position).standard_normal(8)
        x = torch.from_numpy(x).float()
        return {"x": torch.full_like(x, self.number) if index == self.broken else x, "name": f"row {index}"}


def toy_config(out: Path, **changes: Any) -> TrainConfig:
    values = {"steps": 40, "batch": 4, "lr": 1e-2, "warmup": 5, "ema": 0.9, "save_every": 5, "sample_every": 1000}
    return TrainConfig(out, **{"device": "cpu", "decay": "cosine"} | values | changes)


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = dict(option.split("=") for option in sys.argv[2:])
    train(ToyStage(), Rows(), toy_config(Path(sys.argv[1]), **{k: int(v) for k, v in options.items()}))
