"""Notebook hygiene, without a kernel: executed once in order, quiet, comparable, and nothing of a machine in it.

python tools/check_notebooks.py notebooks/*.ipynb
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

# An absolute path of somebody's machine: it says who and where, and means nothing anywhere else.
MACHINE_PATH = re.compile(r"(?<![\w.~}-])/(?:home|root|Users|work|tmp|opt|mnt|workspace)/[\w.-]+|\b[A-Z]:\\+Users\b")
COMPARED = {"text/plain", "text/html", "text/latex", "image/svg+xml"}  # what nbval compares; pictures it does not
SHARE = 0.6  # of the code cells must print something that is compared, or a green run proves little


def complaints(path: Path) -> list[str]:
    """What is wrong with a notebook, one sentence each."""
    text = path.read_text("utf-8")
    try:
        notebook = json.loads(text)
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    except (ValueError, KeyError, TypeError):
        return ["not a notebook: expected the JSON that Jupyter saves"]
    found = [*of_counts(code), *(sentence for i, cell in enumerate(code, 1) for sentence in of_cell(i, cell))]
    compared = sum(map(is_compared, code))
    if compared < SHARE * len(code):
        found.append(f"{compared} of {len(code)} code cells have an output that is compared, expected {SHARE:.0%}")
    if path_found := MACHINE_PATH.search(text):
        found.append(f"{path_found[0]} is a path of one machine")
    if "widgets" in notebook.get("metadata", {}):
        found.append("widget state is stored: clear it, viewers reject it")
    return found


def of_counts(code: list[dict[str, Any]]) -> list[str]:
    """The counts must be 1, 2, 3, … as in one fresh run; empty cells, which keep none, are left out before."""
    in_order = [cell.get("execution_count") for cell in code] == list(range(1, len(code) + 1))
    return [] if in_order else ["cells were not executed once each, in order: restart the kernel and run all"]


def of_cell(i: int, cell: dict[str, Any]) -> list[str]:
    """What is wrong with the outputs of code cell i, counted from 1."""
    expected_error = "raises-exception" in cell.get("metadata", {}).get("tags", [])
    found = []
    for output in cell["outputs"]:
        if output["output_type"] == "error" and not expected_error:
            found.append(f"code cell {i} ends in an error")
        if output.get("name") == "stderr":
            found.append(f"code cell {i} writes to stderr: warnings differ from machine to machine")
    return found


def is_compared(cell: dict[str, Any]) -> bool:
    """Whether nbval compares any of the cell's outputs; the words that stand for a figure are no result."""
    tags = cell.get("metadata", {}).get("tags", [])
    if "nbval-ignore-output" in tags or "nbval-skip" in tags or "NBVAL_IGNORE_OUTPUT" in "".join(cell["source"]):
        return False
    return any(
        output["output_type"] in ("stream", "error")
        or (COMPARED & output.get("data", {}).keys() and "image/png" not in output["data"])
        for output in cell["outputs"]
    )


def main(paths: list[str]) -> int:
    """Print every complaint; exit status 1 if there is one."""
    wrong = [f"{path}: {sentence}" for path in paths for sentence in complaints(Path(path))]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
