"""The course as static pages, from the notebooks' stored outputs; nothing is executed and no network is needed.

python tools/site.py build/site notebooks/*.ipynb     # then open build/site/index.html
"""

import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "docs" / "site"
BESIDE = (ROOT / "docs" / "related-work.md", ROOT / "TEACHING.md")  # chapters that are no notebooks, if they are there


def stage(folder: Path, notebooks: list[Path], beside: list[Path]) -> None:
    """Lay out what Sphinx reads: settings and front page, the notebooks beside them, other chapters in a folder."""
    (folder / "beside").mkdir(parents=True)
    for path in (*SETTINGS.glob("*.*"), *notebooks):
        shutil.copy(path, folder)
    places = {path.name: f"../{path.name}" for path in notebooks} | {path.name: path.name for path in beside}
    for path in beside:
        (folder / "beside" / path.name).write_text(linked(path.read_text("utf-8"), places), "utf-8")


def linked(text: str, places: dict[str, str]) -> str:
    """Markdown whose links to files lead to the pages that they have become; to files without a page, to nowhere.

    places: file name → where the page's source is. Addresses, anchors and pictures are left as they are.
    """

    def place(link: re.Match[str]) -> str:
        words, path, anchor = link.groups()
        found = places.get(Path(path).name)
        return f"[{words}]({found}{anchor})" if found else words

    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!#|[a-z]+:)([^)#\s]+)((?:#[^)\s]*)?)\)", place, text)


def build(target: Path, notebooks: list[Path], *, strict: bool = False) -> int:
    """Build the pages into `target`, emptied before; Sphinx's exit status. strict: any warning is an error."""
    from sphinx.cmd.build import build_main

    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as workshop:
        source, doctrees = Path(workshop) / "source", Path(workshop) / "doctrees"
        stage(source, notebooks, [path for path in BESIDE if path.is_file()])
        options = ["-q", "-b", "html", "-d", str(doctrees), *(["-W", "--keep-going"] if strict else [])]
        return build_main([*options, str(source), str(target)])


def main(target: str, *notebooks: str) -> int:
    """Build, and say where to look."""
    status = build(Path(target), sorted(map(Path, notebooks)))
    if status == 0:
        print(f"The course is in {target}/index.html")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
