"""Notebook hygiene: executed in order, no error in an output, no machine path, no widget state.

python tools/check_notebooks.py notebooks/*.ipynb
"""

import json
import re
import sys
from pathlib import Path

MACHINE_PATH = re.compile(r"/(?:home|root|Users|work)/\w+")


def complaints(path: Path) -> list[str]:
    """What is wrong with a notebook, one sentence each."""
    notebook = json.loads(path.read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    found = []
    counts = [cell["execution_count"] for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append("cells were not executed once each, in order: restart the kernel and run all")
    for i, cell in enumerate(code, 1):
        if any(output["output_type"] == "error" for output in cell["outputs"]):
            found.append(f"cell {i} ends in an error")
    if MACHINE_PATH.search(json.dumps(notebook)):
        found.append("a path of this machine is in it")
    if "widgets" in notebook["metadata"]:
        found.append("widget state is stored: clear it")
    return found


def main(paths: list[str]) -> int:
    wrong = [f"{path}: {sentence}" for path in paths for sentence in complaints(Path(path))]
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
