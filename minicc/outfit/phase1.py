"""Phase 1: a character, a mask painted over the clothes, a sentence about the attire → the masked part, generated."""

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from minicc.data.masks import extent, mask_picture
from minicc.data.pictures import MAX_SIDE, has_alpha, to_rgb
from minicc.data.tensors import to_image
from minicc.diffusion.ddim import check_eta, ddim_sigma, ddim_step
from minicc.diffusion.schedule import NoiseSchedule
from minicc.diffusion.steps import Model, Step, draw, generator_of, last, timestep
from minicc.errors import Error, PictureError
from minicc.hinted import Hinted
from minicc.models.controlnet import ControlNet
from minicc.models.vocabulary import unknown_words
from minicc.outfit.compose import blank, latent_mask, make_hint, read_mask, seamless
from minicc.outfit.window import Window, figure_window, window
from minicc.pipeline import StableDiffusion

OPENING = 500  # the timestep down to which an opening sentence is told: until then outlines are drawn, then patterns


@dataclass(frozen=True)
class Result:
    """A redressed character."""

    image: Image.Image  # outside the mask equal to the character, value for value
    mask: Image.Image  # as it was used: the painted one, grown by `feather`; phase 2's, narrowed; mode L, 0 or 255
    prompt: str
    seed: int
    notes: list[str] = field(default_factory=list)  # what was cropped or scaled, and what was recognised
    colour_error: float | None = None  # phase 2: ΔE2000 of the generated colours to the garment's


def generate(
    sd: StableDiffusion, control: ControlNet | None, character: Image.Image, mask: Image.Image | np.ndarray,
    prompt: str, *, seed: int = 0, **options: object,
) -> Result:  # fmt: skip
    """Redress a character; one variant. Options as in `variants`."""
    return variants(sd, control, character, mask, prompt, seeds=[seed], **options)[0]  # type: ignore[arg-type]


def variants(
    sd: StableDiffusion,
    control: ControlNet | None,
    character: Image.Image,
    mask: Image.Image | np.ndarray,
    prompt: str,
    *,
    seeds: Sequence[int] = (0,),
    steps: int = 50,
    guidance: float | None = None,
    negative: str = "",
    strength: float = 1.0,
    eta: float = 0.0,
    feather: int = 0,
    max_side: int | None = None,
    progress: bool = False,
) -> list[Result]:
    """Redress a character several times, one result a seed, all in one batch; each seed's result is its own.

    control: None leaves the filling to the locked model alone. character: any size, RGB or RGBA (other modes are
    converted). mask: white over what shall change, same size. prompt: the new attire. steps: of DDIM. guidance:
    classifier-free guidance on the text, 1 is none [the model's usual]; negative: what to move away from. strength:
    of the ControlNet. eta: η of DDIM, 0 adds no noise on the way. feather: grow the mask by so many pixels.
    max_side: pictures with a longer side are worked on in the mask's neighbourhood [1.5 times the model's side; a
    small model sees the figure, scaled: `figure_window`]. Raises PictureError for a mask that does not fit
    or is empty.
    """
    warn_of_phase(control, 1)
    ready = prepare(sd, character, mask, feather, max_side)
    for doubt in unknown_words(sd.tokenizer_source, f"{prompt} {negative}"):
        warnings.warn(doubt, stacklevel=2)
    controls = [] if control is None else [Hinted.of(control, ready.hint, strength)]
    options = {"steps": steps, "guidance": guidance, "negative": negative, "eta": eta, "progress": progress}
    pictures = fill(sd, ready.image, ready.mask, [prompt], seeds, controls, **options)  # type: ignore[arg-type]
    return [ready.result(picture, prompt, seed) for picture, seed in zip(pictures, seeds, strict=True)]


OTHER_PHASE = {
    1: "this ControlNet was trained for phase 2, where nearly every sentence is empty: it may not follow the prompt. "
    "Take one that `minicc train phase1` made, or an official inpainting one",
    2: "this ControlNet was trained for phase 1 and has never seen a garment: expect it to draw another one. "
    "Take one that `minicc train phase2` made from it",
}


def warn_of_phase(control: ControlNet | None, wanted: int) -> None:
    """Warn about a ControlNet whose file says that it was trained for the other phase; official ones say nothing."""
    if control is not None and control.phase not in (None, wanted):
        warnings.warn(OTHER_PHASE[wanted], stacklevel=3)


def batch(
    sd: StableDiffusion, control: ControlNet | None, ready: Sequence["Ready"], prompts: Sequence[str],
    seeds: Sequence[int], *, blind: bool = False, strength: float = 1.0, **options: object,
) -> list[Result]:  # fmt: skip
    """Many characters at once, each with its prompt and its seed; what `variants` makes of each, to rounding.

    ready: of `prepare`, all worked on at one size. blind: the ControlNet is given a blank hint, everything masked.
    options: of `fill`.
    """
    image, mask, hint = in_one_batch(ready)
    hint = torch.full_like(hint, -1) if blind else hint
    controls = [] if control is None else [Hinted.of(control, hint, strength)]
    pictures = fill(sd, image, mask, prompts, seeds, controls, **options)  # type: ignore[arg-type]
    return [r.result(*made) for r, *made in zip(ready, pictures, prompts, seeds, strict=True)]


@dataclass(frozen=True)
class Ready:
    """A character made ready: what the models see of it, and where the result belongs."""

    character: Image.Image  # RGB or RGBA
    declared: np.ndarray  # (H, W) bool: the mask as it is used
    place: Window
    image: Tensor  # (1, 3, h, w) in [-1, 1]: the window
    mask: Tensor  # (1, 1, h, w), 1 to generate

    @property
    def hint(self) -> Tensor:
        return make_hint(self.image, self.mask)

    def result(self, picture: Tensor, prompt: str, seed: int) -> Result:
        """The generated window, (3, h, w), pasted into the character inside the declared mask."""
        image = self.place.put(self.character, to_image(picture), self.declared)
        return Result(image, mask_picture(self.declared), prompt, seed, notes_on(self.place, self.character))


def in_one_batch(ready: Sequence[Ready]) -> tuple[Tensor, Tensor, Tensor]:
    """(image, mask, hint) of all in one batch. Raises PictureError if they are worked on at several sizes."""
    sizes = list(dict.fromkeys("{}×{}".format(*r.place.padded) for r in ready))
    if len(sizes) > 1:
        raise PictureError(f"pictures of {' and '.join(sizes)} in one batch: take those of one size together")
    image, mask, hint = zip(*((r.image, r.mask, r.hint) for r in ready), strict=True)
    return torch.cat(image), torch.cat(mask), torch.cat(hint)


def prepare(
    sd: StableDiffusion, character: Image.Image, mask: Image.Image | np.ndarray, feather: int = 0,
    max_side: int | None = None,
) -> Ready:  # fmt: skip
    """Check the character and its mask, and choose the window to work on. Arguments as for `variants`."""
    character = readable(character)
    declared = read_mask(mask, character.size, feather)
    if declared.sum() > 1 and one_colour(np.asarray(character)[declared]):
        warnings.warn("what lies under the mask has one colour: is it painted over the clothes?", stacklevel=3)
    if sd.knows_one_size and max_side is None:
        place = figure_window(character, sd.side, declared)
    else:
        longest = 3 * sd.side // 2 if max_side is None else max_side
        room = (min(sd.side, longest) - max(extent(declared))) // 2  # a small mask's: up to the size the model knows
        place = window(declared, sd.vae.stride, margin=max(sd.side // 4, room), max_side=longest)
    ready = Ready(character, declared, place, place.take(character), place.take_mask(declared))
    if place.shrinks:
        warnings.warn(notes_on(place, character)[-1], stacklevel=3)
    return ready


@torch.no_grad()
def fill(
    sd: StableDiffusion, image: Tensor, mask: Tensor, prompts: Sequence[str], seeds: Sequence[int],
    controls: Sequence[Hinted] = (), *, steps: int = 50, guidance: float | None = None, negative: str = "",
    eta: float = 0.0, progress: bool = False, put_back: bool = True, again: int = 3, closed: bool = True,
    narrow: Callable[[Tensor], Tensor] | None = None, lay: Callable[[Tensor, Tensor], Tensor] | None = None,
    opening: Sequence[str] = (),
) -> Tensor:  # fmt: skip
    """The masked part generated, one picture a seed: (B, 3, H, W) in [-1, 1].

    image: (1 or B, 3, H, W), mask: (1 or B, 1, H, W), prompts: 1 or B; H and W multiples of the VAE's stride.
    put_back: False leaves the known part out: the whole picture is drawn, and shows how far a hint is followed.
    again: how often, at even distances, the known part is encoded anew: at first the VAE saw it beside the blank, and
    the latents along the edge tell of grey; then it sees it around what has been drawn so far. closed: the seam is, by
    `seamless`. narrow: the last of these times, what has been drawn, (B, 3, H, W) → the masks that remain, each inside
    its old one. lay: at the end, what has been drawn, and its latents → the same with something laid on it; those
    pictures on which something is then go through the VAE. opening: sentences, 1 or B, in the place of the prompts down
    to timestep OPENING, in which outlines are drawn; an empty one leaves the prompt there.
    """
    known = sd.encode_image(blank(image, mask))  # (1 or B, 4, h, w)
    if len(seeds) == 0:
        raise Error("no seeds: expected one or more, each makes a picture")
    if narrow is not None and not (put_back and again):
        raise Error("narrowing needs a known part and a moment to look at it: put_back=True, again=1 or more")
    draws = [generator_of(seed) for seed in seeds]
    noise = torch.cat([torch.randn(known[:1].shape, generator=g) for g in draws]).to(known)  # (B, 4, h, w)
    known, inside = known.expand_as(noise), latent_mask(mask if put_back else torch.ones_like(mask), sd.vae.stride)
    moments = [] if narrow is None and inside.all() else [steps * k // (again + 1) for k in range(1, again + 1)]

    def anew(x_0: Tensor, i: int) -> tuple[Tensor, Tensor]:
        nonlocal mask
        drawn = torch.where(mask > 0.5, sd.decode_latents(x_0).to(image), image)
        if narrow is not None and i == moments[-1]:
            mask = narrow(drawn)
        return sd.encode_image(torch.where(mask > 0.5, drawn, image)), latent_mask(mask, sd.vae.stride).to(known)

    scale = sd.usual_guidance if guidance is None else guidance
    model = told(sd, prompts, negative, len(seeds), scale, controls)
    if any(opening):
        first = told(sd, instead(opening, prompts), negative, len(seeds), scale, controls)
        model = opened(first, model, early=sum(t >= OPENING for t, _ in sd.schedule.pairs(steps)))
    inside = inside.to(known)
    steps_left = blended_steps(model, noise, known, inside, sd.schedule, steps, eta, draws, anew, moments)
    z = last(tqdm(steps_left, total=steps, disable=not progress, desc="DDIM")).x
    del model, steps_left  # their keys and values, before the decoder needs the most memory
    picture = sd.decode_latents(z)
    if lay is not None:
        laid = lay(picture, z)
        changed = (laid != picture).flatten(1).any(1)
        if changed.any():
            picture[changed] = sd.decode_latents(sd.encode_image(laid[changed]))
    return seamless(picture, image.to(picture), mask.to(picture)) if put_back and closed else picture


def told(
    sd: StableDiffusion, texts: Sequence[str], negative: str, many: int, scale: float, controls: Sequence[Hinted]
) -> Model:
    """The guided model for so many pictures, told one sentence, or each its own."""
    context, unprompted = (sd.encode_text(those).expand(many, -1, -1) for those in (texts, [negative]))
    return sd.guided(context, unprompted, scale, controls=controls)


def instead(opening: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """The opening sentences, and the prompts where these are empty; either may be one for all."""
    many = max(len(opening), len(prompts))
    pairs = zip(*(list(texts) * (many if len(texts) == 1 else 1) for texts in (opening, prompts)), strict=True)
    return [sentence or prompt for sentence, prompt in pairs]


def opened(first: Model, then: Model, early: int) -> Model:
    """One model in so many calls, another from there on."""
    calls = count()
    return lambda x, t: (first if next(calls) < early else then)(x, t)


def blended_steps(
    model: Model, noise: Tensor, known: Tensor, inside: Tensor, schedule: NoiseSchedule, steps: int = 50,
    eta: float = 0.0, draws: Sequence[torch.Generator] = (),
    anew: Callable[[Tensor, int], tuple[Tensor, Tensor]] | None = None, moments: Collection[int] = (),
) -> Iterator[Step]:  # fmt: skip
    """DDIM from noise; after every step the known latents are put back at that step's noise level.

        x_s ← m ⊙ x_s + (1 − m) ⊙ (√ᾱ_s z + √(1−ᾱ_s) ε)       (as in RePaint, arXiv 2201.09865, eq. 8, with one fixed ε)

    noise: x_T and the fixed ε, (B, 4, h, w); known: z, the character's latents; inside: m, 1 to generate,
    (1 or B, 1, h, w). draws: for η > 0 a generator a picture, such as drew x_T; another of its seed would draw x_T
    again. anew: in the steps numbered `moments`, z and m become what it makes of x̂_0 and the number.
    """
    check_eta(eta, sigma_hat=False)
    x = noise
    for i, (t, s) in enumerate(schedule.pairs(steps)):
        x_0, eps = schedule.split(model(x, timestep(x, t)), x, t)
        sigma = ddim_sigma(schedule.alpha_bar(t, x), schedule.alpha_bar(s, x), eta)
        fresh = None if eta == 0 else torch.stack([draw(one, g, f"eta={eta}") for one, g in zip(x, draws, strict=True)])
        x_s = ddim_step(x_0, eps, schedule.alpha_bar(s, x), sigma, fresh).to(x.dtype)
        if anew is not None and i in moments:
            known, inside = anew(x_0, i)
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
    plain = character.mode == "RGBA" or (character.mode == "RGB" and not has_alpha(character))
    return character if plain else to_rgb(character)


def one_colour(pixels: np.ndarray) -> bool:
    """Whether pixels (N, C) are all the same; what is transparent has no colour."""
    shown = pixels * (pixels[:, 3:] > 0) if pixels.shape[1] == 4 else pixels
    return bool((shown == shown[0]).all())


def notes_on(place: Window, character: Image.Image) -> list[str]:
    """What was cropped or scaled, in words."""
    notes = []
    left, top, right, bottom = place.box
    if (right - left, bottom - top) != character.size:
        whole = f"{character.width}×{character.height}"
        notes.append(f"worked on a neighbourhood of the mask or the figure, {right - left}×{bottom - top} of {whole}")
    if place.shrinks:
        notes.append(
            f"worked on at {place.size[0]}×{place.size[1]}, and the masked part scaled up: some detail is lost"
        )
    return notes
