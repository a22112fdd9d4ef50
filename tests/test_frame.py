"""The frame: what is declared in several places agrees, and the code is clean by the tools' judgement."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tools.check_notebooks import MACHINE_PATH, complaints

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared() -> list[str]:
    return [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]


def test_environment_yml_has_what_pyproject_has():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert sorted(pip) == sorted([*declared(), "-c constraints.txt", "-e ."])
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


def test_the_hooks_before_a_commit_are_ruff_and_the_notebook_check():
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"] for hook in local["hooks"]]
    assert entries == ["ruff check --fix", "ruff format", "python tools/check_notebooks.py"]


def test_all_places_name_the_same_version():
    version = PROJECT["version"]
    assert str(yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]) == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def committed() -> dict[str, str]:
    """Name and text of every text file under version control; all sources where there is none (an unpacked archive)."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    files = [ROOT / name for name in listed.stdout.split("\0")[:-1]]
    files = files or [*ROOT.glob("*.*"), *(f for d in ("minicc", "tests", "tools") for f in (ROOT / d).rglob("*.*"))]
    raw = {str(f.relative_to(ROOT)): f.read_bytes() for f in files if f.is_file()}
    return {name: data.decode("utf-8") for name, data in raw.items() if b"\0" not in data[:8192]}


def test_no_committed_file_names_a_path_of_a_machine():
    found = {name: match[0] for name, text in committed().items() if (match := MACHINE_PATH.search(text))}
    assert not found, found


@pytest.mark.parametrize("folder", ["home", "root", "Users", "work", "tmp"])
def test_a_path_of_a_machine_is_recognised(folder):
    assert MACHINE_PATH.search(f'open("/{folder}/ada/character.png")')
    assert not MACHINE_PATH.search(f"https://example.org/{folder}/ada and ./{folder}/ada and tests/{folder}/ada")


def test_no_file_chooses_a_package_registry_for_the_user():
    chosen = re.compile("(?:index" + "-url|find" + "-links|trusted" + "-host)")
    found = {name: match[0] for name, text in committed().items() if (match := chosen.search(text))}
    assert not found, found


def test_ci_runs_what_the_readme_tells_a_newcomer_to_run():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100, "not executable: chmod +x .ci/run"
    assert script.read_text().split("\n")[-3:-1] == ["make demo", "make test"]


def test_rooms_import_downward_only():
    """models and diffusion stand on nothing but each other's neighbours; nothing below imports what people do."""
    below = {
        "diffusion": {"diffusion", "errors", "fields"},
        # ControlNet.load and .save import weights inside functions
        "models": {"models", "atomic", "errors", "fields", "weights.load", "weights.export"},
        "weights": {"weights", "models", "atomic", "errors", "diffusion"},
        "data": {"data", "atomic", "errors"},
        "outfit": {"outfit", "data", "models", "diffusion", "weights", "pipeline", "hinted", "errors"},
        "training": {"training", "outfit", "data", "models", "diffusion", "weights"}
        | {"reader", "pipeline", "hinted", "memory", "atomic", "errors"},
    }
    for room, allowed in below.items():
        for file in (ROOT / "minicc" / room).glob("**/*.py"):
            for module in re.findall(r"^\s*from minicc\.([\w.]+) import", file.read_text(), re.M):
                assert any(module == a or module.startswith(a + ".") for a in allowed), f"{file.name} imports {module}"


def saved(path: Path, *cells: dict, metadata: dict | None = None) -> Path:
    path.write_text(json.dumps({"cells": list(cells), "metadata": metadata or {}}))
    return path


def code(count: int | None, *outputs: dict, source: str = "1 + 1", tags: tuple[str, ...] = ()) -> dict:
    """A code cell as Jupyter saves it."""
    meta = {"tags": list(tags)}
    return {"cell_type": "code", "execution_count": count, "outputs": outputs, "source": source, "metadata": meta}


TWO = {"output_type": "execute_result", "data": {"text/plain": ["2"]}}
FIGURE = {"output_type": "display_data", "data": {"image/png": "…", "text/plain": ["<Figure size 600x400>"]}}
ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "x_T"}
WARNING = {"output_type": "stream", "name": "stderr", "text": ["careful"]}


def test_the_notebook_check_has_nothing_against_a_good_notebook(tmp_path):
    text = {"cell_type": "markdown", "source": "# DDIM"}
    expected = code(2, ERROR, tags=("raises-exception",))
    assert complaints(saved(tmp_path / "good.ipynb", text, code(1, TWO), expected, code(None, source=""))) == []


@pytest.mark.parametrize(
    ("cells", "metadata", "sentence"),
    [
        ([code(2, TWO)], {}, "in order"),
        ([code(1, TWO), code(None, TWO)], {}, "in order"),
        ([code(1, ERROR)], {}, "ends in an error"),
        ([code(1, TWO, WARNING)], {}, "stderr"),
        ([code(1, TWO, source="open('/home" + "/ada')")], {}, "path of one machine"),
        ([code(1, TWO)], {"widgets": {}}, "widget state"),
        ([code(1, FIGURE), code(2, TWO)], {}, "1 of 2 code cells"),
        ([code(1, TWO, tags=("nbval-skip",))], {}, "0 of 1 code cells"),
    ],
)
def test_the_notebook_check_finds(tmp_path, cells, metadata, sentence):
    (found,) = complaints(saved(tmp_path / "bad.ipynb", *cells, metadata=metadata))
    assert sentence in found


def test_the_notebook_check_finds_what_is_no_notebook(tmp_path):
    (tmp_path / "page.ipynb").write_text("<!doctype html>")
    (found,) = complaints(tmp_path / "page.ipynb")
    assert "not a notebook" in found


def test_every_committed_notebook_is_clean():
    notebooks = [ROOT / name for name in committed() if name.endswith(".ipynb")]
    assert {path.name: complaints(path) for path in notebooks} == {path.name: [] for path in notebooks}
