"""The main tables of the model cards are those of the recorded runs, docs/*.json, rounded as the card prints them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NUMBER = re.compile(r"\d+(?:\.\d+)?")

# card → the run, how a row begins → its figure, and which run's part each column shows (0: the first after the label)
PHASE1 = {
    "largest change outside": "outside_max", "all clothes as the sentence says": "attributes_all",
    "colours of garments, by the nearest name": "colours", "ΔE2000 of what is under the mask": "under_mask_delta_e",
    "the same of parts that are also seen": "visible_delta_e", "the same where clothes were": "uncovered_delta_e",
    "jump across the mask's edge": "seam_ratio", "long ↔ short": "shape_change",
    "silhouettes of these garments": "silhouette_new", "such, and the garment read": "silhouette_read",
    "small masks": "small_mask",
}  # fmt: skip
PHASE2 = {
    "largest change outside": "outside_max", "the kind of garment": "garment", "its colour": "colour",
    "its pattern": "pattern", "ΔE2000 where it is worn": "delta_e", "the same to the truth itself": "delta_e_raw",
    "SSIM in the masked region": "ssim", "nearer to its own garment's truth": "own_over_other",
}  # fmt: skip
TABLES = {
    ("tiny", "How good it is"): (
        "base",
        {"all attributes of clothes right": "attributes_all", "the same, told only": "attributes_all_outfit",
         "all clothes at once, with nothing forgiven": "attributes_all_strict",
         "the same judge on the VAE's": "reader_on_reconstruction", "Fréchet distance to test": "frechet",
         "16 dolls → noise": "inversion_psnr"},
        {0: ""},
    ),
    ("tiny-reader", "How good it is"): ("reader", {"all facts about clothes at once": "reader_on_truth"}, {0: ""}),
    ("tiny-phase1", "How good it is"): (
        "phase1", PHASE1,
        {0: "", 2: "baselines.blend", 3: "baselines.blend_closed", 4: "baselines.blind", 5: "baselines.mean",
         6: "ceiling"},
    ),
    ("tiny-phase1", "On artists' characters"): (
        "phase1-lpc",
        {"largest change outside": "outside_max", "colours of garments": "colours", "all of a drawing's": "colours_all",
         "ΔE2000 of what is under": "under_mask_delta_e", "the same where clothes were": "uncovered_delta_e",
         "jump across the mask's edge": "seam_ratio"},
        {0: "", 1: "baselines.blend", 2: "baselines.blend_closed", 3: "baselines.blind", 4: "baselines.mean",
         5: "ceiling"},
    ),
    ("tiny-detector", "How good it is"): (
        "detector",
        {"IoU of clothes": "clothes_iou", "mIoU of the eight": "miou", "what a garment is": "kind"},
        {0: ""},
    ),
    ("tiny-phase2", "How good it is"): (
        "phase2", PHASE2,
        {0: "", 2: "true_masks", 3: "baselines.mean", 4: "baselines.phase1_caption", 5: "baselines.plain_hint",
         6: "ceiling"},
    ),
}  # fmt: skip
README = {
    "the VAE's reconstruction": ("vae", ["vae_psnr", "vae_ssim"]),
    "patterns of tops, bottoms, one-pieces": (
        "base", ["attributes.top_pattern", "attributes.bottom_pattern", "attributes.onepiece_pattern"]
    ),
    "all clothes at once": ("base", ["attributes_all"]),
    "the same from sentences": ("base", ["attributes_all_outfit"]),
    "the [judge]": ("reader", ["reader_on_truth"]),
    "Fréchet distance to test": ("base", ["frechet_ratio"]),
    "dolls to noise and back": ("base", ["inversion_psnr"]),
    "largest change outside": ("phase1", ["outside_max", "baselines.blend.outside_max"]),
    "all clothes as the sentence": ("phase1", ["attributes_all", "baselines.blend.attributes_all"]),
    "what is under the mask": ("phase1", ["under_mask_delta_e", "baselines.blend.under_mask_delta_e"]),
    "the seam at the mask's edge": ("phase1", ["seam_ratio", "baselines.blend.seam_ratio"]),
    "long ↔ short, reader": (
        "phase1", ["silhouette_read", "shape_change", "baselines.blend.silhouette_read", "baselines.blend.shape_change"]
    ),
    "kind of the garment": ("phase2", ["garment", "baselines.phase1_caption.garment"]),
    "its colour": ("phase2", ["colour", "baselines.phase1_caption.colour"]),
    "its pattern": ("phase2", ["pattern", "baselines.phase1_caption.pattern"]),
    "nearer to its own garment": ("phase2", ["own_over_other", "baselines.phase1_caption.own_over_other"]),
    "ΔE2000 where it is worn": (
        "phase2", ["delta_e", "ssim", "baselines.phase1_caption.delta_e", "baselines.phase1_caption.ssim"]
    ),
    "where the clothes are": ("detector", ["clothes_iou"]),
}  # fmt: skip


def rows(card: str, heading: str) -> list[list[str]]:
    """The cells of every row of a section's tables."""
    text = (ROOT / "minicc" / "pretrained" / card / "README.md").read_text("utf-8")
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def part(figures: dict[str, Any], path: str) -> Any:
    for name in path.split(".") if path else ():
        figures = figures[name]
    return figures


def run_of(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "docs" / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("start", README, ids=lambda name: name)
def test_the_readmes_tables_are_those_of_the_runs(start):
    run, names = README[start]
    text = (ROOT / "README.md").read_text("utf-8").split("## Your own checkpoint", 1)[0]
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    printed = [number for cell in line.split(" | ")[1:3] for number in NUMBER.findall(cell)]
    figures = [part(run_of(run), name) for name in names]
    assert printed[: len(names)] == [
        f"{figure:.{len(shown.partition('.')[2])}f}" for figure, shown in zip(figures, printed, strict=False)
    ]


def test_the_detectors_curves_are_those_of_its_run():
    figures = run_of("detector")
    others = figures["baselines"]
    named = {"pixels and": "random", "raw": "pixels", "colours,": "colours", "attention": "words"}
    curves = {"features of": (figures["labels"], figures["miou_labels"])}
    curves |= {row: (others["labels"][name], others["miou_labels"].get(name)) for row, name in named.items()}
    for start, (ious, mious) in curves.items():
        (cells,) = [row[1:] for row in rows("tiny-detector", "How good it is") if row[0].startswith(start)]
        shown = [f"{iou:.2f}" + (f" ({mious[count]:.2f})" if mious else "") for count, iou in ious.items()]
        assert [cell.replace("**", "") for cell in cells] == shown


@pytest.mark.parametrize(("card", "heading"), TABLES, ids=lambda name: name)
def test_a_cards_table_is_that_of_its_run(card, heading):
    run, names, columns = TABLES[card, heading]
    figures = run_of(run)
    for start, name in names.items():
        (cells,) = [row[1:] for row in rows(card, heading) if row[0].startswith(start)]
        for column, of in columns.items():
            printed = NUMBER.search(cells[column])
            assert printed, (start, column)
            digits = len(printed[0].partition(".")[2])
            assert printed[0] == f"{part(figures, of)[name]:.{digits}f}", (start, of or run)
