"""How to train."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minicc.errors import Error

CHOICES = {"decay": ("constant", "cosine"), "precision": ("no", "bf16", "fp16"), "optimizer": ("adamw", "muon")}


@dataclass(frozen=True)
class TrainConfig:
    """How to train; what is trained is the stage's business. Raises Error for values that make no sense."""

    out: Path  # folder of checkpoints, curves and validation pictures
    steps: int = 1000  # optimizer steps
    batch: int = 8  # pictures a process and micro-step
    accumulate: int = 1  # micro-steps an optimizer step
    lr: float = 1e-4  # after the warm-up
    warmup: int = 100  # steps of linear warm-up
    decay: str = "constant"  # or "cosine": to a tenth of lr at the last step
    optimizer: str = "adamw"  # or "muon": a third of the steps where all weights are new
    weight_decay: float = 0.01
    clip: float = 1.0  # largest gradient norm; math.inf: as it is
    ema: float = 0.0  # decay of the weights' moving average; 0: none
    precision: str = "no"  # "bf16", "fp16"
    eight_bit: bool = False  # bitsandbytes' 8-bit AdamW
    compile: bool = False  # torch.compile: minutes at the start, then faster steps
    channels_last: bool = False  # pictures laid out pixel by pixel: benchmarks/options.py says where it is faster
    seed: int = 0
    workers: int = 0  # processes that read pictures
    save_every: int = 500
    sample_every: int = 500
    keep: int = 2  # checkpoints, beside the best
    device: str | None = None  # "cpu": even where there is a GPU

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("steps", "batch", "accumulate", "save_every", "sample_every")}
        for name, value in (counts | {"keep": self.keep}).items():
            if value < 1:
                raise Error(f"{name} is {value}: expected 1 or more")
        if not self.clip > 0:
            raise Error(f"clip is {self.clip}: expected the largest norm of a gradient, or math.inf for no clipping")
        for name in ("warmup", "seed", "workers", "lr", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise Error(f"{name} is {value}: expected 0 or more")
        if not 0 <= self.ema < 1:
            raise Error(f"ema is {self.ema}: expected a decay below 1, such as 0.999, or 0 for no average")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise Error(f"{name} is {getattr(self, name)!r}: expected one of {', '.join(choices)}")
        if self.eight_bit and self.optimizer != "adamw":
            raise Error(f"eight_bit is AdamW's: leave it out, or {self.optimizer}")


RECIPE = ("warmup", "ema", "optimizer", "decay", "precision", "channels_last")


def add_recipe(p: argparse.ArgumentParser) -> None:
    """Options of a command line for these fields: with the steps, batch and rate they are how a model card trained."""
    p.add_argument("--warmup", type=int, default=100, help="[100]")
    p.add_argument("--ema", type=float, default=0.0, help="decay of the weights' average [0: none; base: 0.995]")
    p.add_argument("--optimizer", choices=CHOICES["optimizer"], default="adamw")
    p.add_argument("--decay", choices=CHOICES["decay"], default="constant")
    p.add_argument("--precision", choices=CHOICES["precision"], default="no", help="mixed precision")
    p.add_argument("--channels-last", action="store_true", help="lay pictures out pixel by pixel")


def recipe(a: argparse.Namespace) -> dict[str, Any]:
    """What they were set to."""
    return {name: getattr(a, name) for name in RECIPE}
