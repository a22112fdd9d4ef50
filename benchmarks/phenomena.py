"""The ControlNet paper's phenomena on the tiny model, as CSV files for notebooks.

    python benchmarks/phenomena.py identity --sd tiny
    python benchmarks/phenomena.py ablation --sd tiny --steps 2000 --out runs/phenomena
    python benchmarks/phenomena.py drop …          python benchmarks/phenomena.py size …
    python benchmarks/phenomena.py convergence --run runs/phenomena/ablation/zero --out runs/phenomena

Each experiment writes OUT/<experiment>.csv: arm, step, and how far pictures drawn from a hint and a caption alone are
from the characters (mean ΔE2000) outside and inside the mask. The sheets beside it show them; convergence puts those
before and after the onset into OUT/convergence.png.
"""

import argparse
import math
from pathlib import Path

import torch

import minicc
from minicc.evaluation.experiments import compare
from minicc.evaluation.phenomena import before_and_after, convergence, identity, onset, turn, write_course
from minicc.training.config import TrainConfig, add_recipe, recipe


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("experiment", choices=["identity", "convergence", "ablation", "drop", "size"])
    p.add_argument("--sd", default="tiny")
    p.add_argument("--run", type=Path, help="convergence: the folder of a phase-1 run")
    p.add_argument("--out", type=Path, default=Path("runs/phenomena"))
    p.add_argument("--cache", type=Path, default=Path("runs/cache"))
    for name, kind, value in [
        ("steps", int, 2000), ("batch", int, 8), ("lr", float, 1e-4), ("every", int, 100), ("dolls", int, 10_000),
        ("snr-gamma", float, math.inf),
    ]:  # fmt: skip
        p.add_argument(f"--{name}", type=kind, default=value, help=f"[{value}]")
    add_recipe(p)
    a = p.parse_args()
    if a.experiment == "identity":
        print(f"largest difference of a fresh ControlNet: {identity(minicc.load(a.sd))}")
    elif a.experiment == "convergence":
        if a.run is None:
            p.error("convergence needs --run FOLDER, of a phase-1 training")
        course = convergence(a.run)
        report(a, {a.run.name: course})
        before_and_after(a.run, turn(course)).save(a.out / "convergence.png")
    else:
        often = {"save_every": a.steps, "sample_every": a.every}
        config = TrainConfig(a.out / a.experiment, a.steps, a.batch, lr=a.lr, **often, **recipe(a))
        done = {}
        for arm, course in compare(
            minicc.load(a.sd, dtype=torch.float32), a.experiment, config, a.cache, a.dolls, a.snr_gamma
        ):
            done[arm.name] = course
            report(a, done)


def report(a: argparse.Namespace, arms: dict) -> None:
    """Write what is measured so far, and say since when each arm follows its hint."""
    for name, course in arms.items():
        last = course[-1]
        print(f"{name}: follows from step {onset(course)}; at {last.step} ΔE {last.outside:.1f}, {last.inside:.1f}")
    print(write_course(a.out / f"{a.experiment}.csv", arms))


if __name__ == "__main__":
    main()
