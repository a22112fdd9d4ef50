"""The loop: it learns, resumes exactly, stops at nonsense, and two processes are one."""

import csv
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from minicc.errors import Error
from minicc.training import checkpoint
from minicc.training.draws import Draws, Order
from minicc.training.loop import learning_rate, train
from tests.training.toy import Rows, ToyStage, toy_config

ROOT = Path(__file__).resolve().parents[2]


def losses(out: Path) -> list[float]:
    with (out / "curves.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def final(out: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.checkpoints(out)[-1])


def assert_same_run(a: Path, b: Path) -> None:
    """Bit-identical weights, averages and optimizer, and the same loss at every step."""
    one, other = final(a), final(b)
    assert one.keys() == other.keys()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []
    assert losses(a) == losses(b)


def command(out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tests.training.toy", str(out), *options]


def test_the_loss_falls(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=300))
    assert np.mean(losses(tmp_path)[-50:]) < 0.8 * np.mean(losses(tmp_path)[:20])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(ToyStage(), Rows(), toy_config(tmp_path / name, seed=seed))
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


@pytest.mark.parametrize("stop", [5, 17])
def test_a_run_in_two_parts_ends_as_a_run_in_one(tmp_path, stop):
    train(ToyStage(), Rows(), toy_config(tmp_path / "one"))
    with pytest.raises(Stopped):
        train(ToyStage(), StopsAt(stop), toy_config(tmp_path / "two"))
    train(ToyStage(), Rows(), toy_config(tmp_path / "two"))
    assert_same_run(tmp_path / "one", tmp_path / "two")


class Stopped(Exception):
    pass


class StopsAt(Rows):
    """Data that breaks off in the middle of a step."""

    def __init__(self, step: int):
        super().__init__()
        self.last = 4 * step + 2

    def __getitem__(self, key: tuple[int, int]) -> dict:
        if key[1] >= self.last:
            raise Stopped
        return super().__getitem__(key)


def killed_at_random(out: Path, kills: int, seed: int, steps: int) -> int:
    """Run, kill with SIGKILL after a random time, again …; then to the end. Returns the kills that hit a live run."""
    random, hits = np.random.default_rng(seed), 0
    for _ in range(kills):
        process = subprocess.Popen(command(out, f"steps={steps}"), cwd=ROOT, stderr=subprocess.DEVNULL)
        wait_for_progress(out, process)
        time.sleep(random.uniform(0, 0.4))
        hits += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(out, f"steps={steps}"), cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    return hits


def wait_for_progress(out: Path, process: subprocess.Popen) -> None:
    """Until the run has written a checkpoint newer than it found."""
    before = set(checkpoint.checkpoints(out))
    while process.poll() is None and set(checkpoint.checkpoints(out)) == before:
        time.sleep(0.01)


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_and_resumed_ends_bit_identical(tmp_path, kills):
    steps = 500 * kills
    subprocess.run(command(tmp_path / "whole", f"steps={steps}"), cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    hits = killed_at_random(tmp_path / "killed", kills, seed=kills, steps=steps)
    assert hits >= kills / 2
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_checkpoint_cut_short_is_passed_over_for_the_one_before(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path / "whole"))
    train(ToyStage(), Rows(), toy_config(tmp_path / "cut"))
    newest = checkpoint.checkpoints(tmp_path / "cut")[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
        train(ToyStage(), Rows(), toy_config(tmp_path / "cut"))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_only_the_last_checkpoints_are_kept_and_no_temporary_file_is_left(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path, keep=2))
    assert [p.name for p in checkpoint.checkpoints(tmp_path)] == [
        "step-00000035.safetensors",
        "step-00000040.safetensors",
    ]
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_disk_that_is_full_says_so_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"x": torch.ones(3)}, {})

    def full(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(Error, match="No space left on device"):
        checkpoint.save(tmp_path, 2, {"x": torch.ones(3)}, {})
    step, tensors, _ = checkpoint.latest(tmp_path)
    assert step == 1
    assert torch.equal(tensors["x"], torch.ones(3))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder_is_an_error_that_names_it(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(Error, match="could not be written"):
        checkpoint.save(tmp_path / "run", 1, {"x": torch.ones(3)}, {})


def test_a_loss_that_is_not_a_number_stops_the_run_with_step_batch_and_checkpoint(tmp_path):
    with pytest.raises(Error, match=r"loss is nan at step \d+; batch: .*row 3.*step-\d+\.safetensors") as stopped:
        train(ToyStage(), Rows(200, broken=3), toy_config(tmp_path, steps=200, save_every=1))
    assert math.isfinite(losses(tmp_path)[-1] if losses(tmp_path) else 0.0)
    assert "Lower the learning rate" in str(stopped.value)


def test_running_out_of_memory_names_the_three_options_that_help(tmp_path):
    class Hungry(ToyStage):
        def forward(self, batch: dict, draws: Draws) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(Error, match=r"at step 0: .*--recompute.*--batch.*--accumulate.*--precision"):
        train(Hungry(), Rows(), toy_config(tmp_path))


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
