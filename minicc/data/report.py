"""The report of a folder: every file of every sample is opened once, and what is wrong or converted is named."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from minicc.data.pictures import open_mask, open_picture
from minicc.data.samples import Sample, clothes, image_of, index_of
from minicc.errors import PictureError


@dataclass
class Report:
    """What was found in a folder: nothing is dropped or converted without being named here."""

    layout: str
    dropped: dict[str, str] = field(default_factory=dict)  # sample, line or file → why it is not used
    notes: dict[str, str] = field(default_factory=dict)  # sample or file → what was converted or is missing, but used
    kept: int = 0  # samples

    def __bool__(self) -> bool:
        """True if there is anything to say."""
        return bool(self.dropped or self.notes)

    def __str__(self) -> str:
        lines = [f"{self.layout}: {self.kept} samples, {len(self.dropped)} dropped, {len(self.notes)} notes"]
        lines += [f"  dropped {name}: {why}" for name, why in self.dropped.items()]
        return "\n".join(lines + [f"  {name}: {note}" for name, note in self.notes.items()])

    def summary(self, names: int = 3) -> str:
        """The report in a few lines: of files with the same fate, the first few names."""
        lines = [str(self).split("\n", 1)[0]]
        for fate, table in (("dropped", self.dropped), ("note", self.notes)):
            groups: dict[str, list[str]] = {}
            for name, said in table.items():
                groups.setdefault(said, []).append(name)
            rows = [f"  {fate}: {said}: {first_few(listed, names)}" for said, listed in groups.items()]
            lines += rows[: 4 * names] + ([f"  … and {len(rows) - 4 * names} more"] if len(rows) > 4 * names else [])
        return "\n".join(lines)

    def drop(self, name: str, why: object) -> None:
        add(self.dropped, name, str(why))

    def note(self, name: str, what: str) -> None:
        add(self.notes, name, what)


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
            notes = [*notes, "its mask shows no clothes"]
    except PictureError as error:
        report.drop(sample.name, error)
        return None
    for note in notes:
        report.note(sample.name, note)
    damaged = [key for key in EXTRAS if not usable(sample, key, report)]
    return replace(sample, **dict.fromkeys(damaged))  # type: ignore[arg-type]


EXTRAS = ("garment", "target", "target_mask")  # fields of a sample that only phase 2 needs


def usable(sample: Sample, key: str, report: Report) -> bool:
    """Whether a garment's or target's file opens, if there is one; a note if not, or if it was converted."""
    path: Path | None = getattr(sample, key)
    try:
        notes = (open_mask if key == "target_mask" else open_picture)(path).info["notes"] if path else []
    except PictureError as error:
        report.note(sample.name, f"used without its {key}: {error}")
        return False
    for note in notes:
        report.note(sample.name, f"{key}: {note}")
    return True
