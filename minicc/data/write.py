"""Results on disk: whole or not at all, and in formats that keep every pixel as it is."""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image

from minicc.atomic import replacing
from minicc.errors import PictureError

LOSSLESS: dict[str, tuple[str, dict[str, Any]]] = {  # suffix → Pillow's format, and what makes it exact
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
}


def check_writable(*paths: Path, inputs: Iterable[Path] = ()) -> None:
    """Before the work begins: raise PictureError for a format that would change pixels, or where no file can be, or
    where one of these files, or of the inputs, is already.
    """
    taken = {os.path.realpath(path): "it is also an input" for path in inputs}
    for path in paths:
        if why := taken.get(os.path.realpath(path)):
            raise PictureError(f"{path} would be overwritten: {why}, choose another name")
        taken[os.path.realpath(path)] = "another result is written there"
        if path.suffix.lower() not in LOSSLESS:
            raise PictureError(
                f"{path}: {path.suffix or 'no suffix'} does not keep every pixel and alpha value; "
                f"write one of {', '.join(LOSSLESS)}"
            )
        try:
            check_place(path)
        except OSError as problem:  # a name longer than the disk allows, a folder that may not be looked into
            raise PictureError(f"{path} cannot be written ({problem.strerror}): choose another place") from problem


def check_place(path: Path) -> None:
    """Raise PictureError where no file can be, OSError where that cannot be told."""
    if path.is_dir():
        raise PictureError(f"{path} is a folder; name a file in it")
    for parent in path.parents:
        if parent.is_file():
            raise PictureError(f"{path} cannot be written: {parent} is a file, and no folder")
    there = next(parent for parent in path.parents if parent.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise PictureError(f"{path} cannot be written: no permission in {there}, choose another place")


def save_pictures(pictures: Mapping[Path, Image.Image]) -> list[Path]:
    """Write them all, or none: drafts beside their places first, renamed once all are complete. Raises PictureError."""
    check_writable(*pictures)
    try:
        with ExitStack() as drafts:  # at its end each takes its place, after an error none
            for path, picture in pictures.items():
                kind, options = LOSSLESS[path.suffix.lower()]
                picture.save(drafts.enter_context(replacing(path)), kind, **options)
    except (OSError, ValueError) as problem:  # ValueError: larger than the format can be, as WebP of 16,384 pixels
        name, why = getattr(problem, "filename", None) or path, getattr(problem, "strerror", None) or problem
        raise PictureError(f"{name}: cannot be written ({why})") from problem
    return list(pictures)
