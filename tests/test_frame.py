"""The frame: what is declared in several places agrees, and the code is clean by the tools' judgement."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tools.check_notebooks import complaints

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = re.compile(r"[\w.-]+")


def declared() -> list[str]:
    return [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]


def test_environment_yml_has_what_pyproject_has():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert sorted(pip) == sorted(declared())
    assert f"python{PROJECT['requires-python']}" in environment["dependencies"]


def test_constraints_pin_every_dependency_to_a_version_that_pyproject_allows():
    from packaging.requirements import Requirement

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = {name.lower(): version for name, version in (line.split("==") for line in lines)}
    for requirement in map(Requirement, declared()):
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


@pytest.mark.parametrize("tool", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)], ids=" ".join)
def test_the_code_is_clean_to(tool):
    done = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def committed() -> list[Path]:
    """All files under version control, or all source files where there is none (an unpacked archive)."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\n")[:-1] if listed.returncode == 0 else []
    return [ROOT / n for n in names] or [*ROOT.glob("minicc/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("*.md")]


def test_no_committed_file_names_a_path_of_a_machine():
    path = re.compile(r"/(?:home|root|Users)/\w+|/work/(?:main|shared)")
    for file in committed():
        if file.suffix in {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".ipynb", ".json", ""} and file.is_file():
            found = path.search(file.read_text("utf-8", errors="ignore"))
            assert found is None or file == Path(__file__), (
                f"{file.relative_to(ROOT)} names {found[0] if found else ''}"
            )


def test_rooms_import_downward_only():
    """models and diffusion stand on nothing but each other's neighbours; nothing below imports what people do."""
    below = {
        "diffusion": {"diffusion", "errors"},
        "models": {"models", "errors", "weights.load", "weights.export"},  # ControlNet.load and .save, inside functions
        "weights": {"weights", "models", "errors", "diffusion"},
        "data": {"data", "errors"},
    }
    for room, allowed in below.items():
        for file in (ROOT / "minicc" / room).glob("**/*.py"):
            for module in re.findall(r"^\s*from minicc\.([\w.]+) import", file.read_text(), re.M):
                assert any(module == a or module.startswith(a + ".") for a in allowed), f"{file.name} imports {module}"


def test_the_notebook_check_finds_what_it_is_for(tmp_path):
    cell = {"cell_type": "code", "execution_count": 3, "outputs": [{"output_type": "error"}], "source": "/home/me"}
    notebook = tmp_path / "bad.ipynb"
    notebook.write_text(json.dumps({"cells": [cell], "metadata": {"widgets": {}}}))
    assert len(complaints(notebook)) == 4
    good = {"cell_type": "code", "execution_count": 1, "outputs": [], "source": "1 + 1"}
    notebook.write_text(json.dumps({"cells": [good], "metadata": {}}))
    assert complaints(notebook) == []
