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
        "base", {"all attributes of clothes right": "attributes_all", "the same, told only": "attributes_all_outfit"},
        {0: ""},
    ),
    ("tiny-reader", "How good it is"): ("reader", {"all facts about clothes at once": "reader_on_truth"}, {0: ""}),
    ("tiny-phase1", "How good it is"): (
        "phase1", PHASE1,
        {0: "", 3: "baselines.blend", 4: "baselines.blend_closed", 5: "baselines.blind", 6: "baselines.mean",
         7: "ceiling"},
    ),
    ("tiny-detector", "How good it is"): (
        "detector",
        {"IoU of clothes": "clothes_iou", "mIoU of the eight": "miou", "what a garment is": "kind"},
        {0: ""},
    ),
    ("tiny-phase2", "How good it is"): (
        "phase2", PHASE2,
        {0: "", 3: "true_masks", 4: "baselines.mean", 5: "baselines.phase1_caption", 7: "ceiling"},
    ),
}  # fmt: skip


def rows(card: str, heading: str) -> list[list[str]]:
    """The cells of every row of a section's tables."""
    text = (ROOT / "minicc" / "pretrained" / card / "README.md").read_text("utf-8")
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def part(figures: dict[str, Any], path: str) -> dict[str, Any]:
    for name in path.split(".") if path else ():
        figures = figures[name]
    return figures


def test_the_detectors_curves_are_those_of_its_run():
    figures = json.loads((ROOT / "docs" / "detector.json").read_text("utf-8"))
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
    figures = json.loads((ROOT / "docs" / f"{run}.json").read_text("utf-8"))
    for start, name in names.items():
        (cells,) = [row[1:] for row in rows(card, heading) if row[0].startswith(start)]
        for column, of in columns.items():
            printed = NUMBER.search(cells[column])
            assert printed, (start, column)
            digits = len(printed[0].partition(".")[2])
            assert printed[0] == f"{part(figures, of)[name]:.{digits}f}", (start, of or run)
