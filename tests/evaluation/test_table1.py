"""The DDIM paper's table 1: every cell samples, and a run that was stopped goes on where it was."""

import pytest
import torch

from minicc.errors import Error
from minicc.evaluation import table1 as module
from minicc.evaluation.metrics import frechet
from minicc.evaluation.table1 import CELLS, ETAS, STEPS, Cell, batches, markdown
from minicc.reader import AttributeReader


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
    a, b = (cell.sample(model, x, sd, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert len(asked) == 2 * cell.steps
    assert 0 <= min(asked) <= max(asked) < 1000


def test_finished_batches_are_not_computed_again_whatever_decodes_them(sd, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 2)
    cell = Cell(1, "0")
    monkeypatch.setattr(Cell, "sample", lambda self, model, x, sd, generator: x)
    first = torch.cat(list(batches(cell, sd, tmp_path, 3, 0, False)))
    assert first.shape == (3, 4, sd.side // 8, sd.side // 8)
    monkeypatch.setattr(Cell, "sample", None)  # what would be called
    monkeypatch.setattr(sd, "vae", None)
    assert torch.equal(torch.cat(list(batches(cell, sd, tmp_path, 3, 0, False))), first)


def test_the_steps_noise_is_not_x_T_again(sd, monkeypatch):
    """Else the first step adds twice what it should of x_T, and every cell of η > 0 is drawn from too much noise."""
    seen = []

    def sample(model, x, schedule, steps, *, generator, **options):
        seen.append((x, torch.randn(x.shape, generator=generator)))
        return x

    monkeypatch.setattr(module, "ddim_sample", sample)
    module.once(Cell(10, "1"), sd, ["a doll"] * 20, 0, False)()
    ((x, z),) = seen
    assert (x * z).mean().abs() < 0.05


def test_under_autocast_x_stays_float32_and_the_latents_are_nearly_the_same(sd):
    cell = Cell(10, "0.5")
    exact, half = (module.once(cell, sd, ["a doll", "a red hat"], 0, bf16)()["latents"] for bf16 in (False, True))
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_too_few_pictures_are_refused(sd, tmp_path):
    with pytest.raises(Error, match="at least 2"):
        module.table1(sd, AttributeReader(), tmp_path, n=1, n_longest=1)
    with pytest.raises(Error, match="n the more"):
        module.table1(sd, AttributeReader(), tmp_path, n=100)


def test_the_table_has_a_row_for_every_number_of_steps_and_the_longest_only_the_figure_of_few():
    few = {f"{name}, n=2": 1.4 for name in [*(c.name for c in CELLS), "others", "through the VAE"]}
    many = {f"{name[:-1]}5": 7.6 for name in few if "S=1000" not in name}
    lines = markdown(few | many, 5, 2).splitlines()
    assert len(lines) == 2 + len(STEPS) + 2
    assert lines[2] == "| 10 | 8 (1) | 8 (1) | 8 (1) | 8 (1) | 8 (1) |"
    assert lines[6] == "| 1000 | (1) | (1) | (1) | (1) | (1) |"
    assert lines[-1] == "DPM-Solver++ S=15 η=0: 8 (1); through the VAE: 8 (1); others: 8 (1)"


def test_chosen_cells_give_their_figures_and_leave_a_finished_table_alone(sd, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "once", lambda *_: lambda: {"latents": torch.randn(3, 4, 16, 16)})
    monkeypatch.setattr(module, "pictures", lambda dolls: torch.rand(len(dolls), 3, 128, 128))
    (tmp_path / "table1.json").write_text("finished")
    found = module.table1(sd, AttributeReader(), tmp_path, n=3, n_longest=2, cells=CELLS[:1])
    names = ["others", "through the VAE", CELLS[0].name]
    assert list(found) == [f"{name}, n={count}" for name in names for count in (3, 2)]
    assert all(value > 0 for value in found.values())
    assert (tmp_path / "table1.json").read_text() == "finished"


def test_a_distance_of_few_is_to_as_many_of_the_truth():
    x, y = (torch.randn(40, 3, generator=torch.Generator().manual_seed(i)) for i in range(2))
    found = module.of_all_and_few("a", x, y, 10)
    assert found == {"a, n=40": frechet(x, y), "a, n=10": frechet(x[:10], y[:10])}
    assert list(module.of_all_and_few("a", x[:10], y, 10)) == ["a, n=10"]
