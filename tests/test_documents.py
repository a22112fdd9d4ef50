"""What the documents say of the code must exist: files, folders, functions, commands, notebooks."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "TEACHING.md"]
FOLDERS = "minicc|tests|docs|notebooks|benchmarks|tools"
PATH = re.compile(rf"(?<![\w./])((?:{FOLDERS})/[\w./-]*\w/?)")
NAME = re.compile(r"(?<![\w./])(minicc(?:\.[A-Za-z_]\w*)+)")
LISTED = re.compile(r"`([\w./]+\.py)`\s*\(([^()]*)\)", re.DOTALL)  # `minicc/….py` (`name`, `Class.name`)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def resolve(name: str) -> object:
    """The object behind a dotted name: the longest part that is a module, then attributes. Raises LookupError."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[n:]:
            if not hasattr(found, attribute):
                raise LookupError(f"{name}: {'.'.join(parts[:n])} has no {attribute}")
            found = getattr(found, attribute)
        return found
    raise LookupError(f"{name}: there is no such module")


def unresolved(text: str) -> list[str]:
    """The dotted names in a text that do not exist."""
    wrong = []
    for name in sorted(set(NAME.findall(text))):
        try:
            resolve(name)
        except LookupError as problem:
            wrong.append(str(problem))
    return wrong


def listed(text: str) -> list[str]:
    """What a text lists in brackets behind a file: `minicc/a.py` (`f`, `C.g`) → minicc.a.f, minicc.a.C.g."""
    names = []
    for path, inside in LISTED.findall(text):
        if path.startswith("minicc/"):
            module = path.removesuffix(".py").replace("/", ".")
            names += [f"{module}.{name}" for name in re.findall(r"`([A-Za-z_][\w.]*)`", inside)]
    return names


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_path_that_a_document_names_exists(document):
    missing = [path for path in sorted(set(PATH.findall(document.read_text("utf-8")))) if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_name_that_a_document_uses_exists(document):
    text = document.read_text("utf-8")
    assert unresolved(text + " ".join(listed(text))) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_link_to_a_file_leads_somewhere(document):
    prose = FENCE.sub("", document.read_text("utf-8"))
    targets = [
        t for t in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose) if not t.startswith(("http:", "https:", "mailto:"))
    ]
    assert [t for t in targets if not (document.parent / t).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_make_target_that_a_document_names_exists(document):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", document.read_text("utf-8"), re.MULTILINE))
    assert named - targets == set()


def test_a_wrong_name_is_found():
    """The test itself: a name that is nearly right must not pass."""
    assert unresolved("`minicc.models.unet.UNet.forward`") == []
    assert unresolved("`minicc.models.unet.UNet.fourward`") == [
        "minicc.models.unet.UNet.fourward: minicc.models.unet has no fourward"
    ]
    assert listed("`minicc/diffusion/ddim.py`\n(`ddim_step`, `ddim_invert`)") == [
        "minicc.diffusion.ddim.ddim_step",
        "minicc.diffusion.ddim.ddim_invert",
    ]
    assert PATH.findall("see `minicc/no/such.py`, but not my/minicc/file") == ["minicc/no/such.py"]


def test_every_arxiv_link_shows_the_number_that_it_leads_to():
    link = re.compile(r"\[arXiv ([\d.]+)\]\(https://arxiv\.org/abs/([\d.]+)")
    for document in DOCUMENTS:
        for shown, target in link.findall(document.read_text("utf-8")):
            assert shown == target, f"{document.name}: arXiv {shown} leads to {target}"
