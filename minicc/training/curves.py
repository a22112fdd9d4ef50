"""What a run shows: the progress bar, a CSV with one line a step, and the loss as a picture."""

import csv
import resource
import sys
from pathlib import Path

from tqdm import tqdm

COLUMNS = ["step", "loss", "lr", "norm"]


class Curves:
    """Numbers of a run, by step. On resuming, lines after the resumed step are dropped: each step has one line."""

    def __init__(self, folder: Path, start: int, steps: int, enabled: bool = True):
        self.path, self.enabled = folder / "curves.csv", enabled
        self.bar = tqdm(total=steps, initial=start, disable=not enabled, mininterval=5)
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        rows = [row for row in read(self.path) if int(row["step"]) <= start]
        rewritten = self.path.with_suffix(".tmp")
        with rewritten.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        rewritten.replace(self.path)  # whole or not at all: a kill loses no line
        self.file = self.path.open("a", newline="", buffering=1)
        self.writer = csv.DictWriter(self.file, COLUMNS)

    def add(self, step: int, **values: float) -> None:
        """One step's numbers."""
        self.bar.update()
        if self.enabled:
            self.writer.writerow({"step": step} | values)
            self.bar.set_postfix(loss=f"{values['loss']:.4f}", memory=f"{memory():.1f} GB", refresh=False)

    def draw(self) -> None:
        """curves.png: the loss and its running mean."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        rows = read(self.path)
        step, loss = [int(r["step"]) for r in rows], [float(r["loss"]) for r in rows]
        figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
        axes.plot(step, loss, color="0.8", linewidth=0.6)
        axes.plot(step, running_mean(loss, max(1, len(loss) // 50)), color="#0072B2")
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        figure.savefig(self.path.with_suffix(".png"), dpi=120)
        plt.close(figure)

    def close(self) -> None:
        self.bar.close()
        if self.enabled:
            self.file.close()


def read(path: Path) -> list[dict[str, str]]:
    """The whole lines of a curves file; a last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if all(row.values())]


def running_mean(values: list[float], width: int) -> list[float]:
    """Exponential mean over about `width` steps."""
    means, mean = [], values[0] if values else 0.0
    for value in values:
        mean += (value - mean) / width
        means.append(mean)
    return means


def memory() -> float:
    """Peak memory of this process in GB (of the GPU, if one is used)."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
