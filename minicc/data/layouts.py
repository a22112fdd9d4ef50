"""The layouts of folders that people have, and how each is recognised.

| layout | known by |
|---|---|
| metadata | metadata.jsonl or .csv: imagefolder (`file_name`, `mask_file_name`, `text`), or pairs (`person_a`, …) |
| viton | image/ and cloth/, as VITON-HD has them |
| layers | a sub-folder a character, one transparent PNG a layer |
| pictures | pictures alone, each perhaps with a .txt of the same name: its caption |
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from minicc.data.files import pictures_below, subfolders
from minicc.data.layers import looks_like_layers, read_layers
from minicc.data.metadata import has_metadata, read_metadata
from minicc.data.report import Report
from minicc.data.samples import Sample, caption_in, inside
from minicc.data.viton import has_viton, read_viton
from minicc.errors import PictureError

SPLITS = ("train", "val", "valid", "validation", "dev", "test")


def read_pictures(root: Path, report: Report) -> Iterator[Sample]:
    """Every picture, here and below; there are no masks, so phase 1 cannot learn from them, but a VAE can."""
    for path in pictures_below(root):
        name = path.relative_to(root).as_posix()
        try:
            yield Sample(name, inside(root, name), caption_in(root, str(Path(name).with_suffix(".txt"))))
        except PictureError as error:
            report.drop(name, error)


def recognise(root: Path, layout: str | None = None) -> tuple[Path, str]:
    """The folder that holds the samples (the given one, or its only split), and its layout. Raises PictureError."""
    if layout is not None and layout not in READERS:
        raise PictureError(f"layout {layout!r}: expected one of {', '.join(READERS)}, or none to have it recognised")
    for name in [layout] if layout else ["metadata", "viton"]:
        if READERS[name][0](root):
            return root, name
    if splits := splits_of(root):
        return recognise(only(root, splits), layout)
    for name in [] if layout else ["layers", "pictures"]:
        if READERS[name][0](root):
            return root, name
    wanted = f"the layout {layout!r}" if layout else f"one of these layouts: {', '.join(READERS)}"
    raise PictureError(f"{root}: no pictures found; expected {wanted}")


def splits_of(root: Path) -> list[Path]:
    """Sub-folders that are data sets of their own: named as splits, or with metadata in them."""
    own = [folder for folder in subfolders(root) if folder.resolve().is_relative_to(root.resolve())]
    return [f for f in own if (f.name.lower() in SPLITS and pictures_below(f)) or has_metadata(f) or has_viton(f)]


def only(root: Path, splits: list[Path]) -> Path:
    """The one split; to choose among several would train on what is meant for measuring."""
    if len(splits) > 1:
        raise PictureError(f"{root} has several data sets, {', '.join(f.name for f in splits)}: name one of them")
    return splits[0]


Reader = Callable[[Path, Report], Iterator[Sample]]
READERS: dict[str, tuple[Callable[[Path], bool], Reader]] = {
    "metadata": (has_metadata, read_metadata),
    "viton": (has_viton, read_viton),
    "layers": (looks_like_layers, read_layers),
    "pictures": (lambda root: bool(pictures_below(root)), read_pictures),
}
