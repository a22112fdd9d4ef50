"""Hand-ins, checked: the student's answer to each exercise, put into the course's notebook and run with its check.

python tools/grade.py handed-in/*.ipynb     # make grade FILES="handed-in/*.ipynb"

A file may have any name: its title, "# 01 · …", says which notebook it is. Of a hand-in only the answers are run, never
its other cells, so a check that a student has altered changes nothing. But answers are students' code: run this as a
user who has nothing to lose.
"""

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.exercises import BEGIN, exercises, foundation, source

ROOT = Path(__file__).resolve().parents[1]
TITLE = re.compile(r"^# (\d\d)\b", re.M)
SECONDS = 300  # for one hand-in


def run(code: str, namespace: dict[str, Any], cell: int) -> str:
    """Execute a cell; what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, f"cell {cell}", "exec"), namespace)
    return printed.getvalue()


def ground(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The names that a notebook's exercises stand on, each cell run once for all of them."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    found = exercises(cells)
    own = {cell for one in found for cell in (one.solution, one.check)}
    for cell in sorted({cell for one in found for cell in foundation(cells, one)} - own):
        run(source(cells[cell]), namespace, cell)
    return namespace


def defined(cell: dict[str, Any]) -> str:
    """The function that an exercise asks for: the one around the marker."""
    return source(cell).split(BEGIN)[0].rsplit("def ", 1)[1].split("(")[0]


def answer(cells: Sequence[dict[str, Any]], name: str) -> str | None:
    """A hand-in's last code cell that defines the function."""
    written = [source(c) for c in cells if c["cell_type"] == "code" and re.search(rf"^def {name}\(", source(c), re.M)]
    return written[-1] if written else None


def verdicts(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One line an exercise, as soon as it is known: passed, not tried, or what went wrong, with the check's hint."""
    base = ground(ours)
    for one in exercises(ours):
        code, namespace = answer(theirs, defined(ours[one.solution])), dict(base)
        if code is None:
            yield f"exercise {one.number}: missing"
            continue
        try:
            run(code, namespace, one.solution)
            run(source(ours[one.check]), namespace, one.check)
            verdict = "passed"
        except (Exception, SystemExit) as problem:  # whatever a student's code may raise
            words = " ".join(str(problem).split())
            untouched = isinstance(problem, NotImplementedError) and words.startswith(f"Exercise {one.number},")
            verdict = "not tried" if untouched else f"{type(problem).__name__}: {words}"
        yield f"exercise {one.number}: {verdict}"


def original(cells: Sequence[dict[str, Any]]) -> Path:
    """The course's notebook of which these cells are a hand-in. Raises ValueError."""
    number = next((m[1] for c in cells if c["cell_type"] == "markdown" and (m := TITLE.search(source(c)))), None)
    found = sorted((ROOT / "notebooks").glob(f"{number}-*.ipynb"))
    if not found:
        raise ValueError("it has no title of a notebook of the course: expected a text cell that begins '# 01 · …'")
    return found[0]


def grade(path: Path) -> Iterator[str]:
    """The verdicts on one file. Raises ValueError for what is no notebook of ours."""
    try:
        cells = json.loads(path.read_text("utf-8"))["cells"]
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"it is no notebook ({problem})") from problem
    return verdicts(json.loads(original(cells).read_text("utf-8"))["cells"], cells)


def main(*paths: str) -> int:
    """Each file in a process of its own, so that one which hangs or dies stops no other."""
    for path in paths:
        command = [sys.executable, __file__, "--here", path]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
            words = (done.stderr.decode().splitlines() or ["no word"])[-1]
            lines = done.stdout.decode().splitlines() + ([f"died: {words}"] if done.returncode else [])
        except subprocess.TimeoutExpired as late:
            lines = [*(late.stdout or b"").decode().splitlines(), f"not done within {SECONDS} s"]
        print(*(f"{path}: {line}" for line in lines), sep="\n")
    return 0 if paths else 1


def here(path: str) -> int:
    """The verdicts on one file, printed."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    try:
        for line in grade(Path(path)):
            print(line, flush=True)  # known even if the next exercise hangs
    except ValueError as problem:
        print(problem)
    return 0


if __name__ == "__main__":
    sys.exit(here(*sys.argv[2:]) if sys.argv[1:2] == ["--here"] else main(*sys.argv[1:]))
