"""Figures of the course: one style, colours that colour-blind readers can tell apart, pictures and clouds of points."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

# Okabe & Ito 2008, "Color Universal Design": eight colours that stay apart in every common colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
INK, FAINT = "#22303C", "#B8C0C8"  # text and axes; what stands in the background
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)  # the order in which a figure uses them
MARKERS = "osD^v*"  # beside SERIES: a figure must be readable in grey, too


def style() -> None:
    """Set matplotlib's defaults for every figure that follows."""
    cycle = plt.cycler(color=SERIES)
    plt.rcParams.update(
        {
            "axes.prop_cycle": cycle,
            "axes.edgecolor": FAINT,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.titlesize": 10,
            "axes.labelsize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.titlesize": 10,
            "figure.dpi": 100,
            "font.size": 9,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )


def panels(n: int, height: float = 2.2, width: float | None = None) -> tuple[Figure, list[Axes]]:
    """n axes in a row; height and width (of one panel, square unless given) in inches."""
    figure, axes = plt.subplots(1, n, figsize=(n * (width or height), height), layout="constrained", squeeze=False)
    return figure, list(axes[0])


def pictures(
    images: Tensor, *, columns: int = 16, rows: Sequence[str] = (), titles: Sequence[str] = (), size: float = 0.55
) -> Figure:
    """A grid of pictures, row by row: images (N, 3, H, W) in [-1, 1], clipped. Returns the figure.

    rows: a name for each row, at its left; titles: one above each picture of the first row. size: inches of a
    picture's width. Pixels are shown as squares: a picture of 16 pixels is not blurred into one of 160.
    """
    n, height, width = images.shape[0], *images.shape[-2:]
    lines = -(-n // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(columns * size + 0.9 * bool(rows), lines * size * height / width + 0.3 * bool(titles)),
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    shown = ((images.detach().float().cpu() + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()  # (N, H, W, 3)
    for i, ax in enumerate(axes.flat):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if i < n:
            ax.imshow(shown[i], interpolation="nearest")
    for ax, name in zip(axes[:, 0], rows, strict=False):
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    for ax, name in zip(axes[0], titles, strict=False):
        ax.set_title(name, fontsize=8)
    return figure


def cloud(ax: Axes, points: Tensor, colour: str = BLUE, *, title: str = "", limit: float = 2.5, **kwargs: Any) -> Axes:
    """Draw points (N, 2) into ax, the square −limit … limit without ticks; kwargs go to `scatter`. Returns ax."""
    x, y = points.detach().cpu().unbind(-1)
    ax.scatter(x, y, **{"s": 4, "color": colour, "alpha": 0.6, "linewidths": 0, **kwargs})
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal", title=title)
    ax.spines[:].set_visible(True)
    return ax


def arrows(ax: Axes, at: Tensor, vectors: Tensor, colour: str = INK, scale: float | None = None) -> Axes:
    """Draw vectors (N, 2) as arrows that start at the points `at` (N, 2). scale: data units a plot unit. Returns ax."""
    at, vectors = at.detach().cpu(), vectors.detach().cpu()
    ax.quiver(
        *at.unbind(-1), *vectors.unbind(-1), color=colour, angles="xy", scale_units="xy", scale=scale, width=0.006
    )
    return ax
