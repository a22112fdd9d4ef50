"""`minicc evaluate phase2`: a doll and the picture of a garment. Is this garment worn, and is the rest as it was?

Everything is held out: the doll is of the test split, the garment, shoes excepted, a combination that training never
shows, and its picture's place, scale and mirror vary. Measured with the detector's own masks, and with true ones.
Beside it: "mean", the garment's mean colour; "phase1_caption", phase 1 given the garment in words; "plain_hint", the
garment as three channels of the hint. "ceiling" is the true picture through the VAE.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from minicc.data.dolls import FACTS
from minicc.data.tensors import on_white, to_tensor, to_tensors
from minicc.evaluation.edits import average, filled, mean_delta_e, outside_change
from minicc.evaluation.fills import Ask, redressed, through_vae
from minicc.evaluation.metrics import ssim_map
from minicc.evaluation.outfits import evaluate_outfits
from minicc.evaluation.settled import Answers
from minicc.evaluation.wears import Dressing, Wear, dressed, dressed_as_found, found_clothes, wears
from minicc.models.attention_maps import mass_on_truth
from minicc.models.blocks import KeysValues, Recording, keys_values
from minicc.models.controlnet import ControlNet
from minicc.models.garment_ways import way_of
from minicc.outfit.clothing import ClothingDetector
from minicc.outfit.garment import looked_at, placed
from minicc.outfit.phase1 import prepare
from minicc.outfit.phase2 import GUIDANCE
from minicc.pipeline import StableDiffusion
from minicc.reader import AttributeReader

Figures = dict[str, object]
LOOKED_AT = 400  # the timestep at which attention is measured: shapes are settled, patterns are not


def evaluate_phase2(
    sd: StableDiffusion, control: ControlNet, detector: ClothingDetector, reader: AttributeReader, n: int = 200,
    seed: int = 0, steps: int = 50, guidance: float = GUIDANCE, phase1: ControlNet | None = None,
    plain: ControlNet | None = None, phase1_guidance: float | None = None,
) -> Figures:  # fmt: skip
    """The table of the model card: `figures` under the detector's masks, `true_masks`, `baselines`, the `ceiling`.

    phase1, plain: the ControlNets of two baselines, which are left out without them. All baselines have the detector's
    masks; those of mean and phase1_caption are not narrowed, which is a part of phase 2. mask_covered, mask_excess: of
    the truly changed pixels how many the detector's masks cover, and how many others they hold, in parts of the changed
    ones; before_narrowing: the same of them as they began, over which kept_delta_e is measured. outfits: top and bottom
    at once, on a quarter as many dolls; shoes: on as many, shoes alone.
    """
    asked, options = wears(n, seed), {"steps": steps, "guidance": guidance}
    models, few = (sd, control, detector, reader), (max(1, n // 4), seed, steps, guidance)
    goal = [reconstruction(sd, one) for one in asked]
    clothes = found_clothes(sd, detector, asked)
    found = [one.mask for one in clothes]
    true = [one.mask for one in asked]

    def measured(pictures: Sequence[Image.Image], masks: Sequence[np.ndarray]) -> Figures:
        return figures(pictures, asked, masks, goal, reader)

    attention = correspondence(sd, control, asked)
    baselines = {"mean": measured([mean_paste(one, m) for one, m in zip(asked, found, strict=True)], found)}
    if phase1:
        words = [Masked(one, mask) for one, mask in zip(asked, found, strict=True)]
        spoken = redressed(sd, phase1, words, "phase1_caption", steps=steps, guidance=phase1_guidance)
        baselines["phase1_caption"] = measured(spoken, [one.mask for one in words])
    if plain:
        hinted, used = dressed_as_found(sd, plain, detector, asked, clothes, "plain_hint", **options)
        baselines["plain_hint"] = measured(hinted, found) | {"outside_max": largest_outside(asked, hinted, used)}
    ours, masks = dressed_as_found(sd, control, detector, asked, clothes, "phase2", **options)
    return {
        **measured(ours, found),
        "outside_max": largest_outside(asked, ours, masks),
        "correspondence": attention,
        **cover(masks, true),
        "before_narrowing": cover(found, true),
        "true_masks": measured(dressed(sd, control, asked, true, "true masks", detector=detector, **options), true)
        | {"correspondence": attention},
        "outfits": evaluate_outfits(*models, ("top", "bottom"), *few),
        "shoes": evaluate_outfits(*models, ("shoes",), *few),
        "ceiling": measured(goal, true),
        "baselines": baselines,
    }


@dataclass(frozen=True)
class Masked:
    """A question to phase 1: the same one, in words, under another mask; an empty one becomes a single pixel."""

    one: Dressing
    found: np.ndarray

    @property
    def character(self) -> Image.Image:
        return self.one.character

    @property
    def truth(self) -> Image.Image:
        return self.one.truth

    @property
    def prompt(self) -> str:
        return self.one.prompt

    @property
    def seed(self) -> int:
        return self.one.seed

    @property
    def mask(self) -> np.ndarray:
        pixel = np.zeros_like(self.found)
        pixel[0, 0] = True
        return self.found if self.found.any() else pixel


def figures(
    pictures: Sequence[Image.Image], asked: Sequence[Wear], masks: Sequence[np.ndarray],
    goal: Sequence[Image.Image], reader: AttributeReader,
) -> Figures:  # fmt: skip
    """Of one way to dress the dolls.

    garment, colour, pattern: the share of dolls in which the reader reads those of the garment given. delta_e: mean
    ΔE2000 to the true picture as the VAE reconstructs it, where that shows the garment; delta_e_raw: to the true
    picture. kept_delta_e: to the true picture where the mask reaches over what does not change, such as the trousers
    under a new top's hem. ssim: to the same reconstruction, over the pixels that truly change or show the garment.
    own_over_other: the share of pairs in which the picture is nearer (mean ΔE2000 in the worn region) to the truth of
    its own garment than to that of another of the same kind. outside_max: the largest change outside the mask used,
    RGBA, of 255.
    """
    seen, aim, truth = ([np.asarray(on_white(p)) for p in ps] for ps in (pictures, goal, [one.truth for one in asked]))
    read = reader.read(to_tensors(pictures)).numpy()
    triples = list(zip(seen, aim, truth, asked, strict=True))
    return {
        **{name: float(np.mean(right)) for name, right in facts_right(read, asked).items()},
        "delta_e": average([mean_delta_e(x, y, one.worn) for x, y, _, one in triples]),
        "delta_e_raw": average([mean_delta_e(x, y, one.worn) for x, _, y, one in triples]),
        "ssim": average([float(ssim_map(x, y)[one.mask].mean()) for x, y, _, one in triples]),
        "kept_delta_e": average(
            [mean_delta_e(x, y, m & ~one.mask) for (x, _, y, one), m in zip(triples, masks, strict=True)]
        ),
        "own_over_other": average([nearer for x, _, y, one in triples for nearer in own_is_nearer(x, y, one)]),
        "outside_max": largest_outside(asked, pictures, masks),
    }


def largest_outside(asked: Sequence[Ask], pictures: Sequence[Image.Image], masks: Sequence[np.ndarray]) -> float:
    """The largest change outside the masks used, RGBA, of 255."""
    return max(outside_change(o.character, p, m) for o, p, m in zip(asked, pictures, masks, strict=True))


def facts_right(read: np.ndarray, asked: Sequence[Wear]) -> dict[str, list[bool]]:
    """Whether kind, colour and pattern of the changed garment are read off right. read: (n, len(FACTS))."""
    names = list(FACTS)
    right: dict[str, list[bool]] = {"garment": [], "colour": [], "pattern": []}
    for row, one in zip(Answers([one.after for one in asked]).right(read), asked, strict=True):
        for name, fact in (("garment", one.slot), ("colour", f"{one.slot}_colour"), ("pattern", f"{one.slot}_pattern")):
            right[name].append(bool(row[names.index(fact)]))
    return right


def own_is_nearer(result: np.ndarray, truth: np.ndarray, one: Wear) -> list[float]:
    """For each other garment of the kind: 1 if the result is nearer to the truth, else 0; nan where nothing is worn."""
    to_own = mean_delta_e(result, truth, one.worn)
    to_others = [mean_delta_e(result, np.asarray(on_white(doll.image)), one.worn) for doll in one.others]
    return [float("nan") if np.isnan(to_own) else float(to_own < other) for other in to_others]


def reconstruction(sd: StableDiffusion, one: Ask) -> Image.Image:
    """The true picture as the VAE gives it, in the true mask: what ΔE and SSIM compare with."""
    return through_vae(sd, one, closed=False)


def mean_paste(one: Dressing, mask: np.ndarray) -> Image.Image:
    """The garment's mean colour all over the mask."""
    seen = placed(one.garment, one.character.width)
    return filled(one.character, mask, np.asarray(seen.picture)[seen.shown].mean(0))


def cover(found: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> Figures:
    """How much of the true masks others cover, and how much too much they hold; means over the dolls."""
    pairs = list(zip(found, true, strict=True))
    return {
        "mask_covered": average([(f & t).sum() / t.sum() for f, t in pairs]),
        "mask_excess": average([(f & ~t).sum() / t.sum() for f, t in pairs]),
    }


@torch.no_grad()
def correspondence(sd: StableDiffusion, control: ControlNet, asked: Sequence[Wear]) -> float:
    """The share of joint attention's mass within one latent cell of the true garment pixel, over all worn cells.

    Of the copy's first level, while it denoises the true picture at t = 400; attention that is even everywhere has
    4 / 512 at 16 × 16 latents. nan for a ControlNet whose attention is not joint.
    """
    if way_of(control) not in ("joint", "decoder"):
        return float("nan")
    shares = []
    for one in tqdm(asked, desc="looking where attention looks"):
        recording, garment, where = looking(sd, control, one)
        mass, known = mass_on_truth(control, recording, garment, where)
        shares += mass[known].tolist()
    return average(shares)


@torch.no_grad()
def looking(sd: StableDiffusion, control: ControlNet, one: Wear) -> tuple[Recording, KeysValues, Tensor]:
    """One pass of the copy over the noisy truth: what its attentions were asked, what they see of the garment, and
    which point of it each latent cell truly shows, (1, h, w, 2), NaN for none.
    """
    ready, laid = prepare(sd, one.truth, one.mask), placed(one.garment, sd.side)
    garment = looked_at(sd, control, to_tensor(laid.picture), ready.hint)
    z = sd.encode_image(ready.image)
    recording = Recording(keys_values(control, sd.encode_text([""])) | garment)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(one.seed)).to(z)
    x_t, t = sd.schedule.add_noise(z, noise, LOOKED_AT), torch.tensor([LOOKED_AT])
    control(x_t, t.to(z.device), recording, ready.hint.to(z))
    return recording, garment, torch.from_numpy(one.where(laid, sd.vae.stride))[None].float().to(z.device)
