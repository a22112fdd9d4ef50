"""Phase 2 at the official size: a sampling step and a training step of SD 1.5, random weights, on a CPU.

    python benchmarks/official_size.py                        # 512 × 512 pixels; five minutes, 11 GB
    python benchmarks/official_size.py --side 256             # smaller latents

Prints seconds and the largest memory, then what the training needs on a GPU by the package's own estimate, and whether
16 GB and 24 GB hold it. --json FILE writes the figures.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from minicc.evaluation.bench import random_stable_diffusion
from minicc.models.controlnet import ControlNet
from minicc.models.garment_ways import in_way
from minicc.outfit import phase2
from minicc.training.draws import Draws
from minicc.training.memory import estimate
from minicc.training.phase2_stage import Phase2Stage

GPUS = (16, 24)  # GB
SPARE = 1.5  # GB of a GPU that CUDA, cuDNN and the working memory of single operations take
OPTIONS = [
    ("float32", {}, False), ("bf16", {"half": True}, False), ("bf16 --recompute", {"half": True}, True),
    ("bf16 --recompute --eight-bit", {"half": True, "eight_bit": True}, True),
]  # fmt: skip


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--side", type=int, default=512, help="of the pictures, in pixels [512]")
    p.add_argument("--json", type=Path)
    a = p.parse_args()
    sd = random_stable_diffusion("full")
    stage = Phase2Stage(sd, in_way(ControlNet.from_unet(sd.unet), "decoder"))  # the way that ships
    figures: dict[str, Any] = {"side": a.side, "threads": torch.get_num_threads()}
    figures |= sampling(stage, a.side)
    figures |= training(stage, a.side)
    figures["estimates"] = {name: gpu_memory(stage, a.side, given, again) for name, given, again in OPTIONS}
    print("\n".join(table(figures)))
    if a.json:
        a.json.write_text(json.dumps(figures, indent=1) + "\n")


def sampling(stage: Phase2Stage, side: int) -> dict[str, float]:
    """Seconds of a whole picture in seven guided steps, and of one of them; the memory's peak so far, in GB.

    A step lasts from one call of the U-Net to the next, the shortest: between some the known part is encoded anew.
    """
    grey, garment = Image.new("RGB", (side, side), "grey"), Image.new("RGB", (side, side), "white")
    garment.paste("teal", (side // 4, side // 4, side // 2, side // 2))
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True

    calls: list[float] = []
    hook = stage.sd.unet.register_forward_pre_hook(lambda *_: calls.append(time.perf_counter()))
    whole = seconds(lambda: phase2.generate(stage.sd, stage.control, grey, garment, mask=mask, steps=7))
    hook.remove()
    step = min(after - before for before, after in pairwise(calls))
    return {"picture_in_seven_steps": whole, "sampling_step": step, "sampling_peak": peak()}


def training(stage: Phase2Stage, side: int) -> dict[str, float]:
    """Seconds of a step of one character, forward, backward and AdamW; the loss, and the memory's peak in GB."""
    optimizer = torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad], lr=1e-5)
    loss = torch.zeros(())

    def step() -> None:
        nonlocal loss
        loss = stage(batch(side), Draws.at(0, 0))
        loss.backward()
        optimizer.step()

    return {"training_step": seconds(step), "loss": loss.item(), "training_peak": peak()}


def batch(side: int) -> dict[str, torch.Tensor]:
    """One character with a masked square and a garment, as the data loader would give it."""
    random = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 1, side, side)
    mask[..., side // 4 : side // 2, side // 4 : side // 2] = 1
    picture, garment = (torch.rand(1, 3, side, side, generator=random) * 2 - 1 for _ in range(2))
    latents, context = torch.randn(1, 4, side // 8, side // 8, generator=random), torch.zeros(1, 77, 768)
    return {"image": picture, "garment": garment, "mask": mask, "latents": latents, "context": context}


def gpu_memory(stage: Phase2Stage, side: int, given: dict[str, bool], recompute: bool) -> float:
    """GB of a training step by `memory.estimate`, batch 1."""
    for model in (stage.sd.unet, stage.control):
        model.recompute = recompute
    return estimate(stage, batch(side), **given).total / 2**30


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak() -> float:
    """The most memory that this process has held, GB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2 ** (30 if sys.platform == "darwin" else 20)


def table(figures: dict[str, Any]) -> list[str]:
    side, rows = figures["side"], figures["estimates"]
    fits = "".join(f" {size} GB |" for size in GPUS)
    return [
        f"{side} × {side} pixels, {figures['threads']} threads, float32:",
        f"  a picture in seven guided steps {figures['picture_in_seven_steps']:.1f} s, a step "
        f"{figures['sampling_step']:.1f} s; peak {figures['sampling_peak']:.1f} GB",
        f"  a training step {figures['training_step']:.1f} s, loss {figures['loss']:.3f}; "
        f"peak {figures['training_peak']:.1f} GB",
        "",
        f"| training, batch 1 | needs |{fits}",
        "|---" * (2 + len(GPUS)) + "|",
        *(f"| {name} | {need:.1f} GB |{held(need)}" for name, need in rows.items()),
    ]


def held(need: float) -> str:
    return "".join(f" {'yes' if need + SPARE <= size else 'no'} |" for size in GPUS)


if __name__ == "__main__":
    main()
