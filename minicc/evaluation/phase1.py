"""`minicc evaluate phase1`: a doll, a painted mask, another outfit in words. Is it worn, and is the rest as it was?

Beside the ControlNet, on the same dolls: "blend", the locked base that gets the known latents put back, without a
ControlNet; "blend_closed", the same with what phase 1 does about the mask's edge; "blind", the ControlNet with a blank
hint; "mean", the mean colour of the region. And what is within reach: "ceiling", the true picture through the VAE,
pasted like a result.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import label

from minicc.data.dolls import CLOTHES, FACTS
from minicc.data.tensors import on_white, to_tensors
from minicc.evaluation.edits import average, colours_right, mean_delta_e, outline_share, outside_change, seam
from minicc.evaluation.fills import fills
from minicc.evaluation.settled import Answers, each_right
from minicc.evaluation.silhouettes import silhouettes
from minicc.evaluation.swaps import Piece, Swap, clothed, pieces, swaps
from minicc.models.controlnet import ControlNet
from minicc.outfit.clothing import ClothingDetector
from minicc.pipeline import StableDiffusion
from minicc.reader import AttributeReader

Figures = dict[str, Any]
NO_TRACE = 0.9  # of the pixels in which old and new outline differ, so many must show the new one


def evaluate_phase1(
    sd: StableDiffusion, control: ControlNet, reader: AttributeReader, n: int = 200, seed: int = 0, steps: int = 50,
    guidance: float | None = None, detector: ClothingDetector | None = None,
) -> Figures:  # fmt: skip
    """The table of the model card: figures on n held-out dolls, `baselines` and the `ceiling`; see `figures`.

    `small_mask`: of n dolls of which only one garment is painted over, the share that gets the sentence's in its place.
    detector: one for this model tells of the outlines, too, see `silhouettes`.
    """
    asked, small, measured = swaps(n, seed), pieces(n, seed), dict[str, Figures]()
    for name, made in fills(sd, control, asked, steps, guidance):
        measured[name] = figures(made, asked, reader)
        if detector:
            measured[name] |= silhouettes(partial(detector.find, sd), made, asked, lengths_read(made, asked, reader))
    for name, made in fills(sd, control, small, steps, guidance):
        measured[name]["small_mask"] = obeyed(made, small, reader)
    truth = figures([one.truth for one in asked], asked, reader)
    return {
        **measured.pop("ours"),
        "reader_on_truth": truth["attributes_all"],
        "ceiling": measured.pop("ceiling"),
        "baselines": measured,
    }


def figures(pictures: Sequence[Image.Image], asked: Sequence[Swap], reader: AttributeReader) -> Figures:
    """All figures of one way to fill the mask.

    outside_max: largest change outside the mask, RGBA. attributes_all: the share of dolls with every fact about clothes
    right, also that nothing is worn where the sentence names nothing. attributes: of each fact, over the dolls whose
    sentence names a garment there. colours: of garments, by the nearest name. seam_ratio: `edits.seam` of all dolls.
    under_mask_delta_e: ΔE2000 to the truth where neither outfit is, such as hair and hands that were painted over.
    visible_delta_e: the same of parts that can be seen beside the mask as well. uncovered_delta_e: the same where the
    old outfit was and the new one is not. shape_change: of the swaps of length, those read right and with no trace of
    the old outline.
    """
    right = answers_right(pictures, asked, reader)
    seen = [np.asarray(on_white(picture)) for picture in pictures]
    truth = [np.asarray(on_white(s.truth)) for s in asked]
    triples = list(zip(seen, truth, asked, strict=True))
    jumps = np.array([seam(x, y, s.mask) for x, y, s in triples]).sum(0)
    colours = [ok for x, y, s in triples for ok in colours_right(x, y, s.after.index)]
    changes = [outside_change(s.character, p, s.mask) for p, s in zip(pictures, asked, strict=True)]
    return {
        "outside_max": max(changes),
        "attributes_all": float(right[:, columns(list(CLOTHES))].all(1).mean()),
        "attributes": each_right(right, [s.after for s in asked]),
        "colours": average(colours),
        "seam_ratio": float(jumps[0] / jumps[1]),
        "under_mask_delta_e": average([mean_delta_e(x, y, never_clothed(s)) for x, y, s in triples]),
        "visible_delta_e": average([mean_delta_e(x, y, partly_visible(s)) for x, y, s in triples]),
        "uncovered_delta_e": average([mean_delta_e(x, y, uncovered(s)) for x, y, s in triples]),
        "shape_change": average([no_trace(*t, right=r) for t, r in zip(triples, right, strict=True) if t[2].slot]),
    }


def obeyed(pictures: Sequence[Image.Image], asked: Sequence[Piece], reader: AttributeReader) -> float:
    """How often the one garment that changes is read as the sentence has it: its kind and its colour."""
    right = answers_right(pictures, asked, reader)
    both = [row[columns([one.slot, f"{one.slot}_colour"])].all() for row, one in zip(right, asked, strict=True)]
    return float(np.mean(both))


def lengths_read(pictures: Sequence[Image.Image], asked: Sequence[Swap], reader: AttributeReader) -> list[bool]:
    """Of every swap whether the garment that changes its length, and the length, are read right; False without one."""
    right = answers_right(pictures, asked, reader)
    return [s.slot is not None and length_read(row, s) for row, s in zip(right, asked, strict=True)]


def length_read(right: np.ndarray, swap: Swap) -> bool:
    """right: of one doll, (facts,). Whether the garment that changes and its length are read right."""
    return bool(right[columns([f"{swap.slot}", f"{swap.slot}_length"])].all())


def answers_right(
    pictures: Sequence[Image.Image], asked: Sequence[Swap] | Sequence[Piece], reader: AttributeReader
) -> np.ndarray:
    """(n, facts) bool: what the reader reads as it was asked for."""
    return Answers([one.after for one in asked]).right(reader.read(to_tensors(pictures)).numpy())


def columns(names: Sequence[str]) -> list[int]:
    """Where these facts stand in FACTS."""
    return [list(FACTS).index(name) for name in names]


def never_clothed(swap: Swap) -> np.ndarray:
    """(H, W) bool: under the mask, and clothes in neither outfit: the picture shows what belongs there."""
    return swap.mask & ~clothed(swap.before) & ~clothed(swap.after)


def partly_visible(swap: Swap) -> np.ndarray:
    """(H, W) bool: never clothed, and of a part that reaches out of the mask: not a hand that is wholly under it."""
    index, seen = swap.before.index, np.zeros_like(swap.mask)
    for number in np.unique(index[~swap.mask]):
        parts, _ = label(index == number)
        seen |= np.isin(parts, np.setdiff1d(parts[~swap.mask], 0))
    return never_clothed(swap) & seen


def uncovered(swap: Swap) -> np.ndarray:
    """(H, W) bool: clothes before, none after."""
    return swap.mask & clothed(swap.before) & ~clothed(swap.after)


def no_trace(result: np.ndarray, truth: np.ndarray, swap: Swap, right: np.ndarray) -> float:
    """1 if the garment and its length are read right and the old outline is gone, 0 if not; nan where none would show.

    Gone: of the pixels in which the new garment in its own length and in the old one's differ, nine tenths are nearer
    to the truth than to either of these leaks: the new clothes in the old length, and the old clothes.
    """
    old, relapse = (np.asarray(on_white(doll.image)) for doll in (swap.before, swap.relapse))
    differs = swap.mask & (swap.after.index != swap.relapse.index)
    share = outline_share(result, truth, [relapse, old], differs)
    return share if np.isnan(share) else float(length_read(right, swap) and share >= NO_TRACE)
