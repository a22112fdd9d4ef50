"""`minicc evaluate phase1 --data FOLDER`: the same questions on characters that artists drew in two outfits each.

Nobody reads these pictures' attributes; what can be judged is the colour of each garment, the seam, what was lost, and
that nothing changed outside. The baselines are those of the dolls.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from minicc.data.folder import read_folder
from minicc.data.masks import paint
from minicc.data.pictures import open_picture
from minicc.data.samples import Sample, clothes, image_of, read_index
from minicc.data.tensors import on_white
from minicc.errors import PictureError
from minicc.evaluation.edits import average, colours_right, mean_delta_e, outside_change, seam
from minicc.evaluation.fills import fills
from minicc.evaluation.swaps import MASKS
from minicc.models.controlnet import ControlNet
from minicc.pipeline import StableDiffusion
from minicc.training.draws import rng


@dataclass(frozen=True)
class Drawing:
    """An artist's character in two outfits, of which the second is asked for."""

    sample: Sample
    seed: int  # of the mask and the noise

    @cached_property
    def character(self) -> Image.Image:
        return image_of(self.sample)

    @cached_property
    def truth(self) -> Image.Image:
        assert self.sample.target is not None
        return open_picture(self.sample.target)

    @property
    def prompt(self) -> str:
        return self.sample.garment_text

    @cached_property
    def worn(self) -> tuple[np.ndarray, np.ndarray]:
        """The part masks of both outfits, (H, W) each."""
        a, b = self.sample.mask, self.sample.target_mask
        assert a is not None
        assert b is not None
        return read_index(a, self.character.size, self.sample.labels), read_index(b, self.truth.size)

    @cached_property
    def mask(self) -> np.ndarray:
        """Over what changes in either outfit, as hands paint it, and nothing of it left out."""
        before, after = (clothes(index, self.sample.changed) for index in self.worn)
        random = rng(self.seed, 5)
        return paint(before | after, random, str(random.choice(MASKS))) | before | after

    @property
    def asked_for(self) -> np.ndarray:
        """The new garments' classes, (H, W); 0 where nothing changes."""
        after = self.worn[1]
        return np.where(clothes(after, self.sample.changed), after, 0)


D = TypeVar("D", bound=Drawing)
Item = TypeVar("Item")


def evaluate_art(
    sd: StableDiffusion, control: ControlNet, folder: Path, n: int = 200, seed: int = 0, steps: int = 50,
    guidance: float | None = None,
) -> dict[str, object]:  # fmt: skip
    """Figures on up to n drawings of a folder, spread evenly, with `baselines` and `ceiling`. Raises PictureError."""
    asked = drawings(folder, n, seed, Drawing, complete)
    measured = {name: figures(made, asked) for name, made in fills(sd, control, asked, steps, guidance)}
    ours, ceiling = measured.pop("ours"), measured.pop("ceiling")
    return {"drawings": len(asked), **ours, "ceiling": ceiling, "baselines": measured}


def drawings(folder: Path, n: int, seed: int, kind: type[D], usable: Callable[[Sample], bool]) -> list[D]:
    """Up to n drawings of a folder's usable samples, spread evenly; a warning says which pictures cannot be read.

    Raises PictureError if there are none.
    """
    found, report = read_folder(folder)
    if report.dropped:
        warnings.warn(f"{folder}: {report.summary()}", stacklevel=2)
    samples = [sample for sample in found if usable(sample)]
    asked = [kind(sample, seed * 100_000 + i) for i, sample in enumerate(spread(samples, n))]
    asked = [one for one in asked if judgeable(one)]
    if not asked:
        columns = "person_a, mask_a, person_b, mask_b, garment_b_text, for phase 2 garment_b"
        raise PictureError(f"{folder}: no character in two outfits; expected a metadata file with columns {columns}")
    return asked


def spread(items: Sequence[Item], n: int) -> list[Item]:
    """n of them, or all if they are fewer, evenly spread."""
    n = min(n, len(items))
    return [items[i * len(items) // n] for i in range(n)]


def complete(sample: Sample) -> bool:
    """Whether a sample has all that is judged by."""
    return None not in (sample.mask, sample.target, sample.target_mask) and bool(sample.garment_text)


def judgeable(one: Drawing) -> bool:
    """Whether both pictures have one size, and clothes that change."""
    same = one.character.size == one.truth.size
    return same and any(clothes(index, one.sample.changed).any() for index in one.worn)


def figures(pictures: Sequence[Image.Image], asked: Sequence[Drawing]) -> dict[str, object]:
    """Of one way to fill the masks; as for dolls, and colours_all: drawings with the colours of all garments right."""
    seen, truth = ([np.asarray(on_white(p)) for p in ps] for ps in (pictures, [one.truth for one in asked]))
    triples = list(zip(seen, truth, asked, strict=True))
    colours = [colours_right(x, y, one.asked_for) for x, y, one in triples]
    jumps = np.array([seam(x, y, one.mask) for x, y, one in triples]).sum(0)
    never, uncovered = zip(*(unclothed(one) for one in asked), strict=True)
    return {
        "outside_max": max(outside_change(one.character, p, one.mask) for p, one in zip(pictures, asked, strict=True)),
        "colours": average([ok for each in colours for ok in each]),
        "colours_all": average([all(each) for each in colours if each]),
        "seam_ratio": float(jumps[0] / jumps[1]),
        "under_mask_delta_e": average([mean_delta_e(x, y, w) for (x, y, _), w in zip(triples, never, strict=True)]),
        "uncovered_delta_e": average([mean_delta_e(x, y, w) for (x, y, _), w in zip(triples, uncovered, strict=True)]),
    }


def unclothed(one: Drawing) -> tuple[np.ndarray, np.ndarray]:
    """Under the mask: where neither outfit is, and where the old one is and the new one is not."""
    before, after = (clothes(index) for index in one.worn)
    return one.mask & ~before & ~after, one.mask & before & ~after
