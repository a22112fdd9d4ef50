"""The table of a model card: a figure, its goal, whether it is reached, and the baselines beside it."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from minicc.atomic import replacing

Figures = Mapping[str, Any]

GOALS: list[tuple[str, str, str, Callable[[Figures], bool]]] = [
    ("outside_max", "largest change outside the mask, RGBA", "0", lambda f: f["outside_max"] == 0),
    (
        "attributes_all",
        "all clothes as the sentence says",
        "≥ 0.80, and 0.10 over blend or ≥ 0.95",
        lambda f: f["attributes_all"] >= min(0.95, max(0.8, f["baselines"]["blend"]["attributes_all"] + 0.1)),
    ),
    ("worst", "the worst single attribute", "≥ 0.95", lambda f: worst(f) >= 0.95),
    (
        "under_mask_delta_e",
        "ΔE2000 of what is under the mask and not clothes",
        "≤ half of blend's",
        lambda f: f["under_mask_delta_e"] <= f["baselines"]["blend"]["under_mask_delta_e"] / 2,
    ),
    (
        "visible_delta_e",
        "ΔE2000 of what is under the mask and also beside it",
        "≤ half of blend's",
        lambda f: f["visible_delta_e"] <= f["baselines"]["blend"]["visible_delta_e"] / 2,
    ),
    ("seam_ratio", "jump across the mask's edge over the truth's", "≤ 1.15", lambda f: f["seam_ratio"] <= 1.15),
    ("shape_change", "long ↔ short without a trace of the old outline", "≥ 0.90", lambda f: f["shape_change"] >= 0.9),
    ("silhouette_iou", "of these: IoU of the garment found with the true one", "", lambda f: True),
    ("silhouette_old_iou", "its IoU in the old length", "", lambda f: True),
    ("silhouette_new", "nearer to the new outline than to the old", "≥ 0.90", lambda f: f["silhouette_new"] >= 0.9),
    ("silhouette_read", "such, and read with its length", "≥ 0.90", lambda f: f["silhouette_read"] >= 0.9),
    ("garment", "the garment given, read off the result", "≥ 0.90", lambda f: f["garment"] >= 0.9),
    ("colour", "its colour", "≥ 0.90", lambda f: f["colour"] >= 0.9),
    ("pattern", "its pattern", "≥ 0.90", lambda f: f["pattern"] >= 0.9),
    ("delta_e", "ΔE2000 where it is worn, to the truth through the VAE", "≤ 5", lambda f: f["delta_e"] <= 5),
    ("delta_e_raw", "the same to the truth itself", "", lambda f: True),
    (
        "ssim",
        "SSIM in the masked region",
        "≥ 0.85, and above every baseline",
        lambda f: f["ssim"] >= max([0.85, *(b["ssim"] for b in f["baselines"].values())]),
    ),
    ("own_over_other", "nearer to its own garment's truth", "≥ 0.99", lambda f: f["own_over_other"] >= 0.99),
    ("correspondence", "attention on the true garment cell", "", lambda f: True),
    ("kept_delta_e", "ΔE2000 of what is masked and should stay", "", lambda f: True),
    ("mask_covered", "changed pixels that the mask covers", "", lambda f: True),
    ("mask_excess", "other pixels in it, per changed one", "", lambda f: True),
    ("colours", "colours of garments, by the nearest name", "", lambda f: True),
    ("small_mask", "one garment painted over: its kind and colour as the sentence says", "", lambda f: True),
    ("uncovered_delta_e", "ΔE2000 of what the old outfit hid", "", lambda f: True),
]


def worst(figures: Figures) -> float:
    """The least share of all single attributes that were asked for."""
    shares = [share for share in figures.get("attributes", {}).values() if not math.isnan(share)]
    return min(shares, default=math.nan)


def table(figures: Figures) -> list[str]:
    """Lines of Markdown: one row a figure that was measured; baselines and ceiling in columns of their own."""
    beside = {name: figures[name] for name in ("true_masks", "ceiling") if name in figures}
    others = {**figures["baselines"], **beside}
    rows = [f"| | minicc | goal | reached | {' | '.join(others)} |", "|---" * (4 + len(others)) + "|"]
    for key, title, goal, reached in GOALS:
        values = [worst(f) if key == "worst" else f.get(key) for f in (figures, *others.values())]
        if values[0] is not None and not math.isnan(values[0]):
            yes = "" if not goal else "yes" if reached(figures) else "NO"
            ours, *rest = ("" if value is None else f"{value:.3g}" for value in values)
            rows.append(f"| {title} | {ours} | {goal} | {yes} | {' | '.join(rest)} |")
    return rows


def write_json(path: Path, figures: Figures) -> None:
    """The figures as JSON, whole or not at all; what could not be measured (nan) becomes null."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(plain(figures), indent=1, allow_nan=False) + "\n", "utf-8")


def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
