"""One training loop for every stage: plain PyTorch, with Accelerate for devices, processes and mixed precision.

A stage is an nn.Module whose forward is its loss. Everything random is a function of (seed, step): see draws.py.
"""

import math
from collections.abc import Iterator
from contextlib import closing, nullcontext
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from minicc.errors import Error
from minicc.memory import advice_on_memory
from minicc.training import checkpoint
from minicc.training.config import TrainConfig
from minicc.training.curves import Curves
from minicc.training.draws import Draws, Order
from minicc.training.resuming import agreed, resume, save
from minicc.training.stage import Stage
from minicc.training.start import Run, place, prepared

HELD_OUT = 2**40  # the draws of a validation begin here, far from those of every step
SMALLEST_SCALE = 2**-10  # of fp16's losses, 26 halvings below where it begins: what overflows there is no number at all


def train(stage: Stage, data: Dataset, config: TrainConfig, held_out: Dataset | None = None) -> float:
    """Train to the last step, resuming from the newest good checkpoint in config.out; returns the last loss,
    nan if no step was left.

    held_out: what the validation loss is measured on at every checkpoint; the best is kept beside the last ones.
    Afterwards the stage holds the averaged weights, if the config asks for an average.

    Raises Error at the first loss or gradient that is not finite, with the step, the batch's names and the last good
    checkpoint, in fp16 not before its scaler has nothing left to halve; where memory runs out, with what helps; where
    nothing can be written.
    """
    loss = math.nan
    with prepared(stage, data, config) as run:
        start = agreed(run, resume(run))
        batches = loader(data, run, start)
        with closing(curves_from(run, start)) as curves:
            for step in range(start, config.steps):
                with advice_on_memory(f"at step {step}", stage.lighter):
                    loss, norm = one_step(run, batches, step)
                with checkpoint.writing(config.out), advice_on_memory(f"at step {step}", stage.lighter):
                    curves.add(step + 1, loss=loss, lr=learning_rate(step, config), norm=norm)
                    if run.accelerator.is_main_process:
                        after_step(run, step + 1, curves, held_out)
                run.accelerator.wait_for_everyone()
        run.ema.finish()
    return loss


def one_step(run: Run, batches: Iterator[dict[str, Any]], step: int) -> tuple[float, float]:
    """Gradients of all micro-batches, clipped; AdamW; the average. Returns loss and gradient norm."""
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(step, run.config)
    loss, names = backward(run, batches, step)
    norm = float(run.accelerator.clip_grad_norm_(run.stage.parameters(), run.config.clip))
    scaler = run.accelerator.scaler  # fp16's skips a step whose gradient is not finite, and halves its scale
    if not math.isfinite(norm) and (scaler is None or scaler.get_scale() < SMALLEST_SCALE):
        raise Error(not_finite("gradient norm", norm, step, names, run.config))
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.ema.update()
    return loss, norm


def backward(run: Run, batches: Iterator[dict[str, Any]], step: int) -> tuple[float, list[str]]:
    """One step's gradients, over its micro-batches; returns the mean loss of all processes and the samples' names."""
    loss, names, accumulate = 0.0, list[str](), run.config.accumulate
    for micro in range(accumulate):
        batch, last = next(batches), micro == accumulate - 1
        names += map(str, batch.get("name", ["(without names)"]))
        draws = Draws.at(run.config.seed, step * accumulate + micro, *place(run.accelerator))
        with nullcontext() if last else run.accelerator.no_sync(run.model), run.accelerator.autocast():
            part = run.model(batch, draws) / accumulate
        run.accelerator.backward(part)
        loss += run.accelerator.reduce(part.detach(), "mean").item()
        if not math.isfinite(loss):
            raise Error(not_finite("loss", loss, step, names, run.config))
    return loss, names


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then constant or half a cosine down to a tenth."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    if config.decay == "constant":
        return config.lr * warm
    done = max(0, step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * warm * (0.55 + 0.45 * math.cos(math.pi * min(1.0, done)))


def loader(data: Dataset, run: Run, start: int) -> Iterator[dict[str, Any]]:
    """This process's micro-batches from step `start`, moved to its device."""
    config, here = run.config, place(run.accelerator)
    first, stop = start * config.accumulate, config.steps * config.accumulate
    if isinstance(data, IterableDataset):  # it knows where a step begins, see shards.py; one worker, or each reads all
        stream = data.starting(first, config.batch, *here)  # type: ignore[attr-defined]
        batches = DataLoader(stream, batch_size=None, num_workers=min(1, config.workers))
    else:
        order = Order(len(data), config.batch, config.seed, first, stop, *here)  # type: ignore[arg-type]
        batches = DataLoader(data, batch_sampler=order, num_workers=config.workers)
    for batch in batches:
        yield to_device(batch, run.accelerator.device)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def curves_from(run: Run, start: int) -> Curves:
    """The curves of a run that goes on from a step, and that step's pictures, if it was stopped before they came."""
    out = run.config.out
    with checkpoint.writing(out), advice_on_memory("for a validation sheet", run.stage.lighter):
        curves = Curves(out, start, run.config.steps, enabled=run.accelerator.is_main_process)
        if run.accelerator.is_main_process and start and not curves.sheet_at(start).exists():
            show(run, start, curves)
    return curves


def after_step(run: Run, step: int, curves: Curves, held_out: Dataset | None) -> None:
    """Every so often: a checkpoint, with its validation loss; after it, so that it is safe, validation pictures."""
    if step % run.config.save_every == 0 or step == run.config.steps:
        valid = None if held_out is None else validation_loss(run, held_out)
        if valid is not None:
            curves.add_valid(step, valid)
        save(run, step, {} if valid is None else {"valid": valid})
    show(run, step, curves)


def show(run: Run, step: int, curves: Curves) -> None:
    """The stage's validation pictures and the curves, if it is time for them."""
    if step % run.config.sample_every and step != run.config.steps:
        return
    with run.ema.in_place(), torch.no_grad(), run.accelerator.autocast():  # locked models may be in half precision
        sheet = run.stage.eval().sheet()
        run.stage.train()
    if sheet is not None:
        curves.add_sheet(step, sheet)
    curves.draw()


@torch.no_grad()
def validation_loss(run: Run, held_out: Dataset) -> float:
    """The averaged weights' mean loss on held-out samples, each seen four times, always with the same draws."""
    size = len(held_out)  # type: ignore[arg-type]
    count = max(n for n in range(1, min(size, run.config.batch) + 1) if size % n == 0)  # no sample more often
    order, total = Order(size, count, 0, 0, 4 * size // count), 0.0
    with run.ema.in_place():
        run.stage.eval()
        for i, samples in enumerate(DataLoader(held_out, batch_sampler=order)):
            batch = to_device(samples, run.accelerator.device)
            with run.accelerator.autocast():  # not around the loader, which stacks latents in half precision
                total += run.stage(batch, Draws.at(0, HELD_OUT + i)).item()
        run.stage.train()
    return total / len(order)


def not_finite(what: str, value: float, step: int, names: list[str], config: TrainConfig) -> str:
    """The message for a number that is none. names: of this process's samples; the message has those of all."""
    names = gather_object(names)
    saved = checkpoint.newest(config.out)
    where = f"the last good checkpoint is {saved.name}" if saved else "there is no checkpoint yet"
    advice = "Lower the learning rate or use precision bf16"
    return f"{what} is {value} at step {step}; batch: {', '.join(names)}; {where}. {advice}"
