"""The losses of the last runs behind what ships: `python docs/curves.py` draws docs/curves.png from docs/curves.csv.

`python docs/curves.py runs` gathers curves.csv first, from the runs that the model cards name: the training loss, as an
exponential mean over about 50 steps, and the loss on the held-out samples that trainings look at, twelve, of names a
hundred. A run that is not there keeps the rows that it has.
"""

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from minicc.training.curves import columns, running_mean

HERE = Path(__file__).parent
RUNS = {
    "vae-i": "VAE", "base-k": "U-Net and text encoder", "reader-g": "attribute reader",
    "phase1-l": "phase 1", "phase2-o": "phase 2", "detector-l": "detector",
    "points": "the detector's points", "names": "the detector's names",
}  # fmt: skip
WIDTH, EVERY, ROWS = 50, 25, 500  # steps of the mean, and between rows; of a long run, rows at most


def gather(runs: Path, had: list[dict[str, str]]) -> list[tuple[object, ...]]:
    """(run, "loss" or "valid", step, value); had: the rows of before."""
    rows: list[tuple[object, ...]] = []
    for run in RUNS:
        if not (runs / run).is_dir():
            rows += [tuple(row.values()) for row in had if row["run"] == run]
            continue
        steps, losses = columns(runs / run / "curves.csv", "loss")
        mean, every = running_mean(losses, WIDTH), max(EVERY, -(-len(steps) // ROWS))
        rows += [(run, "loss", steps[i], round(mean[i], 5)) for i in range(WIDTH - 1, len(steps), every)]
        rows += [(run, "valid", *pair) for pair in zip(*columns(runs / run / "valid.csv", "valid"), strict=True)]
    return rows


def main() -> None:
    table = HERE / "curves.csv"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    if len(sys.argv) > 1:
        gathered = gather(Path(sys.argv[1]), rows)
        with table.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("run", "what", "step", "value"), *gathered])
        with table.open() as file:
            rows = list(csv.DictReader(file))
    fig, axes = plt.subplots(2, 4, figsize=(12, 4.6), layout="constrained")
    for ax, (run, title) in zip(axes.flat, RUNS.items(), strict=True):
        for what, style in (("loss", "-"), ("valid", "o-")):
            points = [(int(r["step"]), float(r["value"])) for r in rows if (r["run"], r["what"]) == (run, what)]
            ax.plot(*zip(*points, strict=True), style, ms=4, lw=1.2, label="training" if what == "loss" else "held out")
        ax.set(title=f"{title} (runs/{run})", xlabel="step")
        ax.title.set_fontsize(9)
    axes[-1, -1].set_yscale("log")  # of cross entropy little is left
    axes[0, 0].legend(fontsize=8)
    fig.savefig(HERE / "curves.png", dpi=110)


if __name__ == "__main__":
    main()
