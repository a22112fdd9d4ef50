"""Phase 2: a character and a picture of a garment → the character wears it; where the clothes are is found."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minicc.data.masks import mask_picture
from minicc.data.write import save_pictures
from minicc.errors import Error
from minicc.hinted import Hinted
from minicc.models.blocks import KeysValues
from minicc.models.controlnet import ControlNet
from minicc.models.garment_ways import way_of
from minicc.models.vocabulary import unknown_words
from minicc.outfit.clothing import ClothingDetector
from minicc.outfit.colours import colour_error
from minicc.outfit.detect import SeveralFigures, clothing_mask, figures_in, unfamiliar
from minicc.outfit.garment import Placed, looked_at, placed, seen
from minicc.outfit.laying import Laying
from minicc.outfit.narrow import AutomaticMask, Narrowing
from minicc.outfit.phase1 import Ready, Result, fill, in_one_batch, prepare, readable, warn_of_phase
from minicc.outfit.reach import half_replaced, kinds_in, kinds_of, reaching_mask, recognised
from minicc.pipeline import StableDiffusion

MIRRORED = "the garment's picture cuts it off: its mirror image completes it"
GUIDANCE = 2.0  # on garment and prompt together; a garment's picture says more than a sentence, for which 7.5 is usual


def generate(
    sd: StableDiffusion, control: ControlNet, character: Image.Image, garment: Image.Image | Sequence[Image.Image],
    *, seed: int = 0, **options: object,
) -> Result:  # fmt: skip
    """Dress a character in a garment; one variant. Options as in `variants`."""
    return variants(sd, control, character, garment, seeds=[seed], **options)[0]  # type: ignore[arg-type]


def variants(
    sd: StableDiffusion, control: ControlNet, character: Image.Image, garment: Image.Image | Sequence[Image.Image],
    *, detector: ClothingDetector | None = None, mask: Image.Image | np.ndarray | None = None,
    classes: Sequence[str] = (), prompt: str = "", seeds: Sequence[int] = (0,), steps: int = 50,
    guidance: float = GUIDANCE, strength: float = 1.0, eta: float = 0.0, feather: int = 0, max_side: int | None = None,
    uncertainty: str | Path | None = None, progress: bool = False, outfit: Sequence[str] = (),
) -> list[Result]:  # fmt: skip
    """Dress a character in a garment several times, one result a seed, all in one batch; an outfit's one by one.

    garment: its picture, on a plain or transparent ground, or the pictures of a whole outfit: these are put on one
    after the other, each under a mask of its own. mask: white over what shall change, and then all garments are drawn
    into it at once; None: the detector finds it. classes: which clothes it looks for ("top", "bottom", …), for all
    garments at once; empty: what the garments are is recognised, a note says so, and the mask covers the clothes they
    replace and the body they may reach, until `Narrowing` leaves of it what they change. uncertainty: a file for how
    unsure the detector is, written even if nothing is found. A detector that has learned points also tells, with a
    mask too, where a single garment's own pixels belong: see `outfit.laying`; one that has learned names, what it is
    called: that is told in the first half of the steps, unless there is a prompt. guidance: on garment and prompt
    together, 1 is none. outfit: the kinds of garment that come with it, before or after: then no note asks for them.
    The other options are those of `phase1.variants`; outside the mask nothing changes, as there. Each result tells its
    `colour_error`. Raises PictureError for a mask or garment that does not fit, or if no clothes are found or several
    figures, and Error if there is neither mask nor detector, or with a mask what only a detector can answer.
    """
    if mask is not None and (classes or uncertainty):
        raise Error("classes and uncertainty are the detector's, and with a mask it is not asked: leave them out")
    garments = [garment] if isinstance(garment, Image.Image) else list(garment)
    found = None
    if mask is None and detector is not None and len(garments) > 1 and not classes:
        options = {
            "prompt": prompt, "steps": steps, "guidance": guidance, "strength": strength, "eta": eta,
            "feather": feather, "max_side": max_side, "uncertainty": uncertainty, "progress": progress,
        }  # fmt: skip
        garments, options["outfit"] = in_order(sd, detector, garments)
        return [in_turn(sd, control, character, garments, detector, seed, **options) for seed in seeds]
    if mask is None:
        if detector is None:
            raise Error("where are the clothes? pass detector=minicc.ClothingDetector.load(…), or a mask")
        found = automatic_mask(sd, detector, character, garments, classes, uncertainty, outfit)
        mask = found.mask
    if garments:
        warn_of_phase(control, 2)
    for doubt in unknown_words(sd.tokenizer_source, prompt):
        warnings.warn(doubt, stacklevel=2)
    ready = prepare(sd, character, mask, feather, max_side)
    options = {"steps": steps, "guidance": guidance, "eta": eta, "progress": progress}
    return dressed(sd, control, ready, garments, prompt, seeds, detector, found, strength, feather, **options)


def dressed(
    sd: StableDiffusion, control: ControlNet, one: Ready, garments: list[Image.Image], prompt: str,
    seeds: Sequence[int], detector: ClothingDetector | None = None, found: AutomaticMask | None = None,
    strength: float = 1.0, feather: int = 0, **options: object,
) -> list[Result]:  # fmt: skip
    """A character made ready, in all these garments at once, one result a seed. found: what made its mask, and narrows
    it; options: of `fill`; the others as in `variants`.
    """
    ready, laid = [one] * len(seeds), [placed(garment, sd.side) for garment in garments]
    narrow = Narrowing(sd, detector, ready, [found] * len(seeds), feather) if found and detector else None
    looked = seen(sd, control, garments, one.hint) if garments else None
    alone = len(laid) == 1
    opening = ([found.words] if found else called(sd, detector, laid)) if alone and not prompt else []
    lay = laying(sd, control, detector, ready, narrow, looked, laid * len(seeds)) if alone else None
    controls = [Hinted.of(control, one.hint, strength, looked)]
    told = {"narrow": narrow, "lay": lay, "opening": opening, **options}
    pictures = fill(sd, one.image, one.mask, [prompt], seeds, controls, **told)  # type: ignore[arg-type]
    notes = found.notes if found else [f"the garment is taken for: {words}" for words in opening if words]
    notes = notes + [MIRRORED] * any(garment.completed for garment in laid)
    made = finished(ready, narrow, pictures, prompt, seeds)
    errors = [colour_error(garments, each.image, np.asarray(each.mask) > 0) if garments else None for each in made]
    return [replace(r, notes=notes + r.notes, colour_error=e) for r, e in zip(made, errors, strict=True)]


PUT_ON = ("bottom", "dress", "top", "shoes", "accessory")  # in this order: a top hangs over trousers


def in_order(
    sd: StableDiffusion, detector: ClothingDetector, garments: Sequence[Image.Image]
) -> tuple[list[Image.Image], list[str]]:
    """An outfit's garments as they are put on, and their kinds; those that are not recognised come first, as they
    change all clothes.
    """
    kinds = [kinds_of(sd, detector, garment) for garment in garments]
    turns = [PUT_ON.index(those[0]) if those else -1 for those in kinds]
    ordered = [garments[i] for i in sorted(range(len(garments)), key=turns.__getitem__)]
    return ordered, [kind for those in kinds for kind in those]


def in_turn(
    sd: StableDiffusion, control: ControlNet, character: Image.Image, garments: Sequence[Image.Image],
    detector: ClothingDetector, seed: int, **options: object,
) -> Result:  # fmt: skip
    """One garment after the other, each on what the one before left; the mask is all that was changed."""
    notes, masks, now = list[str](), list[np.ndarray](), character
    for garment in garments:
        one = generate(sd, control, now, garment, detector=detector, seed=seed, **options)
        options["uncertainty"] = None  # that of the character is written, not of one half dressed
        notes, now = notes + one.notes, one.image
        masks.append(np.asarray(one.mask) > 0)
    changed = np.any(masks, axis=0)
    error = colour_error(list(garments), now, changed)
    return replace(one, mask=mask_picture(changed), notes=notes, colour_error=error)


def automatic_mask(
    sd: StableDiffusion, detector: ClothingDetector, character: Image.Image, garments: Sequence[Image.Image],
    classes: Sequence[str] = (), uncertainty: str | Path | None = None, outfit: Sequence[str] = (),
) -> AutomaticMask:  # fmt: skip
    """What these garments shall change on a character; with classes only these, as they are worn.

    outfit: the kinds of garment that come with them. A picture unlike what the detector has learned gets a note. Raises
    NoMask, a PictureError, if there are no clothes, or several characters.
    """
    found = detector.find(sd, readable(character))
    if uncertainty:
        save_pictures({Path(uncertainty): found.uncertainty_picture()})
    if (count := figures_in(found)) > 1:
        raise SeveralFigures(f"the picture shows {count} figures: crop to one, or paint a mask over its clothes", found)
    doubts = unfamiliar(found)
    laid = [placed(garment, sd.side) for garment in garments]
    if classes or not laid:
        name = called(sd, detector, laid)[0] if len(laid) == 1 else ""
        return AutomaticMask(clothing_mask(found, classes), doubts, found, words=name)
    shown, words = zip(*(recognised(sd, detector, one) for one in laid), strict=True)
    if not all(shown):
        doubt = "the garment was not recognised: all clothes are changed, or pass classes="
        return AutomaticMask(clothing_mask(found), [*doubts, doubt], found)
    kinds = [kind for those in shown for kind in those]  # repeated ones too: the note tells of each garment
    known = [", ".join(those) + (f" ({each})" if each else "") for those, each in zip(shown, words, strict=True)]
    said = f"the garment{'s are' if len(known) > 1 else ' is'} taken for: {', '.join(known)}"
    half = half_replaced(found, [*kinds, *outfit])
    name = words[0] if len(laid) == 1 else ""
    return AutomaticMask(reaching_mask(found, kinds), [*doubts, said, *half], found, kinds, name)


def batch(
    sd: StableDiffusion, control: ControlNet, ready: Sequence[Ready], garments: Tensor, seeds: Sequence[int],
    *, strength: float = 1.0, detector: ClothingDetector | None = None, found: Sequence[AutomaticMask] = (),
    laid: Sequence[Placed] = (), feather: int = 0, guidance: float = GUIDANCE, **options: object,
) -> list[Result]:  # fmt: skip
    """Many characters at once, each with its garment and its seed; what `variants` makes of each, to rounding.

    ready: of `prepare`, all worked on at one size; garments: (B, 3, side, side) in [-1, 1], as `garment_picture` lays
    them. detector, found, feather: what made the masks of `ready`, which are narrowed then. laid: the same garments,
    with what `placed` knows of them: then they are laid at the end, if there is a detector. options: of `fill`. The
    colour error is not computed. Raises Error if not all characters have their mask in found, or detector is missing.
    """
    image, mask, hint = in_one_batch(ready)
    looked = looked_at(sd, control, garments, hint)
    if found and (detector is None or len(found) != len(ready)):
        raise Error(f"{len(found)} masks found of {len(ready)} characters: narrowing takes a detector and one of each")
    narrow = Narrowing(sd, detector, list(ready), found, feather) if detector and found else None
    lay = laying(sd, control, detector, ready, narrow, looked, laid) if laid else None
    opening = [one.words for one in found] if found else called(sd, detector, laid)
    told = {"guidance": guidance, "narrow": narrow, "lay": lay, "opening": opening, **options}
    pictures = fill(sd, image, mask, [""], seeds, [Hinted.of(control, hint, strength, looked)], **told)  # type: ignore[arg-type]
    return finished(ready, narrow, pictures, "", seeds)


def laying(
    sd: StableDiffusion, control: ControlNet, detector: ClothingDetector | None, ready: Sequence[Ready],
    narrow: Narrowing | None, seen: KeysValues | None, garments: Sequence[Placed],
) -> Laying | None:  # fmt: skip
    """What lays the garments at the end; None where nobody tells their points: a detector that has learned it, and
    attention between garment and character.
    """
    if detector is None or detector.points is None or seen is None or way_of(control) not in ("joint", "decoder"):
        return None
    known = [one.kinds for one in narrow.found] if narrow else [()] * len(ready)
    kinds = [those or kinds_in(sd, detector, garment) for those, garment in zip(known, garments, strict=True)]
    hint = torch.cat([one.hint for one in ready])
    return Laying(sd, control, detector, ready, narrow, hint, seen, garments, kinds)


def called(sd: StableDiffusion, detector: ClothingDetector | None, garments: Sequence[Placed]) -> list[str]:
    """What garments are called, in words; "" for one that has no name, and for all if nobody knows them.

    With these the first half of the steps draws the outlines: the locked U-Net knows how long a short dress is, which
    the garment's picture tells the copy less surely. Later it would rather draw what sentences say than what is in the
    picture, and sentences matter most early on (eDiff-I, Balaji et al. 2022, arXiv 2211.01324).
    """
    names = [detector.name(sd, garment.picture) if detector else None for garment in garments]
    return [name.words if name else "" for name in names]


def finished(
    ready: Sequence[Ready], narrow: Narrowing | None, pictures: Tensor, prompt: str, seeds: Sequence[int]
) -> list[Result]:
    """Pictures (B, 3, h, w) put into their characters, under the masks that narrowing left."""
    masked = narrow.ready if narrow else ready
    return [one.result(picture, prompt, seed) for one, picture, seed in zip(masked, pictures, seeds, strict=True)]
