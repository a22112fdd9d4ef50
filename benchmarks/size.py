"""What a picture costs by its side and by the batch: minicc's U-Net beside diffusers' on identical weights, plotted.

    python benchmarks/size.py [--size tiny|full] [--device DEVICE] [--dtype float32] [--out docs/size.png]

Sides from 128 to 1024 pixels at batch 1; batches from 1 to 32 at the model's own side. Times are medians of rounds in
turns, memory is the peak beyond the weights; every point is one forward pass without gradients. A JSON with all numbers
is written beside the picture. A point is left out, with a word, if one forward pass takes longer than --limit seconds.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from minicc.evaluation.bench import DTYPES, inputs, machine, mirror, random_stable_diffusion
from minicc.evaluation.compare import Row, compare, seconds
from minicc.models.unet import UNet
from minicc.pipeline import default_device

SIDES = (128, 192, 256, 384, 512, 768, 1024)
BATCHES = (1, 2, 4, 8, 16, 32)


@torch.no_grad()
def measure(
    size: str, device: torch.device, dtype: str, rounds: int, limit: float, sides: list[int], batches: list[int]
) -> Iterator[tuple[str, int, Row]]:
    """("side" or "batch", its value, the comparison) of every point."""
    sd = random_stable_diffusion(size)
    own, stride = sd.side, sd.vae.stride
    ours: UNet = sd.unet.to(device, DTYPES[dtype])
    theirs = mirror(ours, "UNet2DConditionModel", ours.config.to_config())
    for axis, values in (("side", sides), ("batch", batches)):
        for value in values:
            side, batch = (value, 1) if axis == "side" else (own, value)
            given = inputs(ours.config, DTYPES[dtype], device, batch, side // stride)
            if (taken := seconds(lambda given=given: ours(*given))) > limit:
                print(f"{axis} {value} takes {taken:.0f} s a pass, more than --limit {limit:.0f}: left out")
                break
            row = compare(
                f"{axis} {value}",
                lambda given=given: ours(*given),
                lambda given=given: theirs(*given).sample,
                1.0,
                rounds,
            )
            yield axis, value, row


def draw(points: list[dict[str, Any]], title: str, path: Path) -> None:
    """Seconds and MiB over side and over batch; both sides' curves in each panel."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for column, (axis, label) in enumerate((("side", "side, pixels (batch 1)"), ("batch", "batch (the model's side)"))):
        chosen = [point for point in points if point["axis"] == axis]
        values = [point["value"] for point in chosen]
        for row, (ours, theirs, unit, scale) in enumerate(
            (("ours", "theirs", "seconds", 1), ("our_peak", "their_peak", "peak, MiB", 2**20))
        ):
            panel = panels[row][column]
            for name, key, style in (("diffusers", theirs, "s--"), ("minicc", ours, "o-")):
                panel.plot(values, [point[key] / scale for point in chosen], style, label=name, markersize=4)
            panel.set(xscale="log", yscale="log", xlabel=label, ylabel=unit, xticks=values)
            panel.set_xticks(values, map(str, values))
            panel.minorticks_off()
            panel.yaxis.set_major_formatter("{x:g}")
    panels[0][0].legend()
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["tiny", "full"], default="tiny")
    parser.add_argument("--device")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120, help="seconds of one pass beyond which points are left out")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--out", type=Path, default=Path("docs/size.png"))
    a = parser.parse_args()
    device = torch.device(a.device) if a.device else default_device()
    title = f"one U-Net forward pass, {a.size}, {a.dtype}; {machine(device)}"
    print(
        f"{title}\n\n| | minicc, s | diffusers, s | ratio | minicc, MiB | diffusers, MiB | ratio |\n" + "|---" * 7 + "|"
    )
    points = []
    for axis, value, row in measure(a.size, device, a.dtype, a.rounds, a.limit, a.sides, a.batches):
        points.append({"axis": axis, "value": value} | asdict(row))
        peaks = f"{row.our_peak / 2**20:.1f} | {row.their_peak / 2**20:.1f} | {row.memory_ratio:.2f}"
        print(f"| {row.what} | {row.ours:.4f} | {row.theirs:.4f} | {row.ratio:.2f} | {peaks} |", flush=True)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.with_suffix(".json").write_text(json.dumps({"title": title, "points": points}, indent=1) + "\n", "utf-8")
    draw(points, title, a.out)
    print(a.out)


if __name__ == "__main__":
    main()
