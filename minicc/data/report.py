"""The report of a folder: every file of every sample is opened once, and what is wrong or converted is named."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from minicc.data.pictures import open_mask, open_picture
from minicc.data.samples import Sample, clothes, image_of, index_of
from minicc.errors import PictureError

MISSING = {  # what a sample may lack, and the note on it
    "caption": "no caption",
    "mask": "no mask",
    "clothes": "its mask shows no clothes",
    "garment": "no picture of a garment",
    "target": "no picture of the character in that garment",
}


@dataclass
class Report:
    """What was found in a folder: nothing is dropped or converted without being named here."""

    layout: str
    dropped: dict[str, str] = field(default_factory=dict)  # sample, line or file → why it is not used
    notes: dict[str, str] = field(default_factory=dict)  # sample or file → what was converted or is missing, but used
    kept: int = 0  # samples
    kinds: dict[str, list[str]] = field(default_factory=dict)  # a note, without its details → the samples that have it

    def __bool__(self) -> bool:
        """True if there is anything to say."""
        return bool(self.dropped or self.notes)

    def __str__(self) -> str:
        lines = [f"{self.layout}: {self.kept} samples, {len(self.dropped)} left out"]
        lines += [f"  {name} left out: {why}" for name, why in self.dropped.items()]
        return "\n".join(lines + [f"  {name}: {note}" for name, note in self.notes.items()])

    def summary(self, names: int = 3) -> str:
        """The report in a few sentences, one a line: how many pictures had the same fate, and the first few names."""
        reasons: dict[str, list[str]] = {}
        for name, why in self.dropped.items():
            reasons.setdefault(why, []).append(name)
        noted = {kind: [name for name in listed if name in self.notes] for kind, listed in self.kinds.items()}
        lines = [f"{self.layout}: {self.kept} samples, {len(self.dropped)} left out."]
        for fate, groups in ((" left out", reasons), ("", noted)):
            rows = [f"  {sentence(listed, fate, said, names)}" for said, listed in groups.items() if listed]
            lines += rows[: 4 * names] + ([f"  … and {len(rows) - 4 * names} more."] if len(rows) > 4 * names else [])
        return "\n".join(lines)

    def drop(self, name: str, why: object) -> None:
        add(self.dropped, name, str(why))

    def note(self, name: str, what: str, details: str = "") -> None:
        """what: in the same words for all to which the same happened; details: what differs from one to the next."""
        add(self.notes, name, what + details)
        listed = self.kinds.setdefault(what, [])
        if name not in listed[-1:]:
            listed.append(name)

    def leave_out(self, samples: list[Sample], lacks: Collection[str]) -> list[Sample]:
        """The samples of which none of these notes was made; the others are dropped, and only that is said of them."""
        without: dict[str, list[str]] = {}
        for kind in lacks:
            for name in self.kinds.get(kind, ()):
                without.setdefault(name, []).append(kind)
        for name, kinds in without.items():
            self.drop(name, " and ".join(kinds))
            self.notes.pop(name, None)
        return [sample for sample in samples if sample.name not in without]


def sentence(names: list[str], fate: str, said: str, n: int) -> str:
    """200 pictures: no mask (0.png, 1.png, 2.png and 197 more). Of one: 0.png: no mask."""
    if len(names) == 1:
        return f"{names[0]}{fate}: {said}."
    lines = all(name.rpartition(":")[2].isdecimal() for name in names)  # metadata.jsonl:7
    return f"{len(names)} {'lines' if lines else 'pictures'}{fate}: {said} ({first_few(names, n)})."


def first_few(names: list[str], n: int) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def add(table: dict[str, str], name: str, words: str) -> None:
    """Under this name, after what is said there already; once."""
    said = table.get(name)
    table[name] = words if said in (None, words) else f"{said}; {words}"


def checked(sample: Sample, report: Report) -> Sample | None:
    """The sample if its picture and mask can be used, else None; what is found goes into the report.

    Without a garment or target that is damaged it is still a sample for phase 1: only those are left out.
    """
    try:
        image = image_of(sample)
        notes = list(image.info["notes"])
        notes += [f"mask: {note}" for note in open_mask(sample.mask).info["notes"]] if sample.mask else []
        if (sample.mask or sample.layers) and not clothes(index_of(sample, image.size)).any():
            notes = [*notes, MISSING["clothes"]]
    except PictureError as error:
        report.drop(sample.name, error)
        return None
    for note in notes:
        report.note(sample.name, note)
    damaged = [key for key in EXTRAS if not usable(sample, key, image.size, report)]
    return replace(sample, **dict.fromkeys(damaged))  # type: ignore[arg-type]


EXTRAS = ("garment", "target", "target_mask")  # fields of a sample that only phase 2 needs


def usable(sample: Sample, key: str, size: tuple[int, int], report: Report) -> bool:
    """Whether a garment's or target's file opens, if there is one, and a target's has the size of the character; a note
    if not, or if it was converted.
    """
    path: Path | None = getattr(sample, key)
    if path is None:
        return True
    try:
        found = (open_mask if key == "target_mask" else open_picture)(path)
        if key != "garment" and found.size != size:
            sizes = f"{found.width}×{found.height}, the picture {size[0]}×{size[1]}"
            raise PictureError(f"{path.name} is {sizes}: same size, please")
    except PictureError as error:
        report.note(sample.name, f"used without its {key}", f": {error}")
        return False
    for note in found.info["notes"]:
        report.note(sample.name, f"{key}: {note}")
    return True
