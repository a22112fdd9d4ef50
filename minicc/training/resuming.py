"""Going on where a run stopped: what a checkpoint holds of it, and what of it may not change meanwhile."""

import warnings
from typing import Any

import torch

from minicc.errors import Error
from minicc.memory import advice_on_memory
from minicc.training import checkpoint
from minicc.training.start import Run


def save(run: Run, step: int, measured: dict[str, float]) -> None:
    """All that the run goes on from, as a checkpoint."""
    notes: dict[str, Any] = {"steps": run.config.steps} | settings_of(run) | measured
    if run.accelerator.scaler is not None:
        notes["scaler"] = run.accelerator.scaler.state_dict()
    tensors = checkpoint.with_prefix("weights", run.stage.trained.state_dict())
    tensors |= checkpoint.with_prefix("optimizer", checkpoint.optimizer_tensors(run.optimizer))
    tensors |= checkpoint.with_prefix("ema", run.ema.average)
    checkpoint.save(run.config.out, step, tensors, notes, run.config.keep)


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
    """What decides which samples and noise a step sees, its loss and its rate, and what is kept of it."""
    config = run.config
    order = {
        "seed": config.seed,
        "batch": config.batch * run.accelerator.num_processes,
        "accumulate": config.accumulate,
        "samples": run.samples,
    }
    rate = {"lr": config.lr, "warmup": config.warmup, "decay": config.decay}
    learning = {name: getattr(config, name) for name in ("ema", "clip", "weight_decay", "precision")} | run.stage.told
    return order | rate | learning | ({} if config.decay == "constant" else {"steps": config.steps})
