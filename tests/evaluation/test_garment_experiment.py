"""The comparison of ways to see a garment: same data, same budget, one table; what was measured is not done again."""

from dataclasses import replace

import pytest

from minicc.errors import Error
from minicc.evaluation import garment_experiment
from minicc.evaluation.garment_experiment import ARMS, compare, table
from minicc.reader import AttributeReader
from minicc.small import small_controlnet, small_stable_diffusion
from minicc.training.config import TrainConfig
from minicc.training.tiny import seeded


def test_arms_are_trained_measured_and_kept(tmp_path, monkeypatch):
    sd = small_stable_diffusion()
    start, reader = small_controlnet(sd), seeded(AttributeReader, 0)
    before = {k: v.clone() for k, v in start.state_dict().items()}
    config = TrainConfig(tmp_path / "out", steps=1, batch=2, device="cpu", sample_every=10)
    chosen = [arm for arm in ARMS if arm.name in ("words", "joint-positions-taught")]
    options = {"arms": chosen, "dolls": 4, "n": 2, "sampling": 1}
    rows = list(compare(sd, start, reader, config, tmp_path / "cache", **options))
    assert [arm.name for arm, _ in rows] == ["words", "joint-positions-taught"]
    assert all(found["outside_max"] == 0 and found["start"] > 0 for _, found in rows)
    assert rows[0][1]["correspondence"] is None
    assert 0 < rows[1][1]["correspondence"] < 1
    assert all((v == before[k]).all() for k, v in start.state_dict().items())
    assert len(table(rows)) == 4

    def refuse(*_: object) -> float:
        raise AssertionError("trained again")

    monkeypatch.setattr(garment_experiment, "train", refuse)
    assert list(compare(sd, start, reader, config, tmp_path / "cache", **options)) == rows
    with pytest.raises(Error, match=r"holds the figures of \{'steps': 1, .*, not of \{'steps': 2, .*choose another"):
        list(compare(sd, start, reader, replace(config, steps=2), tmp_path / "cache", **options))
