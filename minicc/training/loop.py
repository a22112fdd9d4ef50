"""One training loop for every stage: plain PyTorch, with Accelerate for devices, processes and mixed precision.

A stage is an nn.Module whose forward is its loss. Everything random is a function of (seed, step): see draws.py.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from minicc.errors import Error
from minicc.training import checkpoint
from minicc.training.curves import Curves
from minicc.training.draws import Draws, Order
from minicc.training.ema import EMA

SMALLER = "try --recompute, a smaller --batch with more --accumulate, or --precision bf16"


@dataclass(frozen=True)
class TrainConfig:
    """How to train; what is trained is the stage's business."""

    out: Path  # folder of checkpoints, curves and validation pictures
    steps: int = 1000  # optimizer steps
    batch: int = 8  # pictures a process and micro-step
    accumulate: int = 1  # micro-steps an optimizer step
    lr: float = 1e-4  # after the warm-up
    warmup: int = 100  # steps of linear warm-up
    decay: str = "constant"  # or "cosine": to a tenth of lr at the last step
    weight_decay: float = 0.01
    clip: float = 1.0  # largest gradient norm
    ema: float = 0.0  # decay of the weights' moving average; 0: none
    precision: str = "no"  # "bf16", "fp16"
    eight_bit: bool = False  # bitsandbytes' 8-bit AdamW
    seed: int = 0
    workers: int = 0  # processes that read pictures
    save_every: int = 500
    sample_every: int = 500
    keep: int = 2  # checkpoints
    device: str | None = None  # "cpu": even where there is a GPU


class Stage(nn.Module, ABC):
    """What a stage must say. Parameters that require a gradient are trained; `trained` is what checkpoints hold."""

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """The module that learns: saved, and averaged if the config asks for it."""

    @abstractmethod
    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """The batch's loss, 0-d."""

    def sheet(self) -> Image.Image | None:
        """Validation pictures from fixed seeds."""
        return None


def train(stage: Stage, data: Dataset, config: TrainConfig) -> float:
    """Train to the last step, resuming from the newest good checkpoint in config.out; returns the last loss.

    Afterwards the stage holds the averaged weights, if the config asks for an average.

    Raises Error at the first loss that is not finite, with the step, the batch's names and the last checkpoint.
    """
    accelerator = new_accelerator(config)
    parameters = [p for p in stage.parameters() if p.requires_grad]
    model, optimizer = accelerator.prepare(stage, adamw(parameters, config))
    ema = EMA(stage.trained, config.ema)
    start = resume(stage, optimizer, ema, config)
    batches = iter(loader(data, config, start, accelerator))
    curves = Curves(config.out, start, config.steps, enabled=accelerator.is_main_process)
    loss = math.nan
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        loss = backward(model, batches, step, config, accelerator)
        norm = accelerator.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        optimizer.zero_grad()
        ema.update()
        curves.add(step + 1, loss=loss, lr=learning_rate(step, config), norm=float(norm))
        if accelerator.is_main_process:
            after_step(step + 1, stage, optimizer, ema, config, curves)
        accelerator.wait_for_everyone()
    curves.close()
    ema.finish()
    return loss


def new_accelerator(config: TrainConfig) -> Accelerator:
    """Accelerate keeps one state a process: it is put back, so that a notebook may train in fp32 and then in bf16."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=config.precision, cpu=config.device == "cpu")


def backward(
    model: nn.Module, batches: Iterator[dict[str, Any]], step: int, config: TrainConfig, accelerator: Accelerator
) -> float:
    """One step's gradients, over its micro-batches; returns the mean loss of all processes."""
    loss = 0.0
    for micro in range(config.accumulate):
        batch, last = next(batches), micro == config.accumulate - 1
        draws = Draws.at(config.seed, step * config.accumulate + micro, *place(accelerator))
        try:
            with nullcontext() if last else accelerator.no_sync(model), accelerator.autocast():
                part = model(batch, draws) / config.accumulate
            accelerator.backward(part)
        except torch.OutOfMemoryError as problem:
            raise Error(f"out of memory at step {step}: {SMALLER}") from problem
        loss += accelerator.reduce(part.detach(), "mean").item()
        if not math.isfinite(loss):
            raise Error(not_finite(loss, step, batch, config))
    return loss


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then constant or half a cosine down to a tenth."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    if config.decay == "constant":
        return config.lr * warm
    done = max(0, step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * warm * (0.55 + 0.45 * math.cos(math.pi * min(1.0, done)))


def adamw(parameters: list[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    if not config.eight_bit:
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as missing:
        raise Error("eight_bit needs bitsandbytes: pip install bitsandbytes, or train without it") from missing
    return AdamW8bit(parameters, lr=config.lr, weight_decay=config.weight_decay)


def loader(data: Dataset, config: TrainConfig, start: int, accelerator: Accelerator) -> Iterator[dict[str, Any]]:
    """This process's micro-batches from step `start`, moved to its device."""
    steps = (start * config.accumulate, config.steps * config.accumulate)
    order = Order(len(data), config.batch, config.seed, *steps, *place(accelerator))  # type: ignore[arg-type]
    for batch in DataLoader(data, batch_sampler=order, num_workers=config.workers):
        yield {k: v.to(accelerator.device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def place(accelerator: Accelerator) -> tuple[int, int]:
    """(this process's number, how many there are)."""
    return accelerator.process_index, accelerator.num_processes


def resume(stage: Stage, optimizer: torch.optim.Optimizer, ema: EMA, config: TrainConfig) -> int:
    """Put the newest good checkpoint back; returns the step to go on from."""
    found = checkpoint.latest(config.out)
    if found is None:
        return 0
    step, tensors, _ = found
    stage.trained.load_state_dict(checkpoint.without_prefix("weights", tensors))
    checkpoint.load_optimizer(optimizer, checkpoint.without_prefix("optimizer", tensors))
    ema.load(checkpoint.without_prefix("ema", tensors))
    return step


def after_step(
    step: int, stage: Stage, optimizer: torch.optim.Optimizer, ema: EMA, config: TrainConfig, curves: Curves
) -> None:
    """Every so often: validation pictures, a checkpoint."""
    last = step == config.steps
    if step % config.sample_every == 0 or last:
        with ema.in_place(), torch.no_grad():
            sheet = stage.eval().sheet()
            stage.train()
        if sheet is not None:
            sheet.save(config.out / f"sheet-{step:08d}.png")
        curves.draw()
    if step % config.save_every == 0 or last:
        tensors = checkpoint.with_prefix("weights", stage.trained.state_dict())
        tensors |= checkpoint.with_prefix("optimizer", checkpoint.optimizer_tensors(optimizer))
        tensors |= checkpoint.with_prefix("ema", ema.average)
        checkpoint.save(config.out, step, tensors, {"steps": config.steps}, config.keep)


def not_finite(loss: float, step: int, batch: dict[str, Any], config: TrainConfig) -> str:
    """The message for a loss that is not a number."""
    saved = checkpoint.checkpoints(config.out)
    names = ", ".join(map(str, batch.get("name", ["(without names)"])))
    where = f"the last good checkpoint is {saved[-1].name}" if saved else "there is no checkpoint yet"
    return f"loss is {loss} at step {step}; batch: {names}; {where}. Lower the learning rate or use precision bf16"
