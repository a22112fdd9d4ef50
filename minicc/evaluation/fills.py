"""The ways to fill a mask that are compared: ours, the baselines, and what the VAE lets through at best."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from minicc.evaluation.edits import filled_with_mean
from minicc.models.controlnet import ControlNet
from minicc.outfit import phase1
from minicc.outfit.compose import seamless
from minicc.pipeline import StableDiffusion

BATCH = 16


class Ask(Protocol):
    """One question to phase 1, its answer known."""

    @property
    def character(self) -> Image.Image: ...
    @property
    def truth(self) -> Image.Image: ...
    @property
    def mask(self) -> np.ndarray: ...
    @property
    def prompt(self) -> str: ...
    @property
    def seed(self) -> int: ...


def fills(
    sd: StableDiffusion, control: ControlNet, asked: Sequence[Ask], steps: int, guidance: float | None
) -> Iterator[tuple[str, list[Image.Image]]]:
    """("ours", pictures), then the baselines, then the "ceiling".

    "blend": the locked base and its known latents put back, nothing else. "blend_closed": the same with what phase 1
    does beside its ControlNet, the known part encoded anew and the seam closed. "blind", "mean": as in `phase1`.
    """
    options = {"steps": steps, "guidance": guidance}
    yield "ours", redressed(sd, control, asked, "phase1", **options)
    yield "blend", redressed(sd, None, asked, "blend", again=0, closed=False, **options)
    yield "blend_closed", redressed(sd, None, asked, "blend closed", **options)
    yield "blind", redressed(sd, control, asked, "blind", blind=True, **options)
    yield "mean", [filled_with_mean(one.character, one.mask) for one in asked]
    yield "ceiling", [through_vae(sd, one) for one in asked]


def redressed(
    sd: StableDiffusion, control: ControlNet | None, asked: Sequence[Ask], name: str, **options: object
) -> list[Image.Image]:
    """What phase 1 makes of every question, up to sixteen of one size at a time. options: of `phase1.batch`."""
    pictures: list[Image.Image] = []
    ready = [phase1.prepare(sd, one.character, one.mask) for one in asked]
    for part in alike(ready, name):
        prompts, seeds = [asked[i].prompt for i in part], [asked[i].seed for i in part]
        results = phase1.batch(sd, control, [ready[i] for i in part], prompts, seeds, **options)  # type: ignore[arg-type]
        pictures += [result.image for result in results]
    return pictures


def alike(ready: Sequence[phase1.Ready], name: str) -> Iterator[list[int]]:
    """Positions of neighbours that are worked on at one size, up to sixteen at a time, with a progress bar."""
    with tqdm(total=len(ready), desc=name) as bar:
        for _, same in groupby(range(len(ready)), key=lambda i: ready[i].place.padded):
            group = list(same)
            for start in range(0, len(group), BATCH):
                yield group[start : start + BATCH]
                bar.update(len(group[start : start + BATCH]))


def through_vae(sd: StableDiffusion, one: Ask, closed: bool = True) -> Image.Image:
    """The true picture, encoded, decoded and pasted into the mask: no sampler can be expected to do better.

    closed: its seam, as that of every result; False: as the VAE gives it.
    """
    ready = phase1.prepare(sd, one.character, one.mask)
    truth = ready.place.take(one.truth)
    again = sd.decode_latents(sd.encode_image(truth))
    again = seamless(again, truth, ready.mask) if closed else again
    return ready.result(again[0], one.prompt, one.seed).image
