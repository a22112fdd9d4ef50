"""StableDiffusion: the models, the tokenizer and the schedule as one object, from any source."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from minicc.data.tensors import to_image, to_tensor
from minicc.diffusion.ddim import ddim_sample
from minicc.diffusion.guidance import classifier_free_guidance
from minicc.diffusion.schedule import NoiseSchedule
from minicc.diffusion.steps import Model, generator_of
from minicc.errors import Error
from minicc.hinted import Hinted, both_of, on_second_half
from minicc.models.blocks import keys_values
from minicc.models.controlnet import Control, ControlNet
from minicc.models.text import encode_text
from minicc.models.tokenizer import SHIPPED as CLIP_TOKENIZER
from minicc.models.tokenizer import load_tokenizer, tokenize
from minicc.models.unet import UNet
from minicc.models.vae import VAE
from minicc.models.vocabulary import known_words
from minicc.models.zero_conv import lock
from minicc.weights.export import save_stable_diffusion
from minicc.weights.fill import finite
from minicc.weights.load import Parts, load_stable_diffusion
from minicc.weights.source import PRETRAINED


@dataclass
class StableDiffusion:
    """A whole text-to-image model. Everything lies on one device in one dtype, in evaluation mode."""

    unet: UNet
    vae: VAE
    text_encoder: Any  # transformers' CLIPTextModel
    tokenizer: Any  # transformers' CLIPTokenizer
    schedule: NoiseSchedule
    name: str = "unnamed"
    family: str = "sd1"  # or "sd1-inpaint", "sd2": decides the layout of an export
    tokenizer_source: Path | None = None  # its folder; None: the official vocabulary
    notes: list[str] = field(default_factory=list)  # what the loader assumed
    extra: dict[str, Tensor] = field(default_factory=dict)  # what a CompVis file holds beside the models

    @property
    def device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.conv_in.weight.dtype

    @property
    def side(self) -> int:
        """The side of the pictures that the model was trained on, in pixels."""
        return self.unet.config.sample_size * self.vae.stride

    @property
    def usual_guidance(self) -> float:
        """7.5, as is usual; 2.5 for a small model that knows few words, and follows them without being pushed."""
        return 2.5 if self.knows_one_size else 7.5

    @property
    def knows_one_size(self) -> bool:
        """Whether it draws well at the size that it was trained for and at no other: a small model, of few words."""
        return bool(known_words(self.tokenizer_source))

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> "StableDiffusion":
        """Move all models; returns self."""
        for module in (self.unet, self.vae, self.text_encoder):
            module.to(device=device, dtype=dtype)
        return self

    def compile(self, *controls: ControlNet, **options: Any) -> "StableDiffusion":
        """torch.compile for the U-Net and the ControlNets; returns self. options: torch.compile's.

        It costs minutes at the first picture of each size; the next ones are faster.
        """
        self.unet.compile(**options)
        for net in controls:
            net.control = torch.compile(net.control, **options)  # type: ignore[method-assign]
        return self

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Sentences → context (B, 77, D). Words beyond the encoder's length are cut, with a warning.

        Raises Error for one sentence that is in no list, or if the tokenizer is not this text encoder's.
        """
        if isinstance(prompts, str):
            raise Error(f"expected a list of sentences, got one: put it in brackets, [{prompts!r}]")
        ids, rows = tokenize(self.tokenizer, list(prompts)), self.text_encoder.config.vocab_size
        if ids.max() >= rows:
            raise Error(
                f"{self.name}: its text encoder knows {rows} tokens, the tokenizer is another's: a single file holds "
                "none, so load this model's diffusers folder"
            )
        return finite(encode_text(self.text_encoder, ids), self.text_encoder)

    @torch.no_grad()
    def encode_image(self, image: Image.Image | Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A picture (or (B, 3, H, W) in [-1, 1]) → scaled latents (B, 4, H/8, W/8).

        The posterior's mean; with a generator, a sample of it. H and W: multiples of 8, else Error.
        """
        x = to_tensor(image) if isinstance(image, Image.Image) else image
        self.check_sides(x.shape[-1], x.shape[-2])
        q = self.vae.encode(x.to(self.device, self.dtype))
        z = q.mean if generator is None else q.sample(generator)
        return self.vae.config.scaling_factor * finite(z, self.vae)

    def check_sides(self, width: int, height: int) -> None:
        """Raise Error unless a picture's sides are multiples of a latent cell's."""
        stride = self.vae.stride
        if min(width, height) < stride or width % stride or height % stride:
            raise Error(f"picture is {width}×{height}: pad or crop both sides to multiples of {stride}")

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, 4, h, w) → pictures (B, 3, 8h, 8w) in [-1, 1]."""
        z = latents.to(self.device, self.dtype) / self.vae.config.scaling_factor
        return finite(self.vae.decode(z), self.vae).float().clamp(-1, 1)

    def decode_image(self, latents: Tensor) -> Image.Image:
        """Scaled latents of one picture, (4, h, w) or (1, 4, h, w) → RGB."""
        return to_image(self.decode_latents(latents.reshape(1, *latents.shape[-3:])))

    def check_controllable(self, controls: Sequence[Hinted]) -> None:
        """Raise Error for an inpainting model, or a ControlNet of another U-Net."""
        if self.unet.config.in_channels != self.vae.config.latent_channels:
            raise Error(
                f"{self.name} is an inpainting model: its U-Net expects {self.unet.config.in_channels} channels, "
                "a mask and a masked picture among them; minicc inpaints by a ControlNet: take the family's plain model"
            )
        for c in controls:
            c.net.check_fits(self.unet)
            self.check_beside(c.net)

    def check_beside(self, net: ControlNet) -> None:
        """Raise Error for a ControlNet on another device or, unless autocast converts, in another precision."""
        weight, mixed = net.conv_in.weight, torch.is_autocast_enabled(self.device.type)
        if weight.device != self.device or (weight.dtype != self.dtype and not mixed):
            theirs, ours = (f"{str(m.dtype).removeprefix('torch.')} on {m.device}" for m in (weight, self))
            raise Error(
                f"the ControlNet is {theirs}, the model {ours}: load it with ControlNet.load(…, unet=sd.unet), "
                "or move it with control.to(sd.device, sd.dtype)"
            )

    def guided(
        self,
        context: Tensor,
        negative: Tensor,
        guidance: float,
        *,
        controls: Sequence[Hinted] = (),
        guess_mode: bool = False,
        rescale: float = 0.0,
    ) -> Model:
        """(x, t) → the prediction with classifier-free guidance, both branches in one batch.

        context, negative: (B, 77, D), of the prompt and of what to move away from. guidance: 1 is none, 7.5 usual.
        controls: ControlNets with their hints; they add up. guess_mode: they act on the prompt's branch only, at the
        strengths 0.825^(12−i). rescale: φ of `classifier_free_guidance`, 0 … 1. What no step changes, the text's keys
        and values, is computed here. Raises Error as `check_controllable` does.
        """
        self.check_controllable(controls)
        copies = 1 if guidance == 1 else 2
        branches = torch.cat([negative, context][-copies:])  # (2B, 77, D)
        text = keys_values(self.unet, branches)
        for c in controls:
            for block, layer in c.in_decoder(copies).items():
                text[block] = both_of(text[block], layer) if block in text else layer
        speakers = [c.on(context) if guess_mode else c.on(branches, copies) for c in controls]
        first = True

        def control(x: Tensor, t: Tensor) -> Control | None:
            if guess_mode:
                x, t = x.chunk(copies)[-1], t.chunk(copies)[-1]
            parts = [speaker(x, t) for speaker in speakers]
            c = sum(parts[1:], parts[0]) if parts else None
            if c is None or not guess_mode:
                return c
            return c.guess() if copies == 1 else on_second_half(c.guess())

        def model(x: Tensor, t: Tensor) -> Tensor:
            nonlocal first
            both, ts = torch.cat([x] * copies), torch.cat([t] * copies)
            out = self.unet(both, ts, text, control=control(both, ts))
            if first:  # and in no other step, as it waits for a GPU
                finite(out, self.unet, *(c.net for c in controls))
                first = False
            if copies == 1:
                return out
            uncond, cond = out.chunk(2)
            return classifier_free_guidance(cond, uncond, guidance, rescale)

        return model

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        *,
        size: int | tuple[int, int] | None = None,
        steps: int = 50,
        guidance: float | None = None,
        negative: str = "",
        eta: float = 0.0,
        seed: int = 0,
    ) -> list[Image.Image]:
        """Text → pictures by DDIM. size: side, or (width, height), multiples of 8 [the model's own]. One seed.

        steps: 1 … T. guidance: 1 is none [`usual_guidance`]. negative: what to move away from. eta: 0 … 1, the noise
        of a step. Raises Error for sides of another kind, or one sentence in no list.
        """
        guidance = self.usual_guidance if guidance is None else guidance
        width, height = size if isinstance(size, tuple) else (self.side if size is None else size,) * 2
        self.check_sides(width, height)
        context, unprompted = self.encode_text(prompts), self.encode_text([negative] * len(prompts))
        generator = generator_of(seed)
        shape = (len(prompts), self.vae.config.latent_channels, height // self.vae.stride, width // self.vae.stride)
        x = torch.randn(shape, generator=generator).to(self.device, self.dtype)
        model = self.guided(context, unprompted, guidance)
        z = ddim_sample(model, x, self.schedule, steps=steps, eta=eta, generator=generator)
        del model  # its keys and values, before the decoder needs the most memory
        return [to_image(picture) for picture in self.decode_latents(z)]

    def save(self, path: str | Path, layout: str = "diffusers", dtype: torch.dtype | None = None) -> Path:
        """To a folder that diffusers opens, or (layout="compvis") to one .safetensors file; dtype: of the file."""
        parts = Parts(self.unet, self.vae, self.text_encoder, self.family, self.schedule.to_config())
        parts.extra, parts.tokenizer = self.extra, self.tokenizer
        return save_stable_diffusion(parts, path, layout, dtype, self.tokenizer_source or CLIP_TOKENIZER)


def default_device() -> torch.device:
    """CUDA if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def usable(device: str | torch.device) -> torch.device:
    """The device, if a tensor can be put there. Raises Error."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError):  # no such word; not compiled in; no driver
        raise Error(f"device={str(device)!r} is not on this machine: leave it out, or take cuda, mps or cpu") from None


SHIPPED = PRETRAINED


def load(
    source: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    prediction: str | None = None,
    look: bool = False,
    vae: str | Path | None = None,
) -> StableDiffusion:
    """A Stable Diffusion: "tiny" (shipped), a CompVis .safetensors or .ckpt, a diffusers folder, or a hub id.

    device: CUDA, MPS or the CPU, whichever is there. dtype: the file's on a GPU; float32 on a CPU.
    prediction: "epsilon" or "v_prediction", for SD 2.x files that do not say. look: at every number of the file now,
    for NaN; else one behind the first of a tensor is found when it is used. vae: file or folder of another one, to use
    in the place of the model's, as fine-tuned decoders are. Raises WeightsError, Error for a device that is not here.
    """
    device = usable(device) if device else default_device()
    dtype = dtype or (torch.float32 if device.type == "cpu" else None)
    parts = load_stable_diffusion(source, device, dtype, prediction, vae=vae, look=look)
    pad = 0 if parts.family.startswith("sd2") and parts.tokenizer_source is None else None
    return StableDiffusion(
        unet=lock(parts.unet),
        vae=lock(parts.vae),
        text_encoder=lock(parts.text_encoder),
        tokenizer=load_tokenizer(parts.tokenizer_source, pad_id=pad),
        schedule=NoiseSchedule.from_config(parts.scheduler_config),
        name=str(source),
        family=parts.family,
        tokenizer_source=parts.tokenizer_source,
        notes=parts.notes,
        extra=parts.extra,
    )
