"""The stage that trains the clothing detector."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from minicc.data.samples import CLASSES, CLOTHES
from minicc.outfit.clothing import ClothingDetector, features
from minicc.pipeline import StableDiffusion
from minicc.training.data import Key, in_range
from minicc.training.draws import Draws, rng
from minicc.training.stage import Stage

NO_CLOTHES = [i for i in range(len(CLASSES)) if i not in CLOTHES]


class DetectorStage(Stage):
    """The heads learn the part masks; the models whose features they read stay locked.

    Every head sees its own random half of each batch's pictures twice and the rest not at all, so that they differ
    where the labels leave them free (bagging, Breiman 1996); where they differ, the detector does not know.
    """

    def __init__(self, sd: StableDiffusion, detector: ClothingDetector, parts: bool = True):
        """parts: the labels tell hair and skin from background; False: 0 is everything that is not clothes."""
        super().__init__()
        self.sd, self.detector, self.parts = sd, detector, parts

    @property
    def trained(self) -> nn.Module:
        return self.detector

    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """batch: image (B, 3, H, W) in [-1, 1], index (B, H, W) of CLASSES."""
        logits = self.detector(features(self.sd, batch["image"], self.detector.t))  # (heads, B, classes, H, W)
        losses = torch.stack([self.loss(z, batch["index"].long()) for z in logits])  # (heads, B)
        heads, count = losses.shape
        chosen = draws.rand(heads * count).view(heads, count).argsort(1) < (count + 1) // 2
        return (losses * chosen.to(losses)).sum() / chosen.sum()

    def loss(self, logits: Tensor, index: Tensor) -> Tensor:
        """Cross entropy of each picture, (B,); without part labels, of clothes and their kinds against all else."""
        log_p = logits.float().log_softmax(1)
        if not self.parts:
            rest = log_p[:, NO_CLOTHES].logsumexp(1, keepdim=True)
            log_p = torch.cat([rest, log_p[:, list(CLOTHES)]], 1)
        return F.nll_loss(log_p, index, reduction="none").mean((1, 2))


class Parts(Dataset):
    """Pictures with their part masks; half of them mirrored."""

    def __init__(self, dolls: dict[str, Tensor], seed: int):
        """dolls: of dolls_cache."""
        self.dolls, self.seed = dolls, seed

    def __len__(self) -> int:
        return len(self.dolls["image"])

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, position = key
        image, parts = in_range(self.dolls["image"][index]), self.dolls["index"][index]
        if rng(self.seed, position, 3).random() < 0.5:
            image, parts = image.flip(-1), parts.flip(-1)
        return {"image": image, "index": parts, "name": f"doll {index}"}
