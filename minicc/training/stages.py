"""The stages: what learns, from what, by which loss. The loop is the same for all."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from minicc.data.tensors import to_image, to_tensors
from minicc.diffusion.ddpm import min_snr_weight
from minicc.diffusion.schedule import NoiseSchedule
from minicc.errors import Error
from minicc.hinted import Hinted
from minicc.models.controlnet import ControlNet, opened, trainable
from minicc.models.text import encode_text
from minicc.models.tokenizer import tokenize
from minicc.models.vae import VAE, Gaussian
from minicc.models.zero_conv import lock
from minicc.outfit import phase1
from minicc.outfit.compose import latent_mask, make_hint
from minicc.pipeline import StableDiffusion
from minicc.training.draws import Draws
from minicc.training.stage import Stage


class Phase1Stage(Stage):
    """The trainable copy of a locked Stable Diffusion learns to fill the masked part of a character from a sentence.

        L = E ‖ε − ε_θ(x_t, t, c_text, c_hint)‖²             (Zhang et al. 2023, eq. 5)

    The hint is the character with its masked pixels −1. Half of the sentences are dropped, as in the paper, so that the
    copy learns to read the hint. Latents are of the whole picture, whose masked part is what is learned; what the copy
    sees of it is blanked. Two weights may be put into the loss, see `loss`.
    """

    empty: Tensor
    phase = 1  # what the copy's file will say
    lighter = "try --recompute, a smaller --batch with more --accumulate, or --dtype bfloat16 --precision bf16"
    inside = 1.0  # how much more a latent cell inside the mask counts; 1: as in the paper

    def __init__(
        self, sd: StableDiffusion, control: ControlNet, drop: float = 0.5, sd_locked: bool = True,
        shown: Sequence[dict[str, Any]] = (), inside: float | None = None, snr_gamma: float = math.inf,
    ):  # fmt: skip
        """shown: the characters of the validation sheet, dicts with image, mask and caption. inside, snr_gamma: of the
        loss's weights; γ = 5 learns sooner what the paper's loss hardly sees, the noisiest steps, ∞ is the paper's.
        """
        super().__init__()
        if not 0 <= drop <= 1:
            raise Error(f"drop={drop}: a share of the sentences, expected 0 to 1")
        self.snr_gamma = positive("snr_gamma", snr_gamma)
        self.inside = self.inside if inside is None else positive("inside", inside)
        self.sd, self.control, self.drop, self.shown, self.sd_locked = sd, control, drop, shown, sd_locked
        self.unet, control.phase = sd.unet, self.phase
        self.uses_all = not control.idle_without_garment
        self.register_buffer("empty", sd.encode_text([""]), persistent=False)  # (1, 77, D)
        trainable(sd.unet, control, sd_locked)

    @property
    def told(self) -> dict[str, float]:
        return {"drop": self.drop, "inside": self.inside, "snr_gamma": self.snr_gamma}

    @property
    def trained(self) -> nn.Module:
        """The copy; with sd_locked=False the opened parts of the U-Net as well."""
        if self.sd_locked:
            return self.control
        return nn.ModuleDict({"control": self.control} | opened(self.unet))

    @property
    def heavy(self) -> list[nn.Module]:
        return [self.unet, self.control]

    def train(self, mode: bool = True) -> "Phase1Stage":
        super().train(False)
        self.control.train(mode)  # the locked models stay in evaluation mode
        return self

    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """batch: latents (B, 4, h, w), scaled; context (B, 77, D), or in its place ids (B, 77), as shards keep them;
        image (B, 3, H, W) in [-1, 1]; mask (B, 1, H, W).
        """
        z = batch["latents"].to(self.empty.dtype)
        context = dropped(self.context(batch).to(z), self.empty, self.drop, draws)
        hint = make_hint(batch["image"], batch["mask"]).to(z)
        x_t, t, target = noised(z, self.sd.schedule, draws)
        control = self.control(x_t, t, context, hint)
        return self.loss(self.unet(x_t, t, context, control), target, batch["mask"], t)

    @torch.no_grad()
    def context(self, batch: dict[str, Any]) -> Tensor:
        """The sentences' contexts, (B, 77, D): from the cache, or computed."""
        if "context" in batch:
            return batch["context"]
        return encode_text(self.sd.text_encoder.to(self.empty.device), batch["ids"].long())

    def loss(self, output: Tensor, target: Tensor, mask: Tensor, t: Tensor) -> Tensor:
        """λ_t Σ w (ε − ε_θ)² / Σ w of each picture, their mean; 0-d.

        w: 1 outside the mask, which sampling puts back anyway, and `inside` within; λ_t: Min-SNR-γ's weight of t. Each
        picture counts alike, so that a batch's loss is the mean of its parts': two processes have one's loss.
        """
        if self.inside == 1 and math.isinf(self.snr_gamma):
            return F.mse_loss(output.float(), target.float())
        weight = 1 + (self.inside - 1) * latent_mask(mask, self.sd.vae.stride)  # (B, 1, h, w)
        error = F.mse_loss(output.float(), target.float(), reduction="none").mean(1, keepdim=True)
        each = (weight * error).sum((1, 2, 3)) / weight.sum((1, 2, 3))  # (B,)
        return (time_weight(t, self.sd.schedule, self.snr_gamma) * each).mean()

    def sheet(self) -> Image.Image | None:
        """Four rows: characters; hints, the mask in magenta; what the copy draws of them from a hint and a caption
        alone; the same with the known latents put back, pasted. 20 steps, always from the same noise.

        The third row is what `evaluation.phenomena` measures: there the hint is followed, or not yet.
        """
        if not self.shown:
            return None
        images, masks = (torch.stack([sample[name] for sample in self.shown]) for name in ("image", "mask"))
        captions, hint = [sample["caption"] for sample in self.shown], make_hint(images, masks)
        free, filled = (
            phase1.fill(
                self.sd, images, masks, captions, range(len(images)), [Hinted.of(self.control, hint)],
                steps=20, put_back=put_back,
            ).cpu()
            for put_back in (False, True)
        )  # fmt: skip
        return grid([images, torch.where(masks > 0.5, MAGENTA, images), free, torch.where(masks > 0.5, filled, images)])


MAGENTA = torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1)


def positive(name: str, value: float) -> float:
    """A weight of the loss, as it is. Raises Error if it is not more than 0."""
    if not value > 0:
        raise Error(f"{name}={value}: a weight in the loss, expected more than 0")
    return value


def noised(z: Tensor, schedule: Any, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, t and the target of a training step: t uniform, noise normal, both from the step's draws."""
    t = draws.randint(schedule.num_timesteps, len(z)).to(z.device)  # (B,)
    noise = draws.randn_like(z)
    return schedule.add_noise(z, noise, t), t, schedule.target(z, noise, t)


def weighted_loss(output: Tensor, target: Tensor, t: Tensor, schedule: NoiseSchedule, snr_gamma: float) -> Tensor:
    """The mean squared error, each picture's weighted by Min-SNR-γ; with γ = ∞ the simple loss."""
    error = (output.float() - target.float()).square().flatten(1).mean(1)  # (B,)
    return (time_weight(t, schedule, snr_gamma) * error).mean()


def time_weight(t: Tensor, schedule: NoiseSchedule, snr_gamma: float) -> Tensor:
    """λ_t of each picture's loss, (B,): Min-SNR-γ's, or 1 with γ = ∞."""
    return torch.ones_like(t, dtype=torch.float) if math.isinf(snr_gamma) else min_snr_weight(schedule, t, snr_gamma)


def dropped(x: Tensor, empty: Tensor, probability: float, draws: Draws) -> Tensor:
    """Each sentence's row replaced by the empty one's with the given probability: what makes guidance possible.

    x: (B, …), empty: (1, …).
    """
    drop = (draws.rand(len(x)) < probability).to(x.device)
    return torch.where(drop.view(-1, *[1] * (x.ndim - 1)), empty.to(x), x)


class VAEStage(Stage):
    """The autoencoder learns to give pictures back through latents that stay near N(0, I).

        L = m (|e| + e²) + |∇ m e| + w KL(q(z|x) ‖ N(0, I)) / (number of latents),   e = x̂ − x

    Rombach et al. 2022 (arXiv 2112.10752), section 3.1, without its perceptual and adversarial losses, which need
    networks trained on photographs; drawings have flat areas and sharp edges. ∇: the differences of neighbouring
    pixels, for an average colour in a pattern's place is wrong at each of its edges. m: 1, and on clothes `clothes`,
    there (1 + `motifs` c) times as much, c: how much a pixel stands out from those around it (`contrast`).
    """

    shown: Tensor

    def __init__(
        self, vae: VAE, shown: Tensor, kl_weight: float = 1e-4, decoder_only: bool = False, clothes: float = 4.0,
        motifs: float = 0.0,
    ):  # fmt: skip
        """shown: the pictures of the validation sheet, (B, 3, H, W) in [-1, 1]. clothes: the weight of their pixels.
        motifs: what a small logo or star weighs more, which the median colour of the garment around it costs little.

        decoder_only: latents stay what they are, so that a base trained on them stays valid, as with Stability's
        fine-tuned decoders.
        """
        super().__init__()
        if not motifs >= 0:
            raise Error(f"motifs={motifs}: a weight in the loss, expected 0 or more")
        self.vae, self.kl_weight = vae.requires_grad_(True), kl_weight
        self.clothes, self.motifs = clothes, motifs
        if decoder_only:
            lock(vae.encoder), lock(vae.quant_conv)
        self.register_buffer("shown", shown, persistent=False)

    @property
    def told(self) -> dict[str, float]:
        return {"kl_weight": self.kl_weight, "clothes": self.clothes, "motifs": self.motifs}

    @property
    def trained(self) -> nn.Module:
        return self.vae

    @property
    def heavy(self) -> list[nn.Module]:
        return [self.vae.encoder, self.vae.decoder]

    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """batch: image (B, 3, H, W) in [-1, 1], clothes (B, 1, H, W) bool."""
        x = batch["image"]
        m = torch.where(batch["clothes"], self.clothes * (1 + self.motifs * contrast(x)), 1.0)  # (B, 1, H, W)
        q = self.vae.encode(x)
        mean, logvar = q.mean.float(), q.logvar.float()
        z = mean + (0.5 * logvar).exp() * draws.randn_like(mean)
        error = self.vae.decode(z).float() - x
        kl = Gaussian(mean, logvar).kl().mean() / mean[0].numel()
        edges = [(m * error).diff(dim=axis).abs().mean() for axis in (-2, -1)]
        return (m * (error.abs() + error.square())).mean() + sum(edges) + self.kl_weight * kl

    def sheet(self) -> Image.Image:
        """Pictures above, what comes back of them below."""
        again = torch.cat([self.vae.decode(self.vae.encode(x[None]).mean) for x in self.shown])
        return grid([self.shown, again])


def contrast(x: Tensor, side: int = 9) -> Tensor:
    """How far each pixel's colour is from the mean of the square around it, of the channel where it is farthest.

    x: (B, 3, H, W) in [-1, 1]; returns (B, 1, H, W) in [0, 2]. side: of the square, in pixels, odd.
    """
    around = F.avg_pool2d(x, side, stride=1, padding=side // 2, count_include_pad=False)
    return (x - around).abs().amax(1, keepdim=True)


class BaseStage(Stage):
    """The U-Net and the text encoder learn to draw what a caption says: L = E ‖ε − ε_θ(x_t, t, τ_θ(caption))‖².

    Rombach et al. 2022, eq. 3. A tenth of the captions are dropped, for classifier-free guidance.
    """

    lighter = "try --recompute, a smaller --batch with more --accumulate, or, with AdamW, --eight-bit"

    def __init__(self, sd: StableDiffusion, drop: float = 0.1, shown: Sequence[str] = (), snr_gamma: float = math.inf):
        """shown: the captions of the validation sheet. snr_gamma: of the loss's weights, 5 learns faster; ∞: none."""
        super().__init__()
        self.sd, self.drop, self.shown, self.snr_gamma = sd, drop, list(shown), positive("snr_gamma", snr_gamma)
        self.unet, self.text_encoder = sd.unet.requires_grad_(True), sd.text_encoder.requires_grad_(True)
        self.empty = tokenize(sd.tokenizer, [""])  # (1, 77)

    @property
    def told(self) -> dict[str, float]:
        return {"drop": self.drop, "snr_gamma": self.snr_gamma}

    @property
    def trained(self) -> nn.Module:
        return nn.ModuleDict({"unet": self.unet, "text_encoder": self.text_encoder})

    @property
    def heavy(self) -> list[nn.Module]:
        return [self.unet, self.text_encoder]

    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """batch: latents (B, 4, h, w), scaled; ids (B, 77)."""
        z, ids = batch["latents"].float(), batch["ids"]
        context = encode_text(self.text_encoder, dropped(ids, self.empty, self.drop, draws))
        x_t, t, target = noised(z, self.sd.schedule, draws)
        return weighted_loss(self.unet(x_t, t, context), target, t, self.sd.schedule, self.snr_gamma)

    def sheet(self) -> Image.Image | None:
        """What the captions look like, 25 guided steps each, always from the same noise."""
        if not self.shown:
            return None
        pictures = self.sd.generate(self.shown, steps=25, seed=0)
        half = (len(pictures) + 1) // 2
        return grid([to_tensors(row) for row in (pictures[:half], pictures[half:]) if row])


def grid(rows: list[Tensor]) -> Image.Image:
    """Rows of pictures, each (B, 3, H, W) in [-1, 1], as one picture; white where a row is shorter than another."""
    lines = [torch.cat(list(row), dim=-1) for row in rows]
    widest = max(line.shape[-1] for line in lines)
    return to_image(torch.cat([F.pad(line, (0, widest - line.shape[-1]), value=1) for line in lines], dim=-2))
