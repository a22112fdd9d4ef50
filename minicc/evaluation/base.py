"""`minicc evaluate base`: does the tiny model draw what captions say, and how well does its VAE reconstruct?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import trange

from minicc.data.dolls import CLOTHES, FACTS, SLOTS, Doll, draw
from minicc.data.tensors import to_tensor, to_tensors
from minicc.diffusion.ddim import ddim_invert, ddim_sample
from minicc.evaluation.edits import average
from minicc.evaluation.metrics import bytes_of, frechet, psnr, ssim
from minicc.evaluation.settled import Answers, each_right
from minicc.pipeline import StableDiffusion
from minicc.reader import AttributeReader

INVERTED = 16  # dolls that are turned to noise and back
FIRST = 1_000_000  # the first test doll's number; training and validation have those below
Figures = dict[str, float | dict[str, float]]


@dataclass(frozen=True)
class Question:
    """What a phase is asked when it is measured: a doll as it is, and the same doll as it ought to become."""

    before: Doll
    after: Doll
    seed: int  # of the sampler's noise

    @property
    def character(self) -> Image.Image:
        return self.before.image

    @property
    def truth(self) -> Image.Image:
        return self.after.image


def evaluate_base(
    sd: StableDiffusion, reader: AttributeReader, n: int = 200, seed: int = 0, steps: int = 50,
    guidance: float | None = None,
) -> Figures:  # fmt: skip
    """The table of the model card, on n test dolls in combinations of clothes that no training has seen.

    seed: of the dolls and of the noise. Returns attributes_all, attributes_all_strict (nothing forgiven, see settled),
    attributes_all_outfit (told only what is worn, as phase 1 is, and not who wears it), nothing_added, attributes,
    reader_on_truth (all), reader_on_reconstruction (the same through the VAE), vae_psnr, vae_ssim, frechet,
    frechet_floor (other test dolls in the place of what was drawn), frechet_alike (those in the clothes of the
    captions), frechet_ratio (to the floor) and inversion_psnr.
    """
    first = first_doll(seed)
    dolls, others = (test_dolls(first + offset, n) for offset in (0, n))
    truth, answers = pictures(dolls), Answers(dolls)
    drawn = generate(sd, [doll.caption for doll in dolls], steps, guidance, seed)
    read = reader.read(drawn).numpy()
    told_less = reader.read(generate(sd, [doll.outfit_text for doll in dolls], steps, guidance, seed)).numpy()
    again = torch.cat([sd.decode_latents(sd.encode_image(x)) for x in truth.split(16)])
    return {
        **scores(answers.right(read), dolls),
        "attributes_all_strict": all_right(read == answers.facts),
        "attributes_all_outfit": all_right(answers.right(told_less)),
        "reader_on_truth": all_right(answers.right(reader.read(truth).numpy())),
        "reader_on_reconstruction": all_right(answers.right(reader.read(again).numpy())),
        "vae_psnr": float(psnr(bytes_of(truth), bytes_of(again)).mean()),
        "vae_ssim": float(ssim(bytes_of(truth), bytes_of(again)).mean()),
        **distances(reader, truth, drawn, others, [o.wearing(d.outfit) for o, d in zip(others, dolls, strict=True)]),
        "inversion_psnr": inversion_psnr(sd, truth[:INVERTED], [doll.caption for doll in dolls[:INVERTED]], steps),
    }


def evaluate_reader(reader: AttributeReader, n: int = 200, seed: int = 0) -> Figures:
    """How the judge judges true pictures of n test dolls: attributes, one each; reader_on_truth, all clothes; strict,
    the same with nothing forgiven that no picture tells (see settled).
    """
    dolls = test_dolls(first_doll(seed), n)
    answers, read = Answers(dolls), reader.read(pictures(dolls)).numpy()
    right, strict = scores(answers.right(read), dolls), all_right(read == answers.facts)
    return {"reader_on_truth": right["attributes_all"], "strict": strict, "attributes": right["attributes"]}


def first_doll(seed: int) -> int:
    """The number of the first test doll of an evaluation."""
    return FIRST + seed * 100_000


def test_dolls(first: int, n: int) -> list[Doll]:
    """Dolls of the test split in held-out combinations."""
    return [draw(first + i, split="test", combinations="heldout") for i in range(n)]


def pictures(dolls: Sequence[Doll]) -> Tensor:
    """(n, 3, 128, 128) in [-1, 1]."""
    return to_tensors(doll.image for doll in dolls)


def generate(sd: StableDiffusion, captions: Sequence[str], steps: int, guidance: float | None, seed: int) -> Tensor:
    """A picture for each caption, (n, 3, 128, 128) in [-1, 1]; sixteen at a time, each batch from its own seed."""
    made = []
    for i in trange(0, len(captions), 16, desc="generating"):
        batch = sd.generate(captions[i : i + 16], steps=steps, guidance=guidance, seed=seed * 1000 + i)
        made += [to_tensor(picture) for picture in batch]
    return torch.cat(made)


def inversion_psnr(sd: StableDiffusion, truth: Tensor, captions: Sequence[str], steps: int) -> float:
    """Dolls → noise → dolls by DDIM, without guidance: mean PSNR to what the VAE alone makes of them, dB."""
    z, context = sd.encode_image(truth), sd.encode_text(captions)
    model = sd.guided(context, context, guidance=1)
    noise = ddim_invert(model, z, sd.schedule, steps)
    back = ddim_sample(model, noise, sd.schedule, steps)
    return float(psnr(*(bytes_of(sd.decode_latents(x)) for x in (z, back))).mean())


def scores(right: np.ndarray, dolls: Sequence[Doll]) -> Figures:
    """right: (n, len(FACTS)) bool. The share of pictures with all clothes right, of each fact, where it is worn, and of
    places with nothing on them where nothing is worn.
    """
    bare = [
        right[i, list(FACTS).index(slot)] for i, doll in enumerate(dolls) for slot in SLOTS if slot not in doll.slots
    ]
    shares = {"attributes_all": all_right(right), "nothing_added": average(bare)}
    return shares | {"attributes": each_right(right, dolls)}


def all_right(right: np.ndarray) -> float:
    """The share of pictures with every fact about clothes right."""
    clothes = [i for i, name in enumerate(FACTS) if name in CLOTHES]
    return float(right[:, clothes].all(1).mean())


def distances(
    reader: AttributeReader, truth: Tensor, drawn: Tensor, others: Sequence[Doll], alike: Sequence[Doll]
) -> Figures:  # fmt: skip
    """Fréchet distances to the true dolls, in the reader's features: of what was drawn from their captions, of other
    true dolls, and of others in the same clothes, which share with them some of what a caption tells.
    """
    goal = reader.embed(truth)
    far, floor, near = (frechet(reader.embed(x), goal) for x in (drawn, pictures(others), pictures(alike)))
    return {"frechet": far, "frechet_floor": floor, "frechet_alike": near, "frechet_ratio": far / floor}
