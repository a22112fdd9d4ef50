"""The student edition: every exercise of every notebook fails on its stub, with a hint, and passes on its solution.

Not whole notebooks: the exercise, its check and the few cells before that they stand on (nbval runs the rest).
"""

import functools
import json
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest

from tests.notebooks import ROOT, notebooks
from tools.check_notebooks import complaints
from tools.exercises import BEGIN, END, exercises, foundation, source
from tools.grade import defined, grade, ground, main, run
from tools.student import IN_PLACE, plain, student_edition


def cells_of(path: Path) -> list[dict]:
    return json.loads(path.read_text("utf-8"))["cells"]


EXERCISES = [
    pytest.param(path, one, id=f"{path.stem}-{one.number}") for path in notebooks() for one in exercises(cells_of(path))
]


@functools.cache
def ground_of(path: Path) -> dict:
    return ground(cells_of(path))


@pytest.fixture
def quiet_figures():
    """No window, and matplotlib's settings afterwards as before."""
    import matplotlib.pyplot as plt

    with mpl.rc_context(), mpl.rc_context({"figure.max_open_warning": 0}):
        plt.switch_backend("agg")
        yield
        plt.close("all")


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize(("path", "one"), EXERCISES)
def test_the_check_fails_on_the_stub_with_a_hint_and_passes_on_the_solution(path, one):
    solved = cells_of(path)
    student = student_edition({"cells": solved})["cells"]
    namespace = dict(ground_of(path))
    check = source(solved[one.check])

    run(source(student[one.solution]), namespace, one.solution)
    with pytest.raises(NotImplementedError, match=f"Exercise {one.number}, .*Hint: "):
        run(check, namespace, one.check)

    run(source(solved[one.solution]), namespace, one.solution)
    answer = run(check, namespace, one.check)
    assert f"Exercise {one.number} passed" in answer

    name = defined(solved[one.solution])
    run(f"def {name}(*args, **kwargs): return None", namespace, one.solution)
    with pytest.raises((AssertionError, TypeError, AttributeError)):
        run(check, namespace, one.check)


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_has_two_exercises_or_more_whose_checks_give_hints(path):
    cells = cells_of(path)
    found = exercises(cells)
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    assert len(found) >= 2
    for one in found:
        assert "Hint:" in source(cells[one.check]), f"exercise {one.number}: no assert of its check gives a hint"


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_the_student_edition_has_no_solution_and_no_output(path):
    edition = student_edition(json.loads(path.read_text("utf-8")))
    code = [cell for cell in edition["cells"] if cell["cell_type"] == "code"]
    assert not any(mark in source(cell) for cell in code for mark in (BEGIN, END))
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert IN_PLACE not in json.dumps(edition, ensure_ascii=False)
    assert all(compile(source(cell), path.name, "exec") for cell in code)
    assert sum("raise NotImplementedError" in source(cell) for cell in code) == len(exercises(cells_of(path)))


def test_make_student_writes_every_notebook(tmp_path):
    command = [sys.executable, "tools/student.py", str(tmp_path / "student"), *map(str, notebooks())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [Path(line).name for line in done.stdout.split()] == sorted(path.name for path in notebooks())
    assert all("were not executed" in complaints(Path(line))[0] for line in done.stdout.split())


NOISE = next(path for path in notebooks() if path.name.startswith("01-"))


def handed_in(folder: Path, change) -> Path:
    """Notebook 01's student edition, its cells changed, under another name."""
    edition = student_edition(json.loads(NOISE.read_text("utf-8")))
    change(edition["cells"])
    path = folder / "somebody.ipynb"
    path.write_text(json.dumps(edition), "utf-8")
    return path


def test_a_hand_in_is_judged_by_its_answers_and_our_checks(tmp_path):
    ours = cells_of(NOISE)
    one, two, *_ = exercises(ours)

    def answers(cells):
        cells[one.solution]["source"] = source(ours[one.solution])
        cells[one.check]["source"] = "raise SystemExit"  # a check of the student's own is not run
        cells[two.solution]["source"] = f"def {defined(ours[two.solution])}(*args): exit()"
        cells.insert(3, code("1 / 0"))  # nor any other cell

    lines = list(grade(handed_in(tmp_path, answers)))
    assert len(lines) == len(exercises(ours))
    assert lines[0] == "exercise 1: passed"
    assert lines[1].startswith("exercise 2: SystemExit")
    assert all(line.endswith(": not tried") for line in lines[2:])


def test_what_was_known_before_a_hand_in_died_is_told(tmp_path, capsys):
    ours = cells_of(NOISE)
    one, two, *_ = exercises(ours)

    def answers(cells):
        cells[one.solution]["source"] = source(ours[one.solution])
        cells[two.solution]["source"] = f"import os\ndef {defined(ours[two.solution])}(*args): os._exit(3)"

    main(str(handed_in(tmp_path, answers)))
    first, last = capsys.readouterr().out.splitlines()
    assert first.endswith("exercise 1: passed")
    assert "died" in last


def test_grading_says_what_is_no_hand_in_and_goes_on(tmp_path):
    (tmp_path / "empty.ipynb").write_text('{"cells": []}')
    (tmp_path / "words.ipynb").write_text("words")
    files = [str(tmp_path / f"{name}.ipynb") for name in ("empty", "words", "missing")]
    done = subprocess.run([sys.executable, "tools/grade.py", *files], cwd=ROOT, capture_output=True, text=True)
    first, second, third = done.stdout.splitlines()
    assert "no title of a notebook of the course" in first
    assert "it is no notebook" in second
    assert "it is no notebook" in third


def text(words: str) -> dict:
    return {"cell_type": "markdown", "source": words}


def code(words: str) -> dict:
    return {"cell_type": "code", "source": words, "outputs": [1], "execution_count": 1}


SOLVED = f"def twice(x):\n    y = x\n    {BEGIN}\n    y += x\n    return y\n    {END}\n"
ASK = "### Exercise 1: two of them\n\nDouble `x`.\n*Hint*: $x + x$, or `x * 2`."
CHECK = 'assert twice(3) == SIX, "Hint: add"\nprint("Exercise 1 passed: six")'


def test_a_stub_keeps_what_was_given_and_raises_the_hint():
    edition = student_edition({"cells": [text(ASK), code(SOLVED), code(CHECK)]})
    expected = (
        "def twice(x):\n    y = x\n    raise NotImplementedError(\n"
        '        "Exercise 1, two of them: write your lines here. Hint: x + x, or x * 2."\n    )\n'
    )
    assert edition["cells"][1]["source"] == expected


def test_several_lines_and_a_solution_at_top_level_are_cut_out_too():
    cells = [text(ASK), code(f"a = 1\n{BEGIN}\nb = 2\n{END}\nc = 3"), code(CHECK)]
    stub = student_edition({"cells": cells})["cells"][1]["source"]
    assert stub.startswith("a = 1\nraise NotImplementedError(\n")
    assert stub.endswith(")\nc = 3")
    assert "b = 2" not in stub


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([text(ASK), code(SOLVED.replace(END, "")), code(CHECK)], "has the markers"),
        ([text("Double x."), code(SOLVED), code(CHECK)], "no '### Exercise N: title'"),
        ([text(ASK.replace("*Hint*", "Hint")), code(SOLVED), code(CHECK)], r"has no '\*Hint\*"),
        ([text(ASK), code(SOLVED), code("assert twice(3) == 6")], "does not print 'Exercise 1 passed"),
        ([text(ASK), code(SOLVED)], "does not print"),
    ],
)
def test_an_exercise_that_is_not_in_the_convention_is_refused_in_words(cells, words):
    with pytest.raises(ValueError, match=words):
        exercises(cells)


def test_an_exercise_stands_on_the_cells_that_bind_its_names_and_on_no_others():
    before = ["SIX = 5", "def base(): return offset + 5", "offset = 0", "SIX = base()", "offset = 1", "x = y = 0"]
    cells = [*map(code, before), text(ASK), code(SOLVED), code(CHECK)]
    (one,) = exercises(cells)
    assert foundation(cells, one) == [1, 2, 3]  # base() is called in 3, where offset is 0


@pytest.mark.parametrize(
    ("line", "needs"),
    [
        ("for t in steps: u = t", {"steps"}),
        ("x += 1", {"x"}),
        ("y = [a * b for a in rows]", {"rows", "b"}),
        ("f = lambda q, r=s: q + r + w", {"s", "w"}),
        ("t = 1\nf(lambda x: x + t)", {"f"}),
        ("def f(x):\n    def g(y): return x + y + k\n    return g", {"k"}),
        ("x = 1\ndef f(): return x", set()),
        ("x = x + 1", {"x"}),
        ("import torch.nn as nn\nz = nn.Linear", set()),
        ("class A(B):\n    n = m\n    def f(self): return self.n + k", {"B", "m", "k"}),
        ("try: g\nexcept E as error: error", {"g", "E"}),
        ("with h() as file: file", {"h"}),
    ],
)
def test_the_names_that_a_cell_needs_are_read_in_the_order_in_which_python_runs_it(line, needs):
    from tools.exercises import Names

    names = Names.of(line)
    assert names.needed() == needs


@pytest.mark.parametrize(
    ("hint", "spoken"),
    [
        (r"$\bar\alpha_t/\bar\alpha_s$", "α\u0304_t/α\u0304_s"),
        (r"the last `round(a * b)` of *all*", "the last round(a * b) of all"),
        (r"$\mathrm{Var}[z] = \mathbb E[\sigma^2]$", "Var[z] = E[σ^2]"),
        (r"$\hat x_0 \ne \tilde{\varepsilon}$", "x\u0302_0 ≠ ε\u0303"),
        (r"$\sqrt{\bar\alpha_t}\,x_0$, $\sqrt{2}$", "√(α\u0304_t) x_0, √2"),
    ],
)
def test_a_hint_is_spoken_without_tex(hint, spoken):
    assert " ".join(plain(hint).split()) == spoken
