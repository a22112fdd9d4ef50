"""The stage that trains the clothing detector."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import binary_fill_holes
from torch import Tensor, nn
from torch.utils.data import Dataset

from minicc.data.dolls.dataset import COLOURS
from minicc.data.dolls.scenes import BACKGROUNDS, background
from minicc.data.samples import CLASSES, CLOTHES
from minicc.data.tensors import to_tensor
from minicc.models.zero_conv import lock
from minicc.outfit.clothing import ClothingDetector, features, looking
from minicc.outfit.garment import garment_picture
from minicc.pipeline import StableDiffusion
from minicc.training.data import Key, in_range
from minicc.training.draws import Draws, rng
from minicc.training.stage import SMALL, Stage
from minicc.training.stages import grid
from minicc.training.tiny import seeded

POINTS = 1024  # pixels of a labelled picture that the heads learn from at a time
ALL_POINTS = 200_000  # of all pictures of `fit` together: their maps must fit into memory
FLATS = 0.25  # the share of garments alone among what the detector learns from
NO_CLOTHES = [i for i in range(len(CLASSES)) if i not in CLOTHES]


class DetectorStage(Stage):
    """The heads learn the part masks; the models whose features they read stay locked.

    Every head counts each picture twice or not at all, by the toss of a coin, so that they differ where the labels
    leave them free (bagging, Breiman 1996); where they differ, the detector does not know.

    They read some pixels of each picture, others in every step: neighbours tell nearly the same, so more pictures teach
    more than more pixels. Features are computed at every step: to keep them, 1.1 MB a picture in half precision, would
    take 90 GB for 20,000 dolls and garments and their mirror images. Where pictures are few, `fit` keeps them.
    """

    empty: Tensor
    lighter = SMALL

    def __init__(
        self, sd: StableDiffusion, detector: ClothingDetector, parts: bool = True,
        shown: Sequence[dict[str, Any]] = (),
    ):  # fmt: skip
        """parts: the labels tell hair and skin from background; False: 0 may be either of them, too. shown: the
        samples of the validation sheet, dicts with image and index.
        """
        super().__init__()
        self.sd, self.detector, self.parts, self.shown = sd, detector, parts, shown
        self.register_buffer("empty", sd.encode_text([""]), persistent=False)  # (1, 77, D)
        self.locked = nn.ModuleList([lock(sd.unet), lock(sd.vae), lock(sd.text_encoder)])

    @property
    def trained(self) -> nn.Module:
        return self.detector

    def train(self, mode: bool = True) -> "DetectorStage":
        super().train(mode)
        self.locked.eval()
        return self

    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """batch: image (B, 3, H, W) in [-1, 1], index (B, H, W) of CLASSES."""
        count, *size = batch["index"].shape
        where = centres(draws.rand(count * POINTS * 2).view(-1, POINTS, 1, 2), size)
        maps = features(self.sd, batch["image"], self.detector.t, self.empty)
        logits = self.detector([at(m, where) for m in maps])  # (heads, B, classes, POINTS, 1)
        index = at(batch["index"][:, None].float(), where, "nearest")[:, 0].long()
        losses = torch.stack([self.loss(z, index) for z in logits])  # (heads, B)
        heads, count = losses.shape
        chosen = draws.rand(count * heads).view(count, heads).T < 0.5  # a picture's row, whichever process has it
        return 2 * (losses * chosen.to(losses)).mean()

    def sheet(self) -> Image.Image | None:
        """Three rows: pictures; their labels, a colour each; what the detector finds."""
        if not self.shown:
            return None
        images, labels = (torch.stack([sample[name] for sample in self.shown]) for name in ("image", "index"))
        look = looking(self.sd, self.detector.t)
        found = torch.cat([self.detector.probabilities(look, x[None].to(self.empty)).argmax(1).cpu() for x in images])
        colours = torch.tensor(COLOURS) / 127.5 - 1  # (classes, 3)
        return grid([images, *(colours[index.long()].permute(0, 3, 1, 2) for index in (labels, found))])

    def loss(self, logits: Tensor, index: Tensor) -> Tensor:
        """Cross entropy of each picture, (B,); without part labels 0 is all that is not clothes, hair and skin too."""
        log_p = logits.float().log_softmax(1)
        if not self.parts:
            rest = log_p[:, NO_CLOTHES].logsumexp(1, keepdim=True)
            log_p = torch.cat([rest, log_p[:, 1:]], 1)
        return F.nll_loss(log_p, index, reduction="none").mean((1, 2))


class Parts(Dataset):
    """Pictures with their part masks, now and then a garment alone, as a shop shows it, or nobody; half mirrored.

    From a garment alone the detector learns to tell what it is from its own picture, laid as `kinds_of` lays it; from a
    background alone, that there may be nothing to find; from half a figure, that a picture need not end with the feet.
    """

    def __init__(
        self, dolls: dict[str, Tensor], seed: int, garments: dict[str, Tensor] | None = None, flats: float = FLATS,
        nobody: float = 0.05, halves: float = 0.25,
    ):  # fmt: skip
        """dolls: of `draw_dolls`; garments: of `lone_garments`. flats: the share of these, if there are any; nobody: of
        backgrounds; halves: of characters cut off somewhere from the chest to the knees.
        """
        self.dolls, self.seed, self.garments, self.nobody, self.halves = dolls, seed, garments, nobody, halves
        self.flats = flats if garments else 0.0

    def __len__(self) -> int:
        return len(self.dolls["image"])

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, position = key
        random = rng(self.seed, position, 3)
        mirror, which = random.random(2)
        if which > 1 - self.nobody:
            image = in_range(scene(random, self.dolls["image"].shape[-1]))
            parts = torch.zeros_like(self.dolls["index"][index])
        elif self.garments and which < self.flats:
            image = laid(self.garments["flat"][index])
            parts = alone(image, int(self.garments["slot"][index]))
        else:
            image, parts = in_range(self.dolls["image"][index]), self.dolls["index"][index]
            cut, share = random.random(2)
            if cut < self.halves:
                image, parts = half_figure(image, parts, 0.45 + 0.4 * float(share))
        if mirror < 0.5:
            image, parts = image.flip(-1), parts.flip(-1)
        return {"image": image, "index": parts, "name": f"doll {index}"}


def half_figure(image: Tensor, parts: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The upper part of a character and of its part mask, enlarged to the picture's size, as a bust would show it.

    image: (3, H, H) in [-1, 1]; parts: (H, H), 0 where nobody is. share: of the picture's height, from the hair down.
    """
    side, figure = len(parts), parts > 0
    size = round(share * side)
    first = int(figure.any(1).int().argmax())
    middle = int(figure.any(0).nonzero().float().mean()) if figure.any() else side // 2
    top, left = (min(max(0, start), side - size) for start in (first - size // 16, middle - size // 2))
    window = slice(top, top + size), slice(left, left + size)
    enlarged = F.interpolate(image[:, *window][None], (side, side), mode="bicubic", antialias=True).clamp(-1, 1)
    return enlarged[0], F.interpolate(parts[window][None, None].float(), (side, side))[0, 0].to(parts)


def scene(random: np.random.Generator, size: int) -> Tensor:
    """A background that dolls stand on, without one: (3, size, size) uint8. Half of them get another tint."""
    picture = background(str(random.choice(BACKGROUNDS[1:])), size).transpose(2, 0, 1)
    return torch.from_numpy(picture[random.permutation(3) if random.random() < 0.5 else [0, 1, 2]])


def laid(flat: Tensor) -> Tensor:
    """A garment's picture, (3, H, H) uint8, as `placed` lays it: in the middle, as large as fits. In [-1, 1]."""
    picture = Image.fromarray(flat.permute(1, 2, 0).numpy())
    return to_tensor(garment_picture(picture, picture.width))[0]


def alone(flat: Tensor, number: int) -> Tensor:
    """The part mask of a garment on white, (H, W) uint8: its class where it is. White within it is its own too.

    flat: (3, H, W) in [-1, 1].
    """
    return torch.from_numpy(binary_fill_holes(flat.min(0).values.numpy() < 0.98).astype(np.uint8) * number)


def fit(
    maps: Callable[[Tensor], list[Tensor]], images: Tensor, index: Tensor, seed: int, steps: int = 300, batch: int = 4
) -> ClothingDetector:
    """A detector from a few labelled pictures, in seconds: their maps are computed once, at some pixels of each.

    maps: pictures → feature maps; images: (N, 3, H, W) in [-1, 1]; index: (N, H, W) of CLASSES.
    """
    known, where = in_places(maps, images, seed)
    labels = at(index[:, None].float(), where, "nearest")[:, 0].long()  # (N, points, 1)
    detector = seeded(lambda: ClothingDetector([m.shape[1] for m in known]), seed)
    detector.measure(known)
    optimizer = torch.optim.AdamW([p for p in detector.parameters() if p.requires_grad], lr=3e-3)
    for step in range(steps):
        chosen = Draws.at(seed, step + 1).randint(len(images), min(batch, len(images)))
        logits = detector([m[chosen] for m in known])  # (heads, B, classes, points, 1)
        F.cross_entropy(logits.flatten(0, 1), labels[chosen].repeat(len(logits), 1, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return detector.eval().requires_grad_(False)


def in_places(
    maps: Callable[[Tensor], list[Tensor]], images: Tensor, seed: int, mode: str = "bilinear"
) -> tuple[list[Tensor], Tensor]:
    """Maps of pictures (N, 3, H, W) at some pixels of each, (N, C, points, 1), and these, (N, points, 1, 2) in [-1, 1].

    Eight pictures at a time: the maps of all of them would not fit into memory.
    """
    points = max(16, min(POINTS, ALL_POINTS // len(images)))
    where = centres(Draws.at(seed, 0).rand(2 * points * len(images)).view(len(images), points, 1, 2), images.shape[-2:])
    parts = zip(images.split(8), where.split(8), strict=True)
    return [torch.cat(c) for c in zip(*([at(m, w, mode) for m in maps(x)] for x, w in parts), strict=True)], where


def centres(u: Tensor, size: Sequence[int]) -> Tensor:
    """Uniform numbers (…, 2) in [0, 1) → the middles of pixels of a picture of (H, W), x and y in [-1, 1]."""
    sides = torch.tensor(size[::-1])
    return (2 * (u * sides).floor() + 1) / sides - 1


def at(m: Tensor, where: Tensor, mode: str = "bilinear") -> Tensor:
    """A map (N, C, h, w) at places of its pictures, (N, points, 1, 2) in [-1, 1]: as if enlarged, then read there."""
    return F.grid_sample(m.float(), where.to(m.device), mode=mode, padding_mode="border", align_corners=False)
