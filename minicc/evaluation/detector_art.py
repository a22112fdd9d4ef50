"""`minicc evaluate detector --data FOLDER`: the clothes of characters by artists, learned from a few and from all.

The folder has two parts, train/ and val/, each with characters and masks: heads learn from train, val is measured.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from minicc.data.folder import PictureFolder
from minicc.data.samples import CLASSES, CLOTHES
from minicc.errors import PictureError
from minicc.evaluation.art import spread
from minicc.evaluation.detector import class_ious, classes_of, clothes_iou
from minicc.evaluation.goals import Figures
from minicc.outfit.clothing import ClothingDetector, looking
from minicc.pipeline import StableDiffusion
from minicc.training.detector_stage import fit
from minicc.training.folders import FolderParts

FEW = 20


def evaluate_detector_on(
    sd: StableDiffusion, detector: ClothingDetector, folder: Path, n: int = 100, seed: int = 0, steps: int = 300,
    labels: Sequence[int] = (FEW,),
) -> Figures:  # fmt: skip
    """clothes_iou, miou and iou on up to n characters of val, of the detector as it is; `labels`: clothes IoU of heads
    that learned from N characters of train, also from all, and `miou_labels`; `baselines`: heads on pixels alone.

    miou: over background and the kinds of clothes that occur; hair and skin count as background, as in these masks.
    Raises PictureError for a folder without the two parts.
    """
    if missing := [part for part in ("train", "val") if not (folder / part).is_dir()]:
        raise PictureError(f"{folder} has no {missing[0]}/: expected a folder with train/ and val/, as characters/lpc")
    parts = (PictureFolder(folder / part, sd.side, needs=("mask",)) for part in ("train", "val"))
    train, val = (FolderParts(part, seed) for part in parts)
    images, truth = stacked(val, n)
    seen = looking(sd, detector.t)
    curves: dict[str, dict[str, float]] = {"labels": {}, "miou_labels": {}, "pixels": {}}
    for count in sorted({*(min(count, len(train)) for count in labels), len(train)}):
        shown, known = stacked(train, count)
        learned = measures(classes_of(fit(seen, shown, known, seed, steps), seen, images), truth)
        curves["labels"][str(count)], curves["miou_labels"][str(count)] = learned["clothes_iou"], learned["miou"]
        bare = fit(lambda x: [x], shown, known, seed, steps)
        curves["pixels"][str(count)] = clothes_iou(classes_of(bare, lambda x: [x], images), truth)
    pixels = curves.pop("pixels")
    return {**measures(classes_of(detector, seen, images), truth), **curves, "baselines": {"pixels": pixels}}


def stacked(data: FolderParts, count: int) -> tuple[Tensor, Tensor]:
    """Up to so many samples, spread evenly over the folder: images (N, 3, H, W) and parts (N, H, W)."""
    rows = [data[i, i] for i in tqdm(spread(range(len(data)), count), desc="reading characters")]
    return torch.stack([row["image"] for row in rows]), torch.stack([row["index"] for row in rows])


def measures(found: Tensor, truth: Tensor) -> dict[str, float]:
    """Of classes found against the truth, (B, H, W) each."""
    clothes = torch.tensor(list(CLOTHES))
    found = torch.where(torch.isin(found, clothes), found, 0)
    ious = class_ious(found, truth)
    there = [name for i, name in enumerate(CLASSES) if (truth == i).any()]
    return {"clothes_iou": clothes_iou(found, truth), "miou": sum(ious[name] for name in there) / len(there)}
