"""The paper's comparisons on the tiny model: arms that differ in one thing, trained alike, measured on the same sheets.

| experiment | arms | in the paper (Zhang et al. 2023) |
|---|---|---|
| ablation | zero, gaussian, lite | figure 8 |
| drop | 0.5, 0.0 of the sentences left out | section 3.4 |
| size | 100, 1000, 10000 characters | figure 10 |
"""

import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from minicc.errors import Error
from minicc.evaluation.phenomena import Follow, convergence
from minicc.models.ablations import LiteControlNet, gaussian_controlnet
from minicc.models.controlnet import ControlNet
from minicc.models.unet import UNet
from minicc.pipeline import StableDiffusion
from minicc.training.config import TrainConfig
from minicc.training.loop import train
from minicc.training.sources import phase1_dolls
from minicc.training.stages import Phase1Stage
from minicc.training.tiny import seeded

SHOWN = 6  # characters of the sheets, from the val split: no arm has seen them


@dataclass(frozen=True)
class Arm:
    """One of the things compared."""

    name: str
    dolls: int
    make: Callable[[UNet], ControlNet] = ControlNet.from_unet
    drop: float = 0.5


def arms(experiment: str, dolls: int = 10_000) -> list[Arm]:
    """The arms of an experiment. dolls: characters to learn from, where that is not what is compared."""
    if experiment == "ablation":
        return [
            Arm("zero", dolls),
            Arm("gaussian", dolls, lambda unet: gaussian_controlnet(unet, torch.Generator().manual_seed(0))),
            Arm("lite", dolls, LiteControlNet.from_unet),
        ]
    if experiment == "drop":
        return [Arm(f"drop {drop}", dolls, drop=drop) for drop in (0.5, 0.0)]
    if experiment == "size":
        return [Arm(f"{count} characters", count) for count in (100, 1000, 10_000) if count <= dolls]
    raise Error(f"there is no experiment {experiment!r}; expected ablation, drop or size")


def compare(
    sd: StableDiffusion, experiment: str, config: TrainConfig, cache: Path, dolls: int = 10_000,
    snr_gamma: float = math.inf,
) -> Iterator[tuple[Arm, list[Follow]]]:  # fmt: skip
    """Train every arm of an experiment and yield its course; each in a folder of its own below config.out.

    snr_gamma: of the loss's weights, see `Phase1Stage`.
    """
    options = Namespace(cache=cache, size=None, seed=config.seed)
    val = phase1_dolls(options, sd, "val", range(SHOWN))
    shown = [val[i, i] for i in range(SHOWN)]
    for arm in arms(experiment, dolls):
        data = phase1_dolls(options, sd, "train", range(arm.dolls))
        control = seeded(partial(arm.make, sd.unet), config.seed)  # all arms' hint encoders begin alike
        stage = Phase1Stage(sd, control, arm.drop, shown=shown, snr_gamma=snr_gamma)
        out = config.out / arm.name.replace(" ", "-")
        train(stage, data, replace(config, out=out))
        yield arm, convergence(out)
