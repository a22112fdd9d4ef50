"""`make notebooks`: outputs are stored, and nothing that changes from run to run."""

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from tools.execute import execute

CODE = "import sys\nprint('a'); sys.stdout.flush(); print('b'); print('c', file=sys.stderr)"


def test_an_executed_notebook_holds_its_outputs_and_twice_is_the_same_file(tmp_path):
    path = tmp_path / "n.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(CODE, id="x")]), path)
    execute(path)
    first = path.read_text("utf-8")
    out, err = nbformat.read(path, as_version=4).cells[0].outputs
    assert (out.name, out.text) == ("stdout", "a\nb\n")
    assert (err.name, err.text) == ("stderr", "c\n")
    assert "3." not in str(nbformat.read(path, as_version=4).metadata)  # no version
    execute(path)
    assert path.read_text("utf-8") == first


def test_a_notebook_that_fails_stays_as_it_was(tmp_path):
    path = tmp_path / "n.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0", id="x")]), path)
    before = path.read_text("utf-8")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(path)
    assert path.read_text("utf-8") == before
