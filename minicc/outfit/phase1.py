"""Phase 1: a character, a mask painted over the clothes, a sentence about the attire → the masked part, generated."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from minicc.data.tensors import to_image
from minicc.diffusion.ddim import ddim_sigma, ddim_step
from minicc.diffusion.schedule import NoiseSchedule
from minicc.diffusion.steps import Model, Step, timestep
from minicc.errors import PictureError
from minicc.models.controlnet import ControlNet
from minicc.outfit.compose import MAX_SIDE, Window, blank, latent_mask, make_hint, read_mask, window
from minicc.pipeline import Hinted, StableDiffusion


@dataclass(frozen=True)
class Result:
    """A redressed character."""

    image: Image.Image  # outside the mask equal to the character, value for value
    mask: Image.Image  # as it was used: the painted one, or grown by `feather`; mode L, 0 or 255
    prompt: str
    seed: int
    notes: list[str] = field(default_factory=list)  # what was cropped or scaled


def generate(
    sd: StableDiffusion, control: ControlNet, character: Image.Image, mask: Image.Image | np.ndarray, prompt: str,
    *, seed: int = 0, **options: object,
) -> Result:  # fmt: skip
    """Redress a character; one variant. Options as in `variants`."""
    return variants(sd, control, character, mask, prompt, seeds=[seed], **options)[0]  # type: ignore[arg-type]


@torch.no_grad()
def variants(
    sd: StableDiffusion,
    control: ControlNet,
    character: Image.Image,
    mask: Image.Image | np.ndarray,
    prompt: str,
    *,
    seeds: Sequence[int] = (0,),
    steps: int = 50,
    guidance: float = 7.5,
    negative: str = "",
    strength: float = 1.0,
    eta: float = 0.0,
    feather: int = 0,
    max_side: int | None = None,
    progress: bool = False,
) -> list[Result]:
    """Redress a character several times, one result a seed, all in one batch; each seed's result is its own.

    character: any size, RGB or RGBA (other modes are converted). mask: white over what shall change, same size.
    guidance: classifier-free guidance on the text, 1 is none. strength: of the ControlNet. feather: grow the mask by so
    many pixels. max_side: pictures with a longer side are worked on in the mask's neighbourhood (default: 1.5 times
    the side that the model was trained for). Raises PictureError for a mask that does not fit or is empty.
    """
    character = readable(character)
    declared = read_mask(mask, character.size, feather)
    place = window(declared, sd.vae.stride, margin=sd.side // 4, max_side=max_side or 3 * sd.side // 2)
    image, m = place.take(character), place.take_mask(declared)  # (1, 3, H, W), (1, 1, H, W)

    known = sd.encode_image(blank(image, m))  # (1, 4, h, w)
    noise = torch.cat([randn(known.shape, seed) for seed in seeds]).to(known)  # (B, 4, h, w)
    known, inside = known.expand_as(noise), latent_mask(m, sd.vae.stride).to(known)
    context, unprompted = (sd.encode_text([text]).expand(len(seeds), -1, -1) for text in (prompt, negative))
    hinted = Hinted.of(control, make_hint(image, m), strength)
    model = sd.guided(context, unprompted, guidance, controls=[hinted])
    steps_left = blended_steps(model, noise, known, inside, sd.schedule, steps, eta, generators(seeds))
    for step in tqdm(steps_left, total=steps, disable=not progress, desc="DDIM"):
        latents = step.x
    pictures = [to_image(x) for x in sd.decode_latents(latents)]
    shown = Image.fromarray(declared.astype(np.uint8) * 255)
    notes = notes_on(place, character)
    return [
        Result(place.put(character, picture, declared), shown, prompt, seed, notes)
        for picture, seed in zip(pictures, seeds, strict=True)
    ]


def blended_steps(
    model: Model, noise: Tensor, known: Tensor, inside: Tensor, schedule: NoiseSchedule, steps: int = 50,
    eta: float = 0.0, generators: Sequence[torch.Generator] = (),
) -> Iterator[Step]:  # fmt: skip
    """DDIM from noise; after every step the known latents are put back at that step's noise level.

        x_s ← m ⊙ x_s + (1 − m) ⊙ (√ᾱ_s z + √(1−ᾱ_s) ε)       (as in RePaint, arXiv 2201.09865, eq. 8, with one fixed ε)

    noise: x_T and the fixed ε, (B, 4, h, w); known: z, the character's latents; inside: m, (1, 1, h, w), 1 to generate.
    """
    x = noise
    for t, s in schedule.pairs(steps):
        output = model(x, timestep(x, t))
        x_0, eps = schedule.x_0_from(output, x, t), schedule.epsilon_from(output, x, t)
        sigma = ddim_sigma(schedule.alpha_bar(t, x), schedule.alpha_bar(s, x), eta)
        fresh = None if eta == 0 else torch.stack([randn_like(z, g) for z, g in zip(x, generators, strict=True)])
        x_s = ddim_step(x_0, eps, schedule.alpha_bar(s, x), sigma, fresh).to(x.dtype)
        x = inside * x_s + (1 - inside) * at_level(schedule, known, noise, s)
        yield Step(t, x, x_0, s)


def at_level(schedule: NoiseSchedule, z: Tensor, noise: Tensor, s: int) -> Tensor:
    """z at timestep s; s < 0 is the end: no noise."""
    return z if s < 0 else schedule.add_noise(z, noise, s)


def readable(character: Image.Image) -> Image.Image:
    """RGB or RGBA, of a size that can be worked on."""
    if max(character.size) > MAX_SIDE:
        raise PictureError(
            f"character is {character.width}×{character.height}: sides up to {MAX_SIDE} pixels, scale it first"
        )
    if character.mode in ("RGB", "RGBA"):
        return character
    return character.convert("RGBA" if "A" in character.getbands() or "transparency" in character.info else "RGB")


def notes_on(place: Window, character: Image.Image) -> list[str]:
    """What was cropped or scaled, in words; warned about if it costs detail."""
    notes = []
    left, top, right, bottom = place.box
    if (right - left, bottom - top) != character.size:
        notes.append(f"worked on the mask's neighbourhood, {right - left}×{bottom - top} of {character.size}")
    if place.size != (right - left, bottom - top):
        notes.append(
            f"the masked part was generated at {place.size[0]}×{place.size[1]} and scaled up: some detail is lost"
        )
        warnings.warn(notes[-1], stacklevel=3)
    return notes


def randn(shape: torch.Size, seed: int) -> Tensor:
    """Noise of one seed, drawn on the CPU: the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randn_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator).to(x)


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator a variant for the noise of η > 0, apart from the one that drew x_T."""
    return [torch.Generator().manual_seed(seed + 2**32) for seed in seeds]
