"""Folders with metadata.jsonl or metadata.csv: Hugging Face's imagefolder, or characters in two outfits."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from os.path import normpath
from pathlib import Path
from typing import Any

from minicc.data.files import SUFFIXES, pictures_below
from minicc.data.report import Report
from minicc.data.samples import CLASSES, Sample, inside, text_of
from minicc.errors import PictureError

METADATA = ("metadata.jsonl", "metadata.csv")  # the first that is there; imagefolder's third, .parquet, is only noted
Row = dict[str, Any]


def has_metadata(root: Path) -> bool:
    return any((root / name).is_file() for name in METADATA)


def read_metadata(root: Path, report: Report) -> Iterator[Sample]:
    """Rows of metadata.jsonl or metadata.csv; pictures that no row names are noted."""
    named, taken = set[str](), set[str]()  # files; names of samples
    for where, row in rows_of(root, report):
        make = from_pair if "person_a" in row else from_image_row
        try:
            for sample in make(root, where, row, report):
                yield replace(sample, name=f"{sample.name} ({where})") if sample.name in taken else sample
                taken.add(sample.name)
        except PictureError as error:
            report.drop(where, error)
        named |= {normpath(root / value) for value in row.values() if isinstance(value, str)}
    for path in pictures_below(root):
        if normpath(path) not in named:
            report.note(path.relative_to(root).as_posix(), "no row of the metadata names this picture: not used")


def note_unread(root: Path, layout: str, report: Report) -> None:
    """Name the tables of metadata that nobody reads: captions and masks may stand in them."""
    taken = next((name for name in METADATA if (root / name).is_file()), "") if layout == "metadata" else ""
    for path in sorted(root.glob("metadata.*")):
        if path.name != taken and path.suffix.lower() not in SUFFIXES:
            why = (
                f"{taken} is read instead" if taken else "captions and masks come from metadata.jsonl: save it as that"
            )
            report.note(path.name, f"not read; {why}")


def rows_of(root: Path, report: Report) -> Iterator[tuple[str, Row]]:
    """(where, row) for every line that can be read; the others go into the report."""
    path = next(root / name for name in METADATA if (root / name).is_file())
    text = text_of(path)
    if path.suffix == ".csv":
        yield from csv_rows(path.name, text, report)
        return
    for i, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            report.drop(f"{path.name}:{i}", f"not JSON ({error}); expected one object a line")
            continue
        if isinstance(row, dict):
            yield f"{path.name}:{i}", row
        else:
            report.drop(f"{path.name}:{i}", f"a {type(row).__name__}; expected one object a line")


def csv_rows(name: str, text: str, report: Report) -> Iterator[tuple[str, Row]]:
    """The same for a table with a line of column names."""
    reader = csv.DictReader(text.splitlines(keepends=True))
    try:
        for row in reader:
            if None in row:
                report.drop(f"{name}:{reader.line_num}", "more cells than columns; put text with commas in quotes")
            else:
                yield f"{name}:{reader.line_num}", dict(row)
    except csv.Error as error:
        report.drop(f"{name}:{reader.line_num}", f"not CSV from here on ({error}); save the table anew")


def optional(root: Path, row: Row, *columns: str) -> Path | None:
    """The file in the first of these columns that is filled."""
    return next((inside(root, row[column]) for column in columns if row.get(column)), None)


def extra(root: Path, where: str, row: Row, report: Report, *columns: str) -> Path | None:
    """The same for a file that phase 1 can do without: if it leads out of the folder, a note instead of an error."""
    try:
        return optional(root, row, *columns)
    except PictureError as error:
        report.note(where, f"used without its {columns[0]}", f": {error}")
        return None


def words(row: Row, *columns: str) -> str:
    """The text in the first of these columns that is filled; "" if none."""
    return next(
        (str(row[column]).strip() for column in columns if isinstance(row.get(column), str) and row[column]), ""
    )


def from_image_row(root: Path, where: str, row: Row, report: Report) -> Iterator[Sample]:
    """Hugging Face's imagefolder: `file_name`, `text`, and further pictures in columns `<what>_file_name`."""
    if not row.get("file_name"):
        raise PictureError(f"no file_name (columns: {', '.join(map(str, row)) or 'none'}); name the picture there")
    yield Sample(
        name=str(row["file_name"]),
        image=inside(root, row["file_name"]),
        caption=words(row, "text", "caption", "prompt"),
        mask=optional(root, row, "mask_file_name", "mask"),
        garment=extra(root, where, row, report, "garment_file_name", "garment"),
        garment_text=words(row, "garment_text"),
        target=extra(root, where, row, report, "target_file_name", "target"),
        target_mask=extra(root, where, row, report, "target_mask_file_name", "target_mask"),
        changed=classes(row.get("changed")),
    )


def from_pair(root: Path, where: str, row: Row, report: Report) -> Iterator[Sample]:
    """One character in outfits A and B: A is a sample whose target is B, and B, if there, one whose target is A."""
    if not row.get("person_a"):
        raise PictureError("person_a is empty; name the picture there")
    for this, other in (("a", "b"), ("b", "a")):
        if not row.get(f"person_{this}"):
            continue
        try:
            yield Sample(
                name=str(row[f"person_{this}"]),
                image=inside(root, row[f"person_{this}"]),
                caption=words(row, f"outfit_{this}", f"caption_{this}"),
                mask=optional(root, row, f"mask_{this}"),
                garment=extra(root, where, row, report, f"garment_{other}"),
                garment_text=words(row, f"garment_{other}_text"),
                target=extra(root, where, row, report, f"person_{other}"),
                target_mask=extra(root, where, row, report, f"mask_{other}"),
                changed=classes(row.get("changed")),
            )
        except PictureError as error:
            report.drop(where, error)


def classes(names: object) -> tuple[str, ...]:
    """The value of a `changed` column, checked."""
    if not names:
        return ()
    listed = names.split(",") if isinstance(names, str) else names
    if not isinstance(listed, list) or not all(isinstance(n, str) and n.strip() in CLASSES[1:] for n in listed):
        raise PictureError(f"changed is {names!r}; expected some of {', '.join(CLASSES[1:])}")
    return tuple(n.strip() for n in listed)
