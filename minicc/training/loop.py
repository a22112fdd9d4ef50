"""One training loop for every stage: plain PyTorch, with Accelerate for devices, processes and mixed precision.

A stage is an nn.Module whose forward is its loss. Everything random is a function of (seed, step): see draws.py.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from minicc.errors import Error
from minicc.pipeline import usable
from minicc.training import checkpoint
from minicc.training.config import TrainConfig
from minicc.training.curves import Curves
from minicc.training.draws import Draws, Order
from minicc.training.ema import EMA
from minicc.training.muon import Muon
from minicc.training.precision import emulates_bfloat16
from minicc.training.stage import Stage

HELD_OUT = 2**40  # the draws of a validation begin here, far from those of every step
SMALLEST_SCALE = 2**-10  # of fp16's losses, 26 halvings below where it begins: what overflows there is no number at all
NO_MEMORY = ("out of memory", "allocate memory", "_alloc_failed")  # CUDA's and MPS's words, the CPU's, cuBLAS's


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
        curves, batches = curves_from(run, start), loader(data, run, start)
        for step in range(start, config.steps):
            with advice_on_memory(f"at step {step}", stage.lighter):
                loss, norm = one_step(run, batches, step)
            with checkpoint.writing(config.out), advice_on_memory(f"at step {step}", stage.lighter):
                curves.add(step + 1, loss=loss, lr=learning_rate(step, config), norm=norm)
                if run.accelerator.is_main_process:
                    after_step(run, step + 1, curves, held_out)
            run.accelerator.wait_for_everyone()
        curves.close()
        run.ema.finish()
    return loss


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
    accelerator = Accelerator(mixed_precision=config.precision, cpu=config.device == "cpu", kwargs_handlers=[several])
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


def place(accelerator: Accelerator) -> tuple[int, int]:
    """(this process's number, how many there are)."""
    return accelerator.process_index, accelerator.num_processes


def resume(run: Run) -> int:
    """Put the newest good checkpoint back; returns the step to go on from."""
    if run.accelerator.is_main_process:
        checkpoint.clear_away(run.config.out)
    run.accelerator.wait_for_everyone()
    found = checkpoint.latest(run.config.out)
    if found is None:
        return 0
    step, tensors, notes = found
    warn_of_changes(run, step, notes)
    try:
        with advice_on_memory("while the checkpoint is loaded", run.stage.lighter):
            run.stage.trained.load_state_dict(checkpoint.without_prefix("weights", tensors))
            checkpoint.load_optimizer(run.optimizer, checkpoint.without_prefix("optimizer", tensors))
            run.ema.load(checkpoint.without_prefix("ema", tensors))
    except Error:
        raise
    except (RuntimeError, KeyError, IndexError, ValueError) as problem:
        reason = str(problem).splitlines()[0]
        raise Error(f"{run.config.out} holds checkpoints of another run ({reason}): choose another --out") from problem
    if run.accelerator.scaler is not None and "scaler" in notes:
        run.accelerator.scaler.load_state_dict(notes["scaler"])
    return step


def agreed(run: Run, start: int) -> int:
    """The step to go on from. Raises Error if the processes found different ones: their checkpoints are not shared."""
    found = sorted(set(run.accelerator.gather(torch.tensor([start], device=run.accelerator.device)).tolist()))
    if len(found) > 1:
        steps, out = " and ".join(map(str, found)), run.config.out
        raise Error(f"{out} holds checkpoints of steps {steps} on different machines: --out must be on a disk of all")
    if start > run.config.steps:
        beyond = f"holds a checkpoint of step {start}, beyond --steps {run.config.steps}"
        warnings.warn(f"{run.config.out} {beyond}: nothing is learned, the result is that checkpoint's", stacklevel=3)
    return start


def warn_of_changes(run: Run, step: int, notes: dict[str, Any]) -> None:
    """Say so where a run goes on otherwise than its checkpoint was made."""
    for name, value in settings_of(run).items():
        if (had := notes.get(name, value)) != value:
            change = f"had {name} {had} and goes on with {value} from step {step}"
            warnings.warn(f"{run.config.out} {change}: it will not end as either run would", stacklevel=4)


def settings_of(run: Run) -> dict[str, Any]:
    """What decides which samples and noise a step sees, and its rate."""
    config = run.config
    order = {
        "seed": config.seed,
        "batch": config.batch * run.accelerator.num_processes,
        "accumulate": config.accumulate,
        "samples": run.samples,
    }
    rate = {"lr": config.lr, "warmup": config.warmup, "decay": config.decay}
    return order | rate | ({} if config.decay == "constant" else {"steps": config.steps})


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


def save(run: Run, step: int, measured: dict[str, float]) -> None:
    """All that the run goes on from, as a checkpoint."""
    notes: dict[str, Any] = {"steps": run.config.steps} | settings_of(run) | measured
    if run.accelerator.scaler is not None:
        notes["scaler"] = run.accelerator.scaler.state_dict()
    tensors = checkpoint.with_prefix("weights", run.stage.trained.state_dict())
    tensors |= checkpoint.with_prefix("optimizer", checkpoint.optimizer_tensors(run.optimizer))
    tensors |= checkpoint.with_prefix("ema", run.ema.average)
    checkpoint.save(run.config.out, step, tensors, notes, run.config.keep)


@torch.no_grad()
def validation_loss(run: Run, held_out: Dataset) -> float:
    """The averaged weights' mean loss on held-out samples, each seen four times, always with the same draws."""
    size, count = len(held_out), run.config.batch  # type: ignore[arg-type]
    order, total = Order(size, count, 0, 0, max(1, 4 * size // count)), 0.0
    with run.ema.in_place():
        run.stage.eval()
        for i, samples in enumerate(DataLoader(held_out, batch_sampler=order)):
            batch = to_device(samples, run.accelerator.device)
            with run.accelerator.autocast():  # not around the loader, which stacks latents in half precision
                total += run.stage(batch, Draws.at(0, HELD_OUT + i)).item()
        run.stage.train()
    return total / len(order)


@contextmanager
def advice_on_memory(when: str, advice: str) -> Iterator[None]:
    """Running out of memory, as CUDA, MPS and the CPU put it, becomes an Error that names the options that help."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as problem:
        words = str(problem).lower()
        if isinstance(problem, RuntimeError) and not any(sign in words for sign in NO_MEMORY):
            raise
        raise Error(f"out of memory {when}: {advice}") from problem


def not_finite(what: str, value: float, step: int, names: list[str], config: TrainConfig) -> str:
    """The message for a number that is none. names: of this process's samples; the message has those of all."""
    names = gather_object(names)
    saved = checkpoint.newest(config.out)
    where = f"the last good checkpoint is {saved.name}" if saved else "there is no checkpoint yet"
    advice = "Lower the learning rate or use precision bf16"
    return f"{what} is {value} at step {step}; batch: {', '.join(names)}; {where}. {advice}"
