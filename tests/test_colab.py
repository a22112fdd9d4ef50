"""Colab: the first cell installs a release there and is silent here; the address stands in one place."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tools.colab import ROOT, link, place, prepared, setup, without_link
from tools.student import student_edition

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ADDRESS = "https://github.com/someone/minicc"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_notebook_has_the_first_cell_and_the_link_that_make_colab_writes(path: Path):
    notebook = json.loads(path.read_text("utf-8"))
    assert prepared(notebook, path.name, *place()) == notebook, "run: make colab"


@pytest.mark.parametrize("repository", [None, ADDRESS])
def test_the_first_cell_is_silent_outside_colab(repository, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.setattr(subprocess, "run", None)
    exec(setup(repository, "0.1.0"), {})
    assert capsys.readouterr() == ("", "")


def test_in_colab_it_installs_the_tagged_release_and_neither_torch_nor_numpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    asked: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append(command))
    exec(setup(ADDRESS, "0.1.0"), {})
    ((*_, release, widget),) = asked
    assert (release, widget) == (f"minicc @ git+{ADDRESS}@v0.1.0", "anywidget")
    assert not {"--upgrade", "-U", "--force-reinstall", "torch", "numpy"} & {*asked[0]}


def test_in_colab_a_copy_without_an_address_says_where_to_look(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    with pytest.raises(RuntimeError, match=r"docs/colab\.md"):
        exec(setup(None, "0.1.0"), {})


def test_an_address_gives_each_notebook_a_link_to_its_release_and_its_absence_takes_it_away():
    path = NOTEBOOKS[0]
    notebook = prepared(json.loads(path.read_text("utf-8")), path.name, None, "0.1.0")
    linked = prepared(notebook, path.name, ADDRESS, "0.1.0")
    line = "https://colab.research.google.com/github/someone/minicc/blob/v0.1.0/notebooks/00-dress-someone.ipynb"
    heading, _, below = "".join(linked["cells"][0]["source"]).split("\n")[:3]
    assert heading.startswith("# 00")
    assert below == link(ADDRESS, "0.1.0", path.name) == f"[▶ Open in Colab]({line})"
    assert prepared(linked, path.name, ADDRESS, "0.1.0") == linked
    assert prepared(linked, path.name, None, "0.1.0") == notebook
    assert linked["cells"][2:] == notebook["cells"][2:]


def test_students_are_not_led_to_the_solutions():
    path = NOTEBOOKS[0]
    linked = prepared(json.loads(path.read_text("utf-8")), path.name, ADDRESS, "0.1.0")
    assert "colab.research" not in json.dumps(student_edition(linked)["cells"][0])
    assert without_link("# a\n\ntext [▶ Open in Colab] stays") == "# a\n\ntext [▶ Open in Colab] stays"


def test_a_notebook_without_the_cell_is_named():
    cells = [{"cell_type": "markdown", "source": "# x"}, {"cell_type": "code", "source": "import torch"}]
    with pytest.raises(ValueError, match=r"x\.ipynb: expected a title, then a cell that begins"):
        prepared({"cells": cells}, "x.ipynb", None, "0.1.0")
