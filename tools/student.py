"""The student edition of the notebooks: no outputs, and where a solution stood a stub that raises with the hint.

python tools/student.py build/student notebooks/*.ipynb
"""

import copy
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.colab import without_link
from tools.exercises import BEGIN, END, Exercise, exercises, source

# What the text of the solved edition says, and what it says to students.
IN_PLACE = "Solutions are in place here; the student edition of this notebook has them taken out."
TAKEN_OUT = "Write your lines in place of each `raise NotImplementedError`, and run the check below it."
SIGNS = {  # TeX of the hints, in the letters of an error message
    "alpha": "α", "beta": "β", "gamma": "γ", "varepsilon": "ε", "epsilon": "ε", "eta": "η", "theta": "θ", "Theta": "Θ",
    "lambda": "λ", "mu": "μ", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "varphi": "φ", "omega": "ω",
    "nabla": "∇", "partial": "∂", "sqrt": "√", "sum": "Σ", "infty": "∞", "times": "×", "cdot": "·", "cdots": "…",
    "dots": "…", "le": "≤", "ge": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "sim": "~", "to": "→", "mid": "|",
    "in": "∈", "quad": " ", "qquad": " ", "lfloor": "⌊", "rfloor": "⌋",
}  # fmt: skip
ACCENTS = {"bar": "\u0304", "hat": "\u0302", "tilde": "\u0303"}
BARE = r"mathrm|mathcal|mathbb|mathbf|text|operatorname|big|Big|left|right"  # what says only how a letter looks


def student_edition(notebook: dict[str, Any]) -> dict[str, Any]:
    """A notebook as students get it. Raises ValueError for an exercise that is not in the convention."""
    edition = copy.deepcopy(notebook)
    for one in exercises(notebook["cells"]):
        edition["cells"][one.solution]["source"] = stub(source(notebook["cells"][one.solution]), one)
    edition["cells"] = [without_outputs(cell) for cell in edition["cells"]]
    return edition


def stub(solved: str, one: Exercise) -> str:
    """The solved cell with the lines from marker to marker replaced by one that raises, indented as they were."""
    before, _, rest = solved.partition(BEGIN)
    _, _, after = rest.partition(END)
    indent = before[before.rfind("\n") + 1 :]
    return before + textwrap.indent(raising(message(one)), indent).removeprefix(indent) + after


def message(one: Exercise) -> str:
    """What a student reads who runs the check too early."""
    return f"Exercise {one.number}, {one.title}: write your lines here. Hint: {plain(one.hint)}"


def raising(words: str, width: int = 96) -> str:
    """Source code that raises NotImplementedError(words), no line of it too long to read."""
    lines = textwrap.wrap(words, width, drop_whitespace=False, break_long_words=False)
    quoted = "\n".join(f"    {json.dumps(line, ensure_ascii=False)}" for line in lines)
    return f"raise NotImplementedError(\n{quoted}\n)"


def plain(hint: str) -> str:
    """Markdown with TeX → the words of an error message: no code quotes, no dollars, Greek letters as letters."""
    pieces = re.split(r"(`[^`]+`|\$\$?[^$]+\$\$?)", hint)
    speak = {"`": lambda piece: piece.strip("`"), "$": lambda piece: plain_tex(piece.strip("$"))}
    return "".join(speak.get(piece[:1], lambda piece: piece.replace("*", ""))(piece) for piece in pieces)


def plain_tex(tex: str) -> str:
    """TeX → letters: signs by the table, accents onto their letter, braces only where they group."""
    tex = re.sub(rf"\\(?:{BARE})\{{([^{{}}]*)\}}", r"\1", tex)
    for name, accent in ACCENTS.items():
        tex = re.sub(rf"\\{name}\s*(\\[A-Za-z]+|\{{\\?\w+\}}|\w)", lambda m, a=accent: m[1].strip("{}") + "\0" + a, tex)
    tex = re.sub(r"\\([A-Za-z]+)", lambda m: SIGNS.get(m[1], "" if re.fullmatch(BARE, m[1]) else m[1] + " "), tex)
    tex = re.sub(r"\\[,; ]", " ", re.sub(r"\\!|\0", "", tex)).replace("\\", "")
    tex = re.sub(r"√\{([^{}]{2,})\}", r"√(\1)", tex)
    return re.sub(r" {2,}", " ", re.sub(r"\{(\w)\}", r"\1", tex))


def without_outputs(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell as if it had never been run; text, spoken to students."""
    if cell["cell_type"] == "code":
        return {**cell, "outputs": [], "execution_count": None}
    return {**cell, "source": without_link(source(cell)).replace(IN_PLACE, TAKEN_OUT)}


def write(folder: Path, paths: list[Path]) -> list[Path]:
    """The student edition of each notebook, into the folder; what it wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path in paths:
        edition = student_edition(json.loads(path.read_text("utf-8")))
        written.append(folder / path.name)
        written[-1].write_text(json.dumps(edition, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return written


def main(folder: str, *paths: str) -> int:
    """Write, and say what was written; exit status 1 without a notebook."""
    for path in write(Path(folder), sorted(map(Path, paths))):
        print(path)
    return 0 if paths else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
