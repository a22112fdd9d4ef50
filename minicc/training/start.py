"""A run before its first step: on its device, in its precision, with its optimizer and its average."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from minicc.errors import Error
from minicc.memory import advice_on_memory
from minicc.pipeline import usable
from minicc.training.config import TrainConfig
from minicc.training.ema import EMA
from minicc.training.muon import Muon
from minicc.training.precision import emulates_bfloat16
from minicc.training.stage import Stage


@dataclass
class Run:
    """All that goes on from step to step, and so all that a checkpoint holds."""

    stage: Stage
    model: nn.Module  # the stage as Accelerate wraps it
    optimizer: Any
    ema: EMA
    accelerator: Accelerator
    config: TrainConfig
    samples: int  # of the data, on which their order depends; 0: a stream


@contextmanager
def prepared(stage: Stage, data: Dataset, config: TrainConfig) -> Iterator[Run]:
    """A run. At its end what Accelerate put on the stage is taken off: the forward under autocast, and the mark by
    which it would pass over the stage in another run, with another precision or device.
    """
    try:
        with advice_on_memory("before the first step", stage.lighter):
            run = start_run(stage, data, config)
        yield run
    finally:
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            vars(stage).pop(name, None)


def start_run(stage: Stage, data: Dataset, config: TrainConfig) -> Run:
    """The stage on its device, with a fresh optimizer and average."""
    accelerator = new_accelerator(config, stage.uses_all)
    if config.channels_last:
        stage.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        for module in stage.heavy:
            module.compile()
    model, optimizer = accelerator.prepare(stage, optimizer_of(stage, config))
    if sd := getattr(stage, "sd", None):  # what of it is no part of the stage draws its validation pictures
        sd.to(accelerator.device)
    samples = 0 if isinstance(data, IterableDataset) else len(data)  # type: ignore[arg-type]
    return Run(stage, model, optimizer, EMA(stage.trained, config.ema), accelerator, config, samples)


def new_accelerator(config: TrainConfig, uses_all: bool) -> Accelerator:
    """Accelerate keeps one state a process: it is put back, so that a notebook may train in fp32 and then in bf16."""
    AcceleratorState._reset_state(reset_partial_state=True)
    several = DistributedDataParallelKwargs(find_unused_parameters=not uses_all)
    try:
        accelerator = Accelerator(
            mixed_precision=config.precision, cpu=config.device == "cpu", kwargs_handlers=[several]
        )
    except ValueError as problem:  # bf16 on an old macOS, a device that cannot
        raise Error(f"precision {config.precision}: {problem}") from problem
    here = accelerator.device
    if config.precision == "fp16" and here.type == "cpu":
        raise Error("precision fp16 is a GPU's, and on a CPU would change nothing: take bf16")
    if config.precision == "bf16" and emulates_bfloat16(here):
        warnings.warn("this CPU has no instructions for bf16, so float32 is faster: leave precision out", stacklevel=5)
    asked = usable(config.device) if config.device else here
    if asked.type != here.type or asked.index not in (None, here.index or 0):
        raise Error(
            f"device={config.device!r}, but training would run on {here}: take {here.type}, cpu or nothing; "
            "CUDA_VISIBLE_DEVICES=1 makes the second GPU the first"
        )
    return accelerator


def optimizer_of(stage: Stage, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, in 8 bit if asked for, or Muon, over what requires a gradient."""
    if config.optimizer == "muon":
        return Muon(stage, lr=config.lr, weight_decay=config.weight_decay)
    parameters = [p for p in stage.parameters() if p.requires_grad]
    if not config.eight_bit:
        # fused: one kernel, which takes a third of the time of a loop over the weights
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as missing:
        raise Error("eight_bit needs bitsandbytes: pip install bitsandbytes, or train without it") from missing
    return AdamW8bit(parameters, lr=config.lr, weight_decay=config.weight_decay)


def place(accelerator: Accelerator) -> tuple[int, int]:
    """(this process's number, how many there are)."""
    return accelerator.process_index, accelerator.num_processes
