"""The loop: it learns, shows what it does, and two processes are one."""

import csv
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minicc.training import checkpoint
from minicc.training.draws import Draws, Order
from minicc.training.loop import HELD_OUT, learning_rate, train
from tests.training.runs import assert_same_run, final, losses
from tests.training.toy import Rows, ToyStage, toy_config

ROOT = Path(__file__).resolve().parents[2]


def test_the_loss_falls(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=300))
    assert np.mean(losses(tmp_path)[-50:]) < 0.8 * np.mean(losses(tmp_path)[:20])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(ToyStage(), Rows(), toy_config(tmp_path / name, seed=seed))
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


def test_the_validation_loss_is_the_averages_on_the_same_draws_and_changes_nothing(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path / "with", save_every=10), held_out=Rows(9))
    train(ToyStage(), Rows(), toy_config(tmp_path / "without", save_every=10))
    assert_same_run(tmp_path / "with", tmp_path / "without")
    with (tmp_path / "with" / "valid.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [10, 20, 30, 40]
    saved = checkpoint.checkpoints(tmp_path / "with")[-1]
    stage = ToyStage()
    stage.net.load_state_dict({k: final(tmp_path / "with")[f"ema.{k}"] for k in stage.net.state_dict()})
    batches = Order(9, 4, 0, 0, 9)
    expected = []
    for i, keys in enumerate(batches):
        x = torch.stack([Rows(9)[key]["x"] for key in keys])
        expected.append(stage({"x": x}, Draws.at(0, HELD_OUT + i)).item())
    assert checkpoint.validation_loss(saved) == pytest.approx(np.mean(expected), rel=1e-6)
    assert float(rows[-1]["valid"]) == checkpoint.validation_loss(saved)


def test_tensorboard_gets_every_number_and_picture_if_it_is_installed(tmp_path, monkeypatch):
    seen: list[tuple] = []

    class SummaryWriter:
        def __init__(self, folder: Path, purge_step: int) -> None:
            seen.append(("open", folder.name, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, step))

        def add_image(self, name: str, pixels: np.ndarray, step: int, dataformats: str) -> None:
            seen.append((name, step, pixels.shape, dataformats))

        def close(self) -> None:
            seen.append(("close",))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)

    class Shows(ToyStage):
        def sheet(self) -> Image.Image:
            return Image.new("RGBA", (6, 4))

    train(Shows(), Rows(), toy_config(tmp_path, steps=5), held_out=Rows(9))
    assert seen[0] == ("open", "tensorboard", 1)
    assert [entry for entry in seen if entry[0] == "loss"] == [("loss", step) for step in range(1, 6)]
    assert ("valid", 5) in seen
    assert ("sheet", 5, (4, 6, 3), "HWC") in seen
    assert seen[-1] == ("close",)


def test_the_progress_bar_shows_loss_speed_time_left_and_memory(tmp_path, capsys):
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=5))
    bar = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"5/5 \[\d\d:\d\d<\d\d:\d\d, .*( steps/s|s/ steps), loss=\d.*, memory=\d.* GB\]", bar), bar


def test_compile_asks_for_the_heavy_modules_and_leaves_their_names(tmp_path, monkeypatch):
    """With a backend that compiles nothing; the slow test does it in earnest."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    stage = ToyStage()
    train(stage, Rows(), toy_config(tmp_path, steps=5, compile=True))
    assert compiled == [stage.net]


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_of_a_plain_one_and_the_same_checkpoint_keys(tmp_path):
    for name, compile_ in (("plain", False), ("compiled", True)):
        train(ToyStage(), Rows(), toy_config(tmp_path / name, compile=compile_))
    assert final(tmp_path / "plain").keys() == final(tmp_path / "compiled").keys()
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)


def test_channels_last_changes_nothing_but_the_order_of_sums(tmp_path):
    for name, channels_last in (("plain", False), ("last", True)):
        train(ToyStage(), Rows(), toy_config(tmp_path / name, channels_last=channels_last))
    assert losses(tmp_path / "last") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)


def test_accumulation_of_two_halves_equals_one_batch(tmp_path):
    """The noise differs (it is drawn a micro-batch at a time), so the toy's loss is compared without noise."""
    stage, batch = ToyStage(), [Rows()[i, i] for i in range(4)]
    x = torch.stack([b["x"] for b in batch])
    whole = (stage.net(x) - x).square().mean()
    halves = sum((stage.net(h) - h).square().mean() / 2 for h in x.chunk(2))
    grads = [torch.autograd.grad(loss, stage.net.parameters()) for loss in (whole, halves)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_every_epoch_visits_every_sample_once_in_another_order():
    visited = [index for batch in Order(10, 5, seed=0, start=0, stop=4) for index, _ in batch]
    assert sorted(visited[:10]) == sorted(visited[10:]) == list(range(10))
    assert visited[:10] != visited[10:]


def test_the_processes_share_out_the_batch_and_the_noise_of_one():
    whole = next(iter(Order(100, 8, seed=1, start=3, stop=4)))
    parts = [next(iter(Order(100, 4, seed=1, start=3, stop=4, rank=rank, world=2))) for rank in range(2)]
    assert parts[0] + parts[1] == whole
    one = Draws.at(5, 7).randn_like(torch.zeros(8, 3))
    two_ = [Draws.at(5, 7, rank, 2).randn_like(torch.zeros(4, 3)) for rank in range(2)]
    assert torch.equal(torch.cat(two_), one)


def test_two_processes_have_the_losses_of_one_with_the_double_batch(tmp_path):
    """gloo on the CPU, started by torchrun (`accelerate launch --multi_cpu` does the same)."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [*launch, "-m", "tests.training.toy", str(tmp_path / "two"), "batch=4"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    train(ToyStage(), Rows(), toy_config(tmp_path / "one", batch=8))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def test_the_learning_rate_warms_up_and_decays_to_a_tenth(tmp_path):
    config = toy_config(tmp_path, steps=100, warmup=10, lr=1.0)
    assert learning_rate(0, config) == pytest.approx(0.1)
    assert learning_rate(9, config) == pytest.approx(1.0)
    assert learning_rate(100, config) == pytest.approx(0.1)
