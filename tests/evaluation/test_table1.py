"""The DDIM paper's table 1: every cell samples, and a run that was stopped goes on where it was."""

import pytest
import torch

from minicc.errors import Error
from minicc.evaluation import table1 as module
from minicc.evaluation.reader import AttributeReader
from minicc.evaluation.table1 import CELLS, ETAS, STEPS, Cell, batches, markdown


def test_every_cell_of_the_paper_is_there_and_the_solver_beside_them():
    assert {(c.steps, c.eta) for c in CELLS if c.solver == "DDIM"} == {(s, e) for s in STEPS for e in ETAS}
    assert [c.steps for c in CELLS if c.solver != "DDIM"] == [15]


@pytest.mark.parametrize("cell", [Cell(10, "0.5"), Cell(10, "σ̂"), Cell(1000, "0"), Cell(15, "0", "DPM-Solver++")])
def test_a_cell_asks_the_model_once_a_step_and_repeats_itself(sd, cell):
    asked = []

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(int(t[0]))
        return 0.1 * x

    x = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    a, b = cell.sample(model, x, sd, 3), cell.sample(model, x, sd, 3)
    assert torch.equal(a, b)
    assert len(asked) == 2 * cell.steps
    assert 0 <= min(asked) <= max(asked) < 1000


def test_finished_batches_are_not_computed_again_whatever_decodes_them(sd, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 2)
    cell = Cell(1, "0")
    monkeypatch.setattr(Cell, "sample", lambda self, model, x, sd, seed: x)
    first = torch.cat(list(batches(cell, sd, tmp_path, 3, 0, False)))
    assert first.shape == (3, 4, sd.side // 8, sd.side // 8)
    monkeypatch.setattr(Cell, "sample", None)  # what would be called
    monkeypatch.setattr(sd, "vae", None)
    assert torch.equal(torch.cat(list(batches(cell, sd, tmp_path, 3, 0, False))), first)


def test_under_autocast_x_stays_float32_and_the_latents_are_nearly_the_same(sd):
    cell = Cell(10, "0.5")
    exact, half = (module.once(cell, sd, 0, 2, 0, bf16)()["latents"] for bf16 in (False, True))
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_too_few_pictures_are_refused(sd, tmp_path):
    with pytest.raises(Error, match="at least 2"):
        module.table1(sd, AttributeReader(), tmp_path, n=1)


def test_the_table_has_a_row_for_every_number_of_steps():
    lines = markdown({c.name: 1.5 for c in CELLS} | {"floor": 0.1}).splitlines()
    assert len(lines) == 2 + len(STEPS) + 2
    assert lines[2] == "| 10 | 1.50 | 1.50 | 1.50 | 1.50 | 1.50 |"
    assert lines[-1].endswith("floor 0.10")


def test_chosen_cells_give_their_figures_and_leave_a_finished_table_alone(sd, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "once", lambda *_: lambda: {"latents": torch.randn(2, 4, 16, 16)})
    monkeypatch.setattr(module, "pictures", lambda dolls: torch.zeros(len(dolls), 3, 128, 128))
    (tmp_path / "table1.json").write_text("finished")
    found = module.table1(sd, AttributeReader(), tmp_path, n=2, n_longest=2, cells=CELLS[:1])
    assert list(found) == ["floor", "floor 2", CELLS[0].name]
    assert (tmp_path / "table1.json").read_text() == "finished"
