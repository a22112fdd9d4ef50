"""Ways to see a garment, compared: begun alike, trained on the same data, as long, measured on the same dolls.

`python -m minicc.evaluation.garment_experiment --help`. Stopped at any moment and started again it goes on where it
was: each arm has its checkpoints in a folder of its own, and once it is measured its figures lie there too.
"""

import argparse
import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from minicc.errors import Error
from minicc.evaluation.goals import Figures, write_json
from minicc.evaluation.phase2 import correspondence, figures, reconstruction
from minicc.evaluation.wears import Wear, dressed, wears
from minicc.models.controlnet import ControlNet
from minicc.models.garment_ways import in_way
from minicc.pipeline import StableDiffusion, load
from minicc.reader import AttributeReader, load_reader
from minicc.training.config import TrainConfig, add_recipe, recipe
from minicc.training.loop import train
from minicc.training.phase2_stage import Phase2Stage
from minicc.training.sources import phase2_dolls


@dataclass(frozen=True)
class Arm:
    """One of the things compared."""

    name: str
    way: str = "joint"  # see models.garment_ways
    positions: bool = False
    supervise: float = 0.0
    inside: float | None = None  # a masked cell's weight in the loss; None: as the stage has it


ARMS = (
    Arm("joint"), Arm("plain", "plain"), Arm("canvas", "canvas"), Arm("decoder", "decoder"), Arm("words", "words"),
    Arm("joint-positions", positions=True), Arm("joint-taught", supervise=0.1),
    Arm("joint-positions-taught", positions=True, supervise=0.1),
    Arm("decoder-positions-taught", "decoder", True, 0.1), Arm("joint-even", inside=1.0),
)  # fmt: skip
CHOOSING = 6  # the seed of the dolls on which ways are compared: the cards' tables are of seed 0
COLUMNS = {
    "start": "change at step 0", "garment": "garment", "colour": "colour", "pattern": "pattern", "delta_e": "ΔE2000",
    "ssim": "SSIM", "own_over_other": "own over other", "correspondence": "attention on truth",
    "outside_max": "outside",
}  # fmt: skip


def compare(
    sd: StableDiffusion, start: ControlNet, reader: AttributeReader, config: TrainConfig, cache: Path,
    arms: Sequence[Arm] = ARMS, dolls: int = 10_000, n: int = 100, sampling: int = 20,
) -> Iterator[tuple[Arm, Figures]]:  # fmt: skip
    """Train every arm from `start` (phase 1's ControlNet), measure it under true masks, and yield its figures.

    dolls: to learn from; n: to be measured on, of the test split; sampling: DDIM steps. An arm's figures are those of
    `evaluation.phase2.figures`, its `correspondence`, and `start`, the change that a garment makes before training.
    What is measured already is read from its folder. Raises Error if that was made with other settings.
    """
    asked = wears(n, CHOOSING)
    settings = {"steps": config.steps, "batch": config.batch, "lr": config.lr, "seed": config.seed}
    settings |= {"dolls": dolls, "n": n, "sampling": sampling}
    for arm in arms:
        out = config.out / arm.name
        if not (out / "figures.json").exists():
            options = Namespace(cache=cache, size=None, seed=config.seed, supervise=arm.supervise)
            control = in_way(deepcopy(start), arm.way, arm.positions)
            before = change_at_start(sd, control, asked[: min(4, n)])
            stage = Phase2Stage(sd, control, supervise=arm.supervise, inside=arm.inside)
            train(stage, phase2_dolls(options, sd, "train", range(dolls)), replace(config, out=out))
            control.save(out / "controlnet")
            found = measured(sd, control.eval(), asked, reader, sampling)
            write_json(out / "figures.json", {"settings": settings, "start": before, **found})
        found = json.loads((out / "figures.json").read_text("utf-8"))
        if (had := found.pop("settings", None)) != settings:
            raise Error(f"{out} holds the figures of {had}, not of {settings}: choose another --out")
        yield arm, found


def measured(
    sd: StableDiffusion, control: ControlNet, asked: Sequence[Wear], reader: AttributeReader, steps: int
) -> Figures:
    """An arm's figures under true masks."""
    masks, goal = [one.mask for one in asked], [reconstruction(sd, one) for one in asked]
    made = dressed(sd, control, asked, masks, "dressing", steps=steps, guidance=2.0)
    found = figures(made, asked, masks, goal, reader)
    return {**found, "correspondence": correspondence(sd, control, asked)}


@torch.no_grad()
def change_at_start(sd: StableDiffusion, control: ControlNet, asked: Sequence[Wear]) -> float:
    """The mean change of the pictures' values, of 255, where the garment is seen instead of none; 4 steps."""
    masks = [one.mask for one in asked]
    worn, bare = (
        dressed(sd, control, asked, masks, "before training", steps=4, guidance=guidance) for guidance in (1.0, 0.0)
    )
    pairs = zip(worn, bare, masks, strict=True)
    return float(np.mean([abs(np.asarray(a).astype(int) - np.asarray(b))[m, :3].mean() for a, b, m in pairs]))


def table(rows: Sequence[tuple[Arm, Figures]]) -> list[str]:
    """Lines of Markdown, one an arm."""
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for arm, found in rows:
        values = ("" if found.get(name) is None else f"{found[name]:.3g}" for name in COLUMNS)
        lines.append(f"| {arm.name} | {' | '.join(values)} |")
    return lines


def main() -> None:
    """The comparison from the command line; the table at the end, and as it grows in OUT/table.md."""
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--sd", default="tiny", help="the locked model [tiny]")
    p.add_argument("--control", default="tiny-phase1", help="phase 1's ControlNet, from which all begin [tiny-phase1]")
    p.add_argument("--reader", help="folder of the attribute reader [the shipped one]")
    p.add_argument("--arms", nargs="+", default=[arm.name for arm in ARMS], help="[all]")
    p.add_argument("--out", type=Path, default=Path("runs/garments"))
    p.add_argument("--cache", type=Path, default=Path("runs/cache"))
    for name, value in (("steps", 2000), ("batch", 8), ("dolls", 10_000), ("n", 100), ("seed", 0)):
        p.add_argument(f"--{name}", type=int, default=value, help=f"[{value}]")
    p.add_argument("--lr", type=float, default=1e-4)
    add_recipe(p)
    a = p.parse_args()
    if unknown := set(a.arms) - {arm.name for arm in ARMS}:
        raise Error(f"there is no arm {min(unknown)!r}; expected some of {', '.join(arm.name for arm in ARMS)}")
    sd = load(a.sd, device="cpu", look=True)
    config = TrainConfig(a.out, steps=a.steps, batch=a.batch, lr=a.lr, seed=a.seed, device="cpu", **recipe(a))
    chosen, rows = [arm for arm in ARMS if arm.name in a.arms], list[tuple[Arm, Figures]]()
    reader = load_reader(a.reader) if a.reader else load_reader()
    start = ControlNet.load(a.control, unet=sd.unet, look=True).float()
    for row in compare(sd, start, reader, config, a.cache, chosen, a.dolls, a.n):
        rows.append(row)
        (a.out / "table.md").write_text("\n".join(table(rows)) + "\n")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
