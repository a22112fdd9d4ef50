"""`minicc train STAGE`: the options of the command line → a stage, its data, the loop, and the result as a file."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

import minicc
from minicc.data.folder import PictureFolder
from minicc.data.masks import paint
from minicc.models.controlnet import ControlNet
from minicc.training.draws import rng
from minicc.training.loop import TrainConfig, train
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
    train(Phase1Stage(sd, control), data, config)
    return control.save(a.out / "controlnet")


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
