"""What the ControlNet paper tells of training, measured: identity before the first step, and sudden convergence.

While a hint is not followed, the loss hardly tells: it falls smoothly. So the validation sheets of a phase-1 run hold
pictures drawn from a hint and a caption alone, always from the same noise; here they are compared with the characters.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from minicc.atomic import replacing
from minicc.data.tensors import to_tensor
from minicc.errors import Error
from minicc.evaluation.metrics import delta_e
from minicc.evaluation.swaps import swap
from minicc.hinted import Hinted
from minicc.models.controlnet import ControlNet
from minicc.outfit import phase1
from minicc.outfit.compose import make_hint
from minicc.pipeline import StableDiffusion

ROWS = 4  # of a sheet: characters, hints with the mask in magenta, from the hint alone, finished
MAGENTA = (255, 0, 255)


class Follow(NamedTuple):
    """How far the pictures of a step are from the characters: mean ΔE2000."""

    step: int
    outside: float  # where the hint shows the character: falls suddenly once the hint is followed
    inside: float  # where it is masked, and the caption tells what is worn


def identity(sd: StableDiffusion, steps: int = 10, seed: int = 0) -> float:
    """The largest difference that a fresh ControlNet makes through the whole sampler, of 2: exactly 0.

    All its zero convolutions return zeros, so that the locked model does what it always did.
    """
    one = swap(1_000_000 + seed, changes_length=False)
    image, mask = to_tensor(one.character), torch.from_numpy(one.mask).float()[None, None]
    fresh = Hinted.of(ControlNet.from_unet(sd.unet), make_hint(image, mask))
    with_copy, without = (
        phase1.fill(sd, image, mask, [one.prompt], [seed], controls, steps=steps) for controls in ([fresh], [])
    )
    return (with_copy - without).abs().max().item()


def convergence(run: Path) -> list[Follow]:
    """The course of a phase-1 run, read from its sheets. Raises Error if there are none."""
    sheets = sorted(run.glob("sheet-*.png"))
    if not sheets:
        raise Error(f"{run}: no sheets; expected the folder that minicc train phase1 --out wrote")
    return [Follow(int(path.stem.removeprefix("sheet-")), *errors(np.asarray(Image.open(path)))) for path in sheets]


def turn(course: Sequence[Follow]) -> list[int]:
    """The steps to look at: the first, the last one before the hint is followed, the onset, the last.

    Raises Error if the hint is never followed, or from the first sheet on.
    """
    steps, begun = [row.step for row in course], onset(course)
    if begun is None or begun == steps[0]:
        found = "never followed" if begun is None else "followed from the first sheet on"
        raise Error(f"there is no before and after in the sheets of steps {steps}: the hint is {found}")
    return [steps[0], steps[steps.index(begun) - 1], begun, steps[-1]]


def before_and_after(run: Path, steps: Sequence[int]) -> Image.Image:
    """Characters, hints, and what each of these steps draws of them from the hint and the caption alone."""
    sheets = [np.split(np.asarray(Image.open(run / f"sheet-{step:08d}.png")), ROWS) for step in steps]
    return Image.fromarray(np.concatenate([*sheets[0][:2], *(free for _, _, free, _ in sheets)]))


def errors(sheet: np.ndarray) -> tuple[float, float]:
    """(outside, inside) of one sheet, (4·side, N·side, 3) uint8."""
    characters, hints, free, _ = np.split(sheet, ROWS)
    masked = (hints == MAGENTA).all(-1)
    difference = delta_e(free, characters)
    return float(difference[~masked].mean()), float(difference[masked].mean())


def onset(course: Sequence[Follow]) -> int | None:
    """The first step from which on the hint is followed: the error outside stays below the middle of its range.

    None if it never fell to less than two thirds of what it was.
    """
    outside = np.array([row.outside for row in course])
    if outside.min() > 2 / 3 * outside[0]:
        return None
    below = outside < (outside[0] + outside.min()) / 2
    return course[int(np.flatnonzero(~below)[-1]) + 1].step if below[-1] else None


def write_course(path: Path, arms: dict[str, list[Follow]]) -> Path:
    """A CSV with columns arm, step, outside, inside: what notebooks plot."""
    with replacing(path) as draft, draft.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["arm", *Follow._fields])
        writer.writerows(
            [arm, row.step, f"{row.outside:.3f}", f"{row.inside:.3f}"] for arm in arms for row in arms[arm]
        )
    return path


def read_course(path: Path) -> dict[str, list[Follow]]:
    """And back."""
    arms: dict[str, list[Follow]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            follow = Follow(int(row["step"]), float(row["outside"]), float(row["inside"]))
            arms.setdefault(row["arm"], []).append(follow)
    return arms
