"""`minicc evaluate phase2 --data FOLDER`: the same questions on characters that artists drew in two outfits each.

What the dolls' attributes tell there, garments' colours tell here. Whose garment it is, is asked the other way round
than of dolls: nobody drew these characters in a third outfit, so each is dressed in another's garment as well.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from minicc.data.pictures import open_picture
from minicc.data.samples import Sample, clothes
from minicc.data.tensors import on_white
from minicc.errors import PictureError
from minicc.evaluation.art import Drawing, complete, drawings
from minicc.evaluation.edits import average, colours_right, mean_delta_e
from minicc.evaluation.fills import redressed
from minicc.evaluation.goals import Figures
from minicc.evaluation.metrics import ssim_map
from minicc.evaluation.phase2 import Masked, cover, largest_outside, mean_paste, reconstruction
from minicc.evaluation.wears import dressed, dressed_as_found, found_clothes
from minicc.models.controlnet import ControlNet
from minicc.outfit.clothing import ClothingDetector
from minicc.outfit.garment import placed
from minicc.outfit.phase2 import GUIDANCE
from minicc.pipeline import StableDiffusion
from minicc.training.draws import rng


@dataclass(frozen=True)
class WornDrawing(Drawing):
    """An artist's character, the picture of a garment, and the same character in it."""

    @cached_property
    def flat(self) -> Image.Image:
        """The garment's picture as the artist drew it."""
        assert self.sample.garment is not None
        return open_picture(self.sample.garment)

    @cached_property
    def garment(self) -> Image.Image:
        """Its picture as it is given, mirrored or not; its place and scale are lost in `placed`."""
        return ImageOps.mirror(self.flat) if rng(self.seed, 6).random() < 0.5 else self.flat

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool: what changes, in either outfit, and nothing else."""
        before, after = (clothes(index, self.sample.changed) for index in self.worn)
        return before | after

    def in_garment_of(self, other: "WornDrawing") -> "WornDrawing":
        """The same character, asked to wear what the other was asked to."""
        return replace(self, sample=replace(self.sample, garment=other.sample.garment))


def evaluate_phase2_on(
    sd: StableDiffusion, control: ControlNet, detector: ClothingDetector, folder: Path, n: int = 200, seed: int = 0,
    steps: int = 50, guidance: float = GUIDANCE, phase1: ControlNet | None = None,
) -> dict[str, object]:  # fmt: skip
    """`figures` under the detector's masks, `true_masks`, `baselines` and the `ceiling`, as for dolls.

    On up to n drawings of a folder, spread evenly; phase1: the ControlNet of the baseline that is given words.
    Another's garment, of the same kinds, is worn under the mask of the own one. Raises PictureError if the folder has
    no such drawings.
    """
    asked = drawings(folder, n, seed, WornDrawing, wearable)
    goal = [reconstruction(sd, one) for one in asked]
    clothes, true = found_clothes(sd, detector, asked), [one.mask for one in asked]
    found, rivals = [one.mask for one in clothes], others(asked)
    swapped = [one.in_garment_of(rival) for one, rival in zip(asked, rivals, strict=True)]
    ways, options = ((asked, ""), (swapped, ", another's garment")), {"steps": steps, "guidance": guidance}

    def judged(pictures: Sequence[Sequence[Image.Image]], masks: Sequence[np.ndarray]) -> Figures:
        own, wrong = pictures
        return {**figures(own, asked, masks, goal), "own_over_other": own_is_nearer(own, wrong, asked, rivals)}

    (ours, masks), (theirs, _) = (
        dressed_as_found(sd, control, detector, those, clothes, f"phase2{what}", **options) for those, what in ways
    )
    told = [dressed(sd, control, those, true, f"true masks{what}", **options) for those, what in ways]

    pasted = [mean_paste(one, mask) for one, mask in zip(asked, found, strict=True)]
    baselines = {"mean": figures(pasted, asked, found, goal)}
    if phase1:
        words = [Masked(one, mask) for one, mask in zip(asked, found, strict=True)]
        spoken = redressed(sd, phase1, words, "phase1_caption", steps=steps)
        baselines["phase1_caption"] = figures(spoken, asked, [one.mask for one in words], goal)
    return {
        "drawings": len(asked),
        **judged((ours, theirs), masks),
        **cover(masks, true),
        "before_narrowing": cover(found, true),
        "true_masks": judged(told, true),
        "ceiling": figures(goal, asked, true, goal),
        "baselines": baselines,
    }


def wearable(sample: Sample) -> bool:
    """Whether all is there, and the garment can be cut out; if it cannot, a warning says why it is left out."""
    if sample.garment is None or not complete(sample):
        return False
    try:
        placed(open_picture(sample.garment), 8)
    except PictureError as error:
        warnings.warn(f"{sample.name} is left out: {error}", stacklevel=2)
        return False
    return True


def others(asked: Sequence[WornDrawing]) -> list[WornDrawing]:
    """For each drawing the next one that changes the same kinds of clothes and shows another garment; else itself."""
    found = []
    for i, one in enumerate(asked):
        following = [*asked[i + 1 :], *asked[:i]]
        alike = (o for o in following if set(o.sample.changed) == set(one.sample.changed) and unlike(o, one))
        found.append(next(alike, one))
    return found


def unlike(a: WornDrawing, b: WornDrawing) -> bool:
    return a.flat.size != b.flat.size or a.flat.tobytes() != b.flat.tobytes()


def figures(
    pictures: Sequence[Image.Image], asked: Sequence[WornDrawing], masks: Sequence[np.ndarray],
    goal: Sequence[Image.Image],
) -> Figures:  # fmt: skip
    """colour: garments whose colour has the truth's name; delta_e, delta_e_raw, ssim, outside_max: as for dolls."""
    seen, aim, truth = ([np.asarray(on_white(p)) for p in ps] for ps in (pictures, goal, [one.truth for one in asked]))
    rows = list(zip(seen, aim, truth, asked, strict=True))
    return {
        "colour": average([ok for x, _, y, one in rows for ok in colours_right(x, y, one.asked_for)]),
        "delta_e": average([mean_delta_e(x, y, one.asked_for > 0) for x, y, _, one in rows]),
        "delta_e_raw": average([mean_delta_e(x, y, one.asked_for > 0) for x, _, y, one in rows]),
        "ssim": average([float(ssim_map(x, y)[one.mask].mean()) for x, y, _, one in rows]),
        "outside_max": largest_outside(asked, pictures, masks),
    }


def own_is_nearer(
    own: Sequence[Image.Image], wrong: Sequence[Image.Image], asked: Sequence[WornDrawing],
    rivals: Sequence[WornDrawing],
) -> float:  # fmt: skip
    """The share of drawings whose own garment brings them nearer to the truth, by mean ΔE2000 where it is worn, than
    their rival's; drawings without a rival are left out, and nan is of none. rivals: of `others`.
    """
    nearer = []
    for x, y, one, rival in zip(own, wrong, asked, rivals, strict=True):
        truth, where = np.asarray(on_white(one.truth)), one.asked_for > 0
        distances = [mean_delta_e(np.asarray(on_white(p)), truth, where) for p in (x, y)]
        if rival is not one and not np.isnan(distances).any():
            nearer.append(float(distances[0] < distances[1]))
    return average(nearer)
