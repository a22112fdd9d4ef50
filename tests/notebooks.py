"""Which notebooks the tests look at."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def notebooks() -> list[Path]:
    """Those under version control; all where there is none (an unpacked archive)."""
    command = ["git", "ls-files", "notebooks/*.ipynb"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\n")
    return sorted(ROOT / name for name in listed if name) or sorted(ROOT.glob("notebooks/*.ipynb"))
