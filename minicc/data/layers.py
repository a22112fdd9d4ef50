"""Characters in layers: a sub-folder a character, one transparent PNG a layer, as drawing programs export them."""

import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from minicc.data.files import nested, pictures_in, subfolders
from minicc.data.report import Report
from minicc.data.samples import CLASSES, CLOTHES, Sample, caption_in, inside
from minicc.errors import PictureError

GARMENTS = {  # words in a layer's name → what it is; the first that fits
    "accessory": "accessory hat cap helmet scarf glove gloves glasses belt cape cloak bag necklace tie bow ribbon "
    "armband",
    "shoes": "shoe shoes boot boots sandal sandals sneaker sneakers sock socks stocking stockings",
    "dress": "dress gown robe kimono overalls onepiece jumpsuit suit uniform outfit clothes",
    "bottom": "pants trousers jeans shorts skirt leggings tights bottom",
    "top": "top shirt tshirt blouse sweater sweatshirt pullover hoodie jacket coat vest cardigan jersey armour armor "
    "blazer tunic",
    "hair": "hair bangs fringe ponytail",
    "skin": "body skin head face base arm arms hand hands leg legs",
}
GROUND = {"background", "bg", "ground", "scene", "shadow", "outline", "outlines", "lineart", "effects"}  # no clothes


def read_layers(root: Path, report: Report) -> Iterator[Sample]:
    """Every sub-folder a character; layers lie in the order of their names, the first lowest."""
    for folder in subfolders(root):
        files = pictures_in(folder)
        for path in nested(folder):
            report.note(path.relative_to(root).as_posix(), "a folder deeper than a character's layers: not used")
        if not files:
            report.drop(folder.name, "no pictures in this sub-folder")
            continue
        for path in files:
            if not class_of(path.stem) and not words_in(path.stem) & GROUND:
                doubt = "a layer with no known word in its name: not taken for clothes"
                report.note(folder.name, doubt, f": {path.name}")
        try:
            yield character(root, folder.name, files)
        except PictureError as error:
            report.drop(folder.name, error)
            continue
        if len(files) > 1 and not all(path.stem[:1].isdecimal() for path in files):
            order = " under ".join(path.stem for path in files)
            report.note(folder.name, "layers in the order of their names, put numbers first to change it", f": {order}")
    for path in pictures_in(root):
        report.note(path.name, "beside the characters' sub-folders: not used")


def character(root: Path, name: str, files: list[Path]) -> Sample:
    """One sub-folder. The caption is in its caption.txt, else made of the names of the clothes' layers."""
    layers = tuple((inside(root, f"{name}/{path.name}"), class_of(path.stem)) for path in files)
    worn = [readable_name(path.stem) for path, number in layers if number in CLOTHES]
    return Sample(name, root / name, caption_in(root, f"{name}/caption.txt") or ", ".join(worn), layers=layers)


def class_of(stem: str) -> int:
    """What a layer shows, by a word in its name; 0 if none is known."""
    found = words_in(stem)
    return next((CLASSES.index(name) for name, listed in GARMENTS.items() if found & set(listed.split())), 0)


def words_in(stem: str) -> set[str]:
    return set(re.findall(r"[a-z]+", stem.lower()))


def readable_name(stem: str) -> str:
    """10_red-hoodie → red hoodie."""
    return " ".join(re.findall(r"[^\W\d_]+", stem)).lower()


def looks_like_layers(root: Path) -> bool:
    """A sub-folder with two pictures or more, the first such; all of these but the lowest can be transparent."""
    first = next((files for files in map(pictures_in, subfolders(root)) if len(files) > 1), [])
    return bool(first) and all(has_transparency(path) for path in first[1:])


def has_transparency(path: Path) -> bool:
    """From the header alone; a damaged file counts, for the report will name it."""
    try:
        with Image.open(path) as file:
            return "A" in file.getbands() or "transparency" in file.info
    except Exception:
        return True
