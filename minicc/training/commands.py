"""`minicc train STAGE`: the options of the command line → a stage, its data, the loop, and the result as a file."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

import minicc
from minicc.data.folder import PictureFolder
from minicc.data.masks import paint
from minicc.models.controlnet import ControlNet
from minicc.training.draws import Order, rng
from minicc.training.loop import Stage, TrainConfig, train
from minicc.training.memory import available, estimate
from minicc.training.stages import Phase1Stage

CONFIG = ("steps", "batch", "accumulate", "lr", "warmup", "ema", "seed", "workers", "decay", "precision", "eight_bit")


def train_stage(a: Namespace) -> Path:
    """Train what the options ask for; returns where the result is."""
    options = {name: getattr(a, name) for name in CONFIG}
    config = TrainConfig(a.out, device=a.device, save_every=a.save_every, sample_every=a.sample_every, **options)
    return {"phase1": train_phase1}[a.stage](a, config)


def train_phase1(a: Namespace, config: TrainConfig) -> Path:
    """The phase-1 ControlNet on a folder of characters with masks and captions; saved as a diffusers folder."""
    sd = minicc.load(a.sd, device=a.device, prediction=a.prediction)
    control = ControlNet.load(a.control, unet=sd.unet) if a.control else ControlNet.from_unet(sd.unet)
    for model in (sd.unet, control):
        model.recompute = a.recompute
    data = Painted(PictureFolder(a.data, size=a.size or sd.side), config.seed)
    stage = Phase1Stage(sd, control)
    announce(stage, data, config, sd.device)
    train(stage, data, config)
    return control.save(a.out / "controlnet")


def announce(stage: Stage, data: Dataset, config: TrainConfig, device: torch.device) -> None:
    """Say how much memory the run will need, and how much is free."""
    batch = default_collate([data[key] for key in next(iter(Order(len(data), config.batch, 0, 0, 1)))])  # type: ignore[arg-type]
    options = {"ema": config.ema > 0, "eight_bit": config.eight_bit, "half": config.precision != "no"}
    print(f"{estimate(stage, batch, **options)}; {available(device) / 2**30:.1f} GB are free")


class Painted(Dataset):
    """Characters with masks as hands paint them over their clothes, fresh for every position of the run."""

    def __init__(self, pictures: Dataset, seed: int):
        self.pictures, self.seed = pictures, seed

    def __len__(self) -> int:
        return len(self.pictures)  # type: ignore[arg-type]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, object]:
        """key: (index, position), from Order."""
        index, position = key
        sample = dict(self.pictures[index])
        layer = sample["mask"][0].numpy() > 0
        if layer.any():
            painted = paint(layer, rng(self.seed, position, 3))
            sample["mask"] = torch.from_numpy(painted.astype(np.float32))[None]
        return sample
