"""`minicc evaluate detector`: how well the clothes are found, and how many labels that takes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.cluster.vq import kmeans2, vq
from torch import Tensor
from tqdm import tqdm

from minicc.data.dolls import Doll, draw
from minicc.data.dolls.wardrobe import CLASSES as NUMBERS
from minicc.data.dolls.wardrobe import PATTERNED
from minicc.data.samples import CLASSES, CLOTHES
from minicc.evaluation.base import first_doll, pictures, test_dolls
from minicc.evaluation.goals import Figures
from minicc.evaluation.metrics import iou
from minicc.evaluation.names import names_told
from minicc.evaluation.points import points_told
from minicc.evaluation.words import words_curve
from minicc.models.unet import UNet
from minicc.outfit.clothing import ClothingDetector, looking
from minicc.outfit.reach import kinds_of
from minicc.pipeline import StableDiffusion
from minicc.training.detector_stage import fit
from minicc.training.tiny import seeded

LABELS = (1, 5, 20, 100, 1000)
COLOURS, SOME = 64, 20_000  # of k-means, and the labelled pixels from which it finds them
Maps = Callable[[Tensor], list[Tensor]]  # pictures (B, 3, H, W) → feature maps


def evaluate_detector(
    sd: StableDiffusion,
    detector: ClothingDetector,
    n: int = 100,
    seed: int = 0,
    labels: Sequence[int] = LABELS,
    steps: int = 300,
) -> Figures:
    """On n test dolls: clothes_iou, miou, iou of every class; `kind`: the share of their tops, bottoms and dresses
    that is recognised from a picture of the garment alone, `kinds` of each class; `points`, `names`: see points.py and
    names.py; `labels`: clothes IoU by the number N of labelled dolls, `miou_labels` the mIoU.

    `baselines` has the same curves for heads on raw pixels and on pixels and a random U-Net's features (`random`), for
    colours alone (`told_by_colour`), and of clothes for the attention to the garments' words (`words`, words.py), which
    tells no classes.
    """
    dolls = test_dolls(first_doll(seed), n)
    images, truth = pictures(dolls), parts_of(dolls)
    found = classes_of(detector, looking(sd, detector.t), images)
    kinds = kinds_right(sd, detector, dolls)
    learned = {
        name: label_curves(maps, images, truth, labels, seed, steps)
        for name, maps in contenders(sd, detector.t).items()
    }
    colours = told_by_colour(images, labels)
    curves, miou_curves = ({name: curve[i] for name, curve in learned.items()} for i in (0, 1))
    return {
        "clothes_iou": clothes_iou(found, truth),
        "miou": miou(found, truth),
        "iou": class_ious(found, truth),
        "kind": kinds.pop("tops, bottoms and dresses"),
        "kinds": kinds,
        "points": points_told(sd, detector, dolls),
        "names": names_told(sd, detector, dolls),
        "labels": curves.pop("features"),
        "miou_labels": miou_curves.pop("features"),
        "baselines": {
            "labels": {
                **curves,
                "colours": {count: clothes_iou(x, truth) for count, x in colours.items()},
                "words": words_curve(sd, images, torch.isin(truth, torch.tensor(list(CLOTHES))), labels),
            },
            "miou_labels": miou_curves | {"colours": {count: miou(x, truth) for count, x in colours.items()}},
        },
    }


def contenders(sd: StableDiffusion, t: int) -> dict[str, Maps]:
    """What a head may read."""
    random = seeded(lambda: UNet(sd.unet.config), 0).eval().to(sd.device, sd.dtype)
    blank = StableDiffusion(random, sd.vae, sd.text_encoder, sd.tokenizer, sd.schedule)
    unmeant = looking(blank, t)
    return {
        "features": looking(sd, t),
        "random": lambda x: [x, *unmeant(x)[-len(random.up_blocks) :]],
        "pixels": lambda x: [x],
    }


def label_curves(
    maps: Maps, images: Tensor, truth: Tensor, labels: Sequence[int], seed: int, steps: int
) -> tuple[dict[str, float], dict[str, float]]:
    """N → clothes IoU, and N → mIoU, of heads that learned from the first N training dolls."""
    ious, mious = {}, {}
    for count in labels:
        dolls = [draw(i) for i in range(count)]
        heads = fit(maps, pictures(dolls), parts_of(dolls), seed, steps)
        found = classes_of(heads, maps, images)
        ious[str(count)], mious[str(count)] = clothes_iou(found, truth), miou(found, truth)
    return ious, mious


def colour_curve(images: Tensor, truth: Tensor, labels: Sequence[int]) -> dict[str, float]:
    """N → clothes IoU where a pixel's colour alone decides."""
    return {count: clothes_iou(found, truth) for count, found in told_by_colour(images, labels).items()}


def told_by_colour(images: Tensor, labels: Sequence[int]) -> dict[str, Tensor]:
    """N → (B, H, W) of CLASSES: k-means finds 64 colours in N labelled pictures, and each has the class that it mostly
    has there.
    """
    told = {}
    for count in labels:
        dolls = [draw(i) for i in range(count)]
        shown, parts = colours_of(pictures(dolls)), parts_of(dolls).flatten().numpy()
        some = np.random.default_rng(0).choice(len(shown), min(len(shown), SOME), replace=False)
        centres, _ = kmeans2(shown[some], COLOURS, minit="++", seed=0)
        votes = np.zeros((COLOURS, len(CLASSES)))
        np.add.at(votes, (vq(shown, centres)[0], parts), 1)
        found = votes.argmax(1)[vq(colours_of(images), centres)[0]]
        told[str(count)] = torch.from_numpy(found).view(len(images), *images.shape[2:])
    return told


def colours_of(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) → (B · H · W, 3): every pixel's colour."""
    return images.permute(0, 2, 3, 1).reshape(-1, 3).numpy()


@torch.no_grad()
def classes_of(detector: ClothingDetector, maps: Maps, images: Tensor, batch: int = 8) -> Tensor:
    """(B, H, W): the likeliest class of every pixel."""
    parts = tqdm(images.split(batch), desc="finding clothes")
    return torch.cat([detector.probabilities(maps, x).argmax(1) for x in parts])


def kinds_right(sd: StableDiffusion, detector: ClothingDetector, dolls: Sequence[Doll]) -> dict[str, float]:
    """How often the detector says what a garment is that it is shown as a shop shows it: class → share of the dolls'
    garments; hats and other accessories are one class.
    """
    right: dict[str, list[bool]] = {"tops, bottoms and dresses": []}
    for doll in dolls:
        for slot in doll.slots:
            kind = CLASSES[NUMBERS[slot]]
            said = kinds_of(sd, detector, doll.flat(slot)) == [kind]
            right.setdefault(kind, []).append(said)
            if slot in PATTERNED:
                right["tops, bottoms and dresses"].append(said)
    return {kind: sum(each) / len(each) for kind, each in right.items()}


def parts_of(dolls: Sequence[Doll]) -> Tensor:
    """(B, H, W) uint8 of CLASSES."""
    return torch.stack([torch.from_numpy(doll.index) for doll in dolls])


def clothes_iou(found: Tensor, truth: Tensor) -> float:
    """Of clothes against all else, whatever their kind. found, truth: (B, H, W) of CLASSES."""
    return iou(*(torch.isin(x, torch.tensor(list(CLOTHES), dtype=x.dtype)) for x in (found, truth)))


def miou(found: Tensor, truth: Tensor) -> float:
    """The mean over all classes."""
    return sum(class_ious(found, truth).values()) / len(CLASSES)


def class_ious(found: Tensor, truth: Tensor) -> dict[str, float]:
    return {name: iou(found == i, truth == i) for i, name in enumerate(CLASSES)}
