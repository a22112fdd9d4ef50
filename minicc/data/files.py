"""Finding pictures in folders."""

import re
from pathlib import Path

# What is taken for a picture by its name; those that cannot be read are then named in the report, and why.
SUFFIXES = {
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".avifs", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".tga", ".qoi", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx",
    ".psd", ".ico", ".heic", ".heif", ".jxl", ".svg", ".eps",
}  # fmt: skip


def is_picture_name(path: Path) -> bool:
    """By its ending; hidden files, such as macOS's ._ twins, are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def pictures_in(folder: Path) -> list[Path]:
    """In the order of their names, numbers by value: 2 before 10."""
    return sorted(filter(is_picture_name, folder.iterdir()), key=natural)


def pictures_below(folder: Path) -> list[Path]:
    """In the folder and all its sub-folders."""
    found = [path for path in folder.rglob("*") if not hidden(path.relative_to(folder))]
    return sorted(filter(is_picture_name, found), key=natural)


def hidden(path: Path) -> bool:
    """Whether it lies in a hidden folder, as .ipynb_checkpoints is one."""
    return any(part.startswith(".") for part in path.parts[:-1])


def nested(folder: Path) -> list[Path]:
    """Pictures in the folder's sub-folders: what a layout without such does not use, and should name."""
    return [path for path in pictures_below(folder) if path.parent != folder]


def subfolders(folder: Path) -> list[Path]:
    """In the order of their names; hidden ones are left out."""
    return sorted((path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")), key=natural)


def natural(path: Path) -> list[tuple[int, str]]:
    """A sorting key in which runs of digits count as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]
