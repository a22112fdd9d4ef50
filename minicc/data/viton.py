"""The layout of VITON-HD (Choi et al. 2021, arXiv 2103.16874): image/, cloth/, parse maps or masks, a list of pairs."""

from collections.abc import Iterator
from os.path import splitext
from pathlib import Path

from minicc.data.files import nested, pictures_below, pictures_in
from minicc.data.report import Report
from minicc.data.samples import Sample, caption_in, inside, text_of
from minicc.errors import PictureError

# Its parse maps number as LIP does, 0 … 19, but for 10, which is the neck. → CLASSES
#       none  hat hair glove glasses upper dress coat socks pants neck scarf skirt face arms   legs   shoes
VITON = (0, 5, 6, 5, 5, 1, 3, 1, 4, 2, 7, 5, 2, 7, 7, 7, 7, 7, 4, 4)
PARSES = ("image-parse-v3", "image-parse")
AGNOSTIC = "agnostic-mask"  # <picture>_mask.png, white where try-on papers repaint: the top, and the arms with it


def read_viton(root: Path, report: Report) -> Iterator[Sample]:
    """image/ with the garment in cloth/ and the mask from the parse map; pairs as listed, or of one name.

    Where the garment is the worn one, the target is the picture itself. Without parse maps agnostic-mask/ is used.
    """
    folder = next((name for name in (*PARSES, AGNOSTIC) if (root / name).is_dir()), None)
    if folder is None:
        wanted = f"no {PARSES[0]}/ or {AGNOSTIC}/ beside image/"
        raise PictureError(f"{root}: {wanted}: without one of them nothing says where the clothes are")
    if folder == AGNOSTIC:
        report.note(f"{AGNOSTIC}/", f"used for want of {PARSES[0]}/: it is wider than the clothes, arms are in it")
    used = set()
    for where, image, cloth in viton_pairs(root, report):
        used.add(cloth)
        try:
            person = inside(root / "image", image)
            yield Sample(
                name=image if image == cloth else f"{image} in {cloth}",
                image=person,
                caption=caption_in(root, f"caption/{Path(image).stem}.txt"),
                mask=inside(root / folder, mask_name(image, folder)),
                labels=() if folder == AGNOSTIC else VITON,
                garment=inside(root / "cloth", cloth),
                target=person if image == cloth else None,
                changed=("top", "dress"),
            )
        except PictureError as error:
            report.drop(where, error)
    for path in pictures_below(root / "cloth"):
        if path.relative_to(root / "cloth").as_posix() not in used:
            report.note(path.relative_to(root).as_posix(), "a garment of no pair: not used")


def mask_name(image: str, folder: str) -> str:
    """0_00.jpg → 0_00.png, or 0_00_mask.png in agnostic-mask/."""
    return splitext(image)[0] + ("_mask.png" if folder == AGNOSTIC else ".png")


def viton_pairs(root: Path, report: Report) -> Iterator[tuple[str, str, str]]:
    """(where, picture, garment), from <split>_pairs.txt beside the split or in it, else all pictures with their own."""
    lists = [folder / f"{root.name}_pairs.txt" for folder in (root.parent, root)]
    path = next((path for path in lists if path.is_file()), None)
    if path is None:
        for deeper in nested(root / "image"):
            report.note(deeper.relative_to(root).as_posix(), "in a folder below image/, and no list names it: not used")
        yield from ((f"image/{image.name}", image.name, image.name) for image in pictures_in(root / "image"))
        return
    listed = set()
    for i, line in enumerate(text_of(path).splitlines(), 1):
        names = line.split()
        if len(names) == 2:
            listed.add(names[0])
            yield f"{path.name}:{i}", names[0], names[1]
        elif names:
            report.drop(f"{path.name}:{i}", f"{len(names)} words; expected two, a picture and a garment")
    for image in pictures_below(root / "image"):
        if image.relative_to(root / "image").as_posix() not in listed:
            report.note(image.relative_to(root).as_posix(), f"not in {path.name}: not used")


def has_viton(root: Path) -> bool:
    return (root / "image").is_dir() and (root / "cloth").is_dir()
