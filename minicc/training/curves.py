"""What a run shows: the progress bar, CSVs with one line a step, the loss as a picture, TensorBoard if it is there."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from tqdm import tqdm

from minicc.atomic import replacing


class Table:
    """A CSV with one line a step. On resuming, lines after the resumed step are dropped: no step has two."""

    def __init__(self, path: Path, columns: list[str], start: int):
        self.path = path
        rows = [row for row in read(path, columns) if int(row["step"]) <= start]
        with replacing(path) as draft, draft.open("w", newline="") as file:  # a kill loses no line
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        self.file = path.open("a", newline="", buffering=1)
        self.writer = csv.DictWriter(self.file, columns)

    def add(self, step: int, values: dict[str, float]) -> None:
        self.writer.writerow({"step": step} | values)


class Curves:
    """Numbers of a run, by step: curves.csv has every step's, valid.csv the validation losses."""

    def __init__(self, folder: Path, start: int, steps: int, enabled: bool = True):
        self.folder, self.enabled = folder, enabled
        self.bar = tqdm(total=steps, initial=start, disable=not enabled, mininterval=5, unit=" steps")  # rate and ETA
        if enabled:
            self.steps = Table(folder / "curves.csv", ["step", "loss", "lr", "norm"], start)
            self.valid = Table(folder / "valid.csv", ["step", "valid"], start)
            self.board = tensorboard(folder, start)

    def add(self, step: int, **values: float) -> None:
        """One step's loss, lr and norm."""
        self.bar.update()
        if self.enabled:
            self.steps.add(step, values)
            self.bar.set_postfix(loss=f"{values['loss']:.4f}", memory=f"{memory():.1f} GB", refresh=False)
            self.to_board(step, values)

    def add_valid(self, step: int, loss: float) -> None:
        """The validation loss after a step."""
        self.valid.add(step, {"valid": loss})
        self.to_board(step, {"valid": loss})

    def add_sheet(self, step: int, sheet: Image.Image) -> None:
        """Validation pictures."""
        with replacing(self.sheet_at(step)) as draft:
            sheet.save(draft, "PNG")
        if self.board is not None:
            self.board.add_image("sheet", np.asarray(sheet.convert("RGB")), step, dataformats="HWC")

    def sheet_at(self, step: int) -> Path:
        """Where those of a step are."""
        return self.folder / f"sheet-{step:08d}.png"

    def to_board(self, step: int, values: dict[str, float]) -> None:
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def draw(self) -> None:
        """curves.png: the loss, its running mean, and the validation loss."""
        from matplotlib.figure import Figure  # not pyplot: that would take a notebook's figures from it

        step, loss = columns(self.steps.path, "loss")
        figure = Figure(figsize=(6, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.plot(step, loss, color="0.8", linewidth=0.6)
        axes.plot(step, running_mean(loss, max(1, len(loss) // 50)), color="#0072B2")
        axes.plot(*columns(self.valid.path, "valid"), color="#D55E00", marker=".")
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        figure.savefig(self.folder / "curves.png", dpi=120)

    def close(self) -> None:
        self.bar.close()
        if self.enabled:
            self.steps.file.close()
            self.valid.file.close()
            if self.board is not None:
                self.board.close()


def tensorboard(folder: Path, start: int) -> Any:
    """A writer to folder/tensorboard, if TensorBoard is installed; what it has of later steps is dropped."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder / "tensorboard", purge_step=start + 1)


def read(path: Path, names: list[str] | None = None) -> list[dict[str, str]]:
    """The lines of a curves file that have a number in each column; one cut short by a kill, or damaged, is left out.

    names: of the columns [as the first line says].
    """
    if not path.is_file():
        return []
    first, *lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    names = names or first.strip().split(",")
    cells = (line.strip().split(",") for line in lines[:-1])  # what follows the last end of a line was cut short
    whole = [dict(zip(names, row, strict=True)) for row in cells if len(row) == len(names)]
    return [row for row in whole if row["step"].isdecimal() and all(map(is_number, row.values()))]


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def columns(path: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps, and the values of a column."""
    rows = read(path)
    return [int(row["step"]) for row in rows], [float(row[name]) for row in rows]


def running_mean(values: list[float], width: int) -> list[float]:
    """Exponential mean over about `width` steps."""
    means, mean = [], values[0] if values else 0.0
    for value in values:
        mean += (value - mean) / width
        means.append(mean)
    return means


def memory() -> float:
    """This process's memory in GB (of the GPU, if one is used: the peak)."""
    import torch

    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return (peak or psutil.Process().memory_info().rss) / 2**30
