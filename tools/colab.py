"""Colab: every notebook's first cell and link, written from the one place that has the repository's address.

make colab     # or: python tools/colab.py notebooks/*.ipynb, after the address or the version has changed

The address is `Repository` under [project.urls] in pyproject.toml; the release is the tag v and the version. Without an
address there is no link, and the cell stops in Colab with a word about it. docs/colab.md has the check by hand.
"""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORDS = "▶ Open in Colab"  # words, no picture: the pages of the course ask nobody for anything
LINK = re.compile(rf"\n*^\[{WORDS}\]\(\S*\)$", re.MULTILINE)
IN_COLAB = 'import sys\n\nif "google.colab" in sys.modules:'


def place() -> tuple[str | None, str]:
    """The repository's address, if it is known, and the version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project["urls"].get("Repository"), project["version"]


def setup(repository: str | None, version: str) -> str:
    """The first cell: in Colab it installs the release beside the torch and numpy there; elsewhere it is silent."""
    if repository is None:
        words = "this copy of the course does not know where Colab can install minicc from: see docs/colab.md"
        return f'{IN_COLAB}\n    raise RuntimeError("{words}")'
    return (
        f"{IN_COLAB}  # the release of this notebook; torch and numpy stay those of Colab\n"
        "    import subprocess\n\n"
        f'    release = "minicc @ git+{repository}@v{version}"\n'
        '    subprocess.run([sys.executable, "-m", "pip", "install", "-q", release, "anywidget"], check=True)'
    )


def link(repository: str | None, version: str, name: str) -> str:
    """The line below a notebook's title, "" without an address."""
    if repository is None:
        return ""
    there = repository.removeprefix("https://").removesuffix(".git").removeprefix("github.com/")
    return f"[{WORDS}](https://colab.research.google.com/github/{there}/blob/v{version}/notebooks/{name})"


def without_link(text: str) -> str:
    """A notebook's text without the link: a student's edition must not lead to the solutions."""
    return LINK.sub("", text)


def prepared(notebook: dict[str, Any], name: str, repository: str | None, version: str) -> dict[str, Any]:
    """The notebook with the link below its title and this first cell; outputs and counts stay. Raises ValueError."""
    title, first, *rest = notebook["cells"]
    if title["cell_type"] != "markdown" or not "".join(first["source"]).startswith(IN_COLAB):
        raise ValueError(f"{name}: expected a title, then a cell that begins {IN_COLAB!r}")
    heading, _, text = without_link("".join(title["source"])).partition("\n")
    below = link(repository, version, name)
    title = {**title, "source": lines(heading + (f"\n\n{below}" if below else "") + f"\n{text}")}
    return {**notebook, "cells": [title, {**first, "source": lines(setup(repository, version))}, *rest]}


def lines(text: str) -> list[str]:
    """As Jupyter saves it."""
    return text.splitlines(keepends=True)


def main(paths: list[str]) -> int:
    """Write the notebooks that differ, and name them."""
    for path in map(Path, paths):
        before = path.read_text("utf-8")
        after = json.dumps(prepared(json.loads(before), path.name, *place()), indent=1, ensure_ascii=False) + "\n"
        if after != before:
            path.write_text(after, "utf-8")
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
