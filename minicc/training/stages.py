"""The stages: what learns, from what, by which loss. The loop is the same for all."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from minicc.models.controlnet import ControlNet, trainable
from minicc.models.zero_conv import lock
from minicc.outfit.compose import make_hint
from minicc.pipeline import StableDiffusion
from minicc.training.draws import Draws
from minicc.training.loop import Stage


class Phase1Stage(Stage):
    """The trainable copy of a locked Stable Diffusion learns to fill the masked part of a character from a sentence.

        L = E ‖ε − ε_θ(x_t, t, c_text, c_hint)‖²             (Zhang et al. 2023, eq. 5)

    The hint is the character with its masked pixels −1. Half of the sentences are dropped, as in the paper, so that the
    copy learns to read the hint.
    """

    def __init__(self, sd: StableDiffusion, control: ControlNet, drop: float = 0.5, sd_locked: bool = True):
        super().__init__()
        self.sd, self.control, self.drop = sd, control, drop
        self.unet, self.vae, self.text_encoder = sd.unet, lock(sd.vae), lock(sd.text_encoder)
        trainable(sd.unet, control, sd_locked)

    @property
    def trained(self) -> nn.Module:
        return self.control

    def train(self, mode: bool = True) -> "Phase1Stage":
        super().train(False)
        self.control.train(mode)  # the locked models stay in evaluation mode
        return self

    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """batch: image (B, 3, H, W) in [-1, 1], mask (B, 1, H, W), caption: B sentences."""
        z = self.sd.encode_image(batch["image"])  # (B, 4, H/8, W/8)
        context = self.sd.encode_text(dropped(batch["caption"], self.drop, draws))  # (B, 77, D)
        hint = make_hint(batch["image"], batch["mask"]).to(z.dtype)
        x_t, t, target = noised(z, self.sd.schedule, draws)
        control = self.control(x_t, t, context, hint)
        return F.mse_loss(self.unet(x_t, t, context, control).float(), target.float())


def noised(z: Tensor, schedule: Any, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, t and the target of a training step: t uniform, noise normal, both from the step's draws."""
    t = draws.randint(schedule.num_timesteps, len(z)).to(z.device)  # (B,)
    noise = draws.randn_like(z)
    return schedule.add_noise(z, noise, t), t, schedule.target(z, noise, t)


def dropped(captions: Sequence[str], probability: float, draws: Draws) -> list[str]:
    """Each sentence replaced by the empty one with the given probability: what makes guidance possible."""
    keep = draws.rand(len(captions)) >= probability
    return [caption if k else "" for caption, k in zip(captions, keep, strict=True)]
