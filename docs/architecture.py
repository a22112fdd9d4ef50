"""Draws docs/architecture.svg: the locked copy, the trainable copy, and what joins them.

python docs/architecture.py [out.svg]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

LOCKED, COPY, ZERO, DATA = "#DCE3EA", "#BFE3D4", "#F6D6A8", "#FFFFFF"  # told apart without colour by their words too
INK = "#22303C"


def box(ax: Axes, x: float, y: float, w: float, h: float, text: str, colour: str) -> None:
    ax.add_patch(FancyBboxPatch((x, y), w, h, "round,pad=0.02,rounding_size=0.08", fc=colour, ec=INK, lw=1))
    ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=8, color=INK)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0) -> None:
    style = f"arc3,rad={bend}"
    ax.add_patch(
        FancyArrowPatch(start, end, connectionstyle=style, arrowstyle="-|>", mutation_scale=9, color=INK, lw=1)
    )


def locked_copy(ax: Axes) -> None:
    """The U-Net: four levels down, the middle, four levels up, skips across."""
    for i, side in enumerate(("64", "32", "16", "8")):
        y = 4.2 - i
        box(ax, 3.0, y, 1.5, 0.6, f"down {i}   {side}×{side}", LOCKED)
        box(ax, 5.6, y, 1.5, 0.6, f"up {3 - i}   {side}×{side}", LOCKED)
        arrow(ax, (4.52, y + 0.3), (5.58, y + 0.3))
        if i:
            arrow(ax, (3.75, y + 0.98), (3.75, y + 0.62))
            arrow(ax, (6.35, y + 0.62), (6.35, y + 0.98))
    box(ax, 4.3, 0.2, 1.5, 0.6, "middle   8×8", LOCKED)
    arrow(ax, (3.75, 1.18), (4.5, 0.82), 0.2)
    arrow(ax, (5.6, 0.82), (6.35, 1.18), 0.2)
    ax.text(5.05, 5.75, "locked U-Net, Θ", ha="center", fontsize=10, weight="bold", color=INK)


def trainable_copy(ax: Axes) -> None:
    """The clone of the encoder half, and a zero convolution on each of its outputs."""
    for i in range(4):
        y = 4.2 - i
        box(ax, 10.1, y, 1.4, 0.6, f"down {i}", COPY)
        box(ax, 8.1, y, 1.3, 0.6, "zero conv ×3", ZERO)
        arrow(ax, (10.08, y + 0.3), (9.42, y + 0.3))
        arrow(ax, (8.08, y + 0.3), (7.12, y + 0.3))
        if i:
            arrow(ax, (10.8, y + 0.98), (10.8, y + 0.62))
    box(ax, 10.1, 0.2, 1.4, 0.6, "middle", COPY)
    box(ax, 8.1, 0.2, 1.3, 0.6, "zero conv", ZERO)
    arrow(ax, (10.8, 1.18), (10.8, 0.82))
    arrow(ax, (10.08, 0.5), (9.42, 0.5))
    arrow(ax, (8.08, 0.5), (5.82, 0.5))
    ax.text(10.8, 5.75, "trainable copy, Θ_c", ha="center", fontsize=10, weight="bold", color=INK)


def inputs(ax: Axes) -> None:
    """What goes in and what comes out."""
    box(ax, 0.2, 4.2, 1.9, 0.6, "noisy latents x_t", DATA)
    box(ax, 0.2, 2.6, 1.9, 0.9, "sentence\n→ CLIP text encoder\n→ context", DATA)
    box(ax, 0.2, 1.3, 1.9, 0.6, "timestep t", DATA)
    arrow(ax, (2.12, 4.5), (2.98, 4.5))
    arrow(ax, (2.12, 3.05), (2.98, 3.4))
    arrow(ax, (2.12, 1.6), (2.98, 2.3))
    ax.text(1.15, 0.75, "t and context reach\nevery block of both copies", ha="center", fontsize=7, color=INK)
    box(ax, 12.3, 4.2, 1.9, 0.6, "+ x_t", DATA)
    box(ax, 12.3, 2.75, 1.9, 0.6, "hint encoder (Θ_z1)", ZERO)
    box(ax, 12.3, 1.3, 1.9, 0.8, "hint: the character,\nmasked pixels −1", DATA)
    arrow(ax, (13.25, 2.12), (13.25, 2.73))
    arrow(ax, (13.25, 3.37), (13.25, 4.18))
    arrow(ax, (12.28, 4.5), (11.52, 4.5))
    box(ax, 5.6, 5.1, 1.5, 0.4, "ε̂ (or v̂)", DATA)
    arrow(ax, (6.35, 4.82), (6.35, 5.08))


def main(out: Path) -> None:
    figure, ax = plt.subplots(figsize=(12, 5.2))
    for part in (locked_copy, trainable_copy, inputs):
        part(ax)
    ax.set(xlim=(0, 14.4), ylim=(0, 6.1), aspect="equal")
    ax.axis("off")
    matplotlib.rcParams["svg.hashsalt"] = "minicc"  # the same bytes at every run
    figure.savefig(out, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("architecture.svg"))
