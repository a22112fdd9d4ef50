"""Killed, cut short, out of disk, of memory or of numbers: a run resumes exactly, or says what happened."""

import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file

from minicc.cli import main
from minicc.errors import Error
from minicc.outfit.clothing import ClothingDetector
from minicc.reader import AttributeReader
from minicc.small import small_controlnet, small_stable_diffusion
from minicc.training import checkpoint, commands, start
from minicc.training.cache import kept
from minicc.training.curves import Curves
from minicc.training.detector_stage import DetectorStage
from minicc.training.draws import Draws
from minicc.training.loop import train
from minicc.training.phase2_stage import Phase2Stage
from minicc.training.reader_stage import ReaderStage, save_reader
from minicc.training.stage import Stage
from minicc.training.stages import BaseStage, Phase1Stage
from tests.training.runs import assert_same_run, losses
from tests.training.toy import Rows, ToyStage, toy_config

ROOT = Path(__file__).resolve().parents[2]


def command(out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tests.training.toy", str(out), *options]


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


OFTEN = ("save_every=25", "batch=2", "accumulate=2")  # checkpoints; a kill may come between two micro-batches


def killed_at_random(out: Path, kills: int, seed: int, steps: int) -> None:
    """Run, kill with SIGKILL after a random time, again …; then to the end. Every kill must hit a live run.

    Every fourth comes at any moment from the start on, while modules are imported or a checkpoint is put back, and the
    others a random time after a checkpoint was written.
    """
    random = np.random.default_rng(seed)
    for kill in range(kills):
        process = subprocess.Popen(command(out, f"steps={steps}", *OFTEN), cwd=ROOT, stderr=subprocess.DEVNULL)
        if kill % 4 != 3:
            wait_for_progress(out, process)
        time.sleep(random.uniform(0, 4 if kill % 4 == 3 else 0.4))
        assert process.poll() is None, "the run was over before it was killed: more steps are needed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(out, f"steps={steps}", *OFTEN), cwd=ROOT, check=True, stderr=subprocess.DEVNULL)


def wait_for_progress(out: Path, process: subprocess.Popen) -> None:
    """Until the run has written a checkpoint newer than it found."""
    before = set(checkpoint.checkpoints(out))
    while process.poll() is None and set(checkpoint.checkpoints(out)) == before:
        time.sleep(0.01)


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_and_resumed_ends_bit_identical(tmp_path, kills):
    steps = 1000 * kills
    subprocess.run(
        command(tmp_path / "whole", f"steps={steps}", *OFTEN), cwd=ROOT, check=True, stderr=subprocess.DEVNULL
    )
    killed_at_random(tmp_path / "killed", kills, seed=kills, steps=steps)
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


def test_what_a_killed_run_was_writing_is_cleared_away(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=5))
    for name in (
        "step-00000006.safetensors.77.tmp",
        "curves.csv.77.tmp",
        ".tmpAbCdEf",
    ):  # the last: what safetensors writes first
        (tmp_path / name).write_bytes(b"half")
    for name in ("notes.tmp", ".tmp-drafts", "my.tmp.png"):  # the user's own
        (tmp_path / name).write_bytes(b"whole")
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=10))
    assert {p.name for p in tmp_path.iterdir() if "tmp" in p.name} == {"notes.tmp", ".tmp-drafts", "my.tmp.png"}
    assert checkpoint.latest(tmp_path)[0] == 10


class Convolves(ToyStage):
    """With a kernel whose place in memory channels-last changes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.net = torch.nn.Conv2d(2, 3, 3, padding=1)
        with torch.no_grad():
            self.net.weight.copy_(torch.randn(self.net.weight.shape, generator=generator))
            self.net.bias.zero_()

    def forward(self, batch: dict, draws: Draws) -> torch.Tensor:
        x = batch["x"].view(-1, 2, 2, 2)
        return (self.net(x + draws.randn_like(x))[:, :2] - x).square().mean()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_channels_last_run_in_two_parts_ends_as_in_one(tmp_path, optimizer):
    options = {"channels_last": True, "decay": "constant", "optimizer": optimizer}
    train(Convolves(), Rows(), toy_config(tmp_path / "one", **options))
    for steps in (20, 40):
        train(Convolves(), Rows(), toy_config(tmp_path / "two", steps=steps, **options))
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_a_run_of_another_optimizer_is_not_resumed(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=5))
    with pytest.raises(Error, match="checkpoints of another run"):
        train(ToyStage(), Rows(), toy_config(tmp_path, steps=10, optimizer="muon"))


@pytest.mark.parametrize("kind", [lambda words: OSError(28, words), SafetensorError], ids=["os", "safetensors"])
def test_a_disk_that_is_full_says_so_and_leaves_the_last_checkpoint(tmp_path, monkeypatch, kind):
    checkpoint.save(tmp_path, 1, {"x": torch.ones(3)}, {})

    def full(*_args: object, **_options: object) -> None:
        raise kind("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(Error, match="No space left on device"):
        checkpoint.save(tmp_path, 2, {"x": torch.ones(3)}, {})
    step, tensors, _ = checkpoint.latest(tmp_path)
    assert step == 1
    assert torch.equal(tensors["x"], torch.ones(3))


def test_a_disk_with_no_room_for_another_checkpoint_stops_the_run_and_keeps_the_one_before(tmp_path):
    """The operating system's own limit on a file's size, in the place of a disk that fills up."""
    train(ToyStage(), Rows(), toy_config(tmp_path / "whole"))
    limit = checkpoint.checkpoints(tmp_path / "whole")[-1].stat().st_size - 100
    script = f"import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);\
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); from pathlib import Path;\
from tests.training.toy import *; train(ToyStage(), Rows(), toy_config(Path(sys.argv[1])))"
    train(ToyStage(), Rows(), toy_config(tmp_path / "full", steps=5, decay="constant"))
    words = [sys.executable, "-B", "-c", script, str(tmp_path / "full")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert re.search(r"Error: .*could not be written \(.*\): free disk space or choose another --out", done.stderr)
    assert [p.name for p in checkpoint.checkpoints(tmp_path / "full")] == ["step-00000005.safetensors"]
    assert not [p for p in (tmp_path / "full").iterdir() if "tmp" in p.name]


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Written, synchronised, renamed, and then the folder's entry synchronised: in no other order."""
    done = []
    real = checkpoint.save_file, checkpoint.sync, os.replace
    monkeypatch.setattr(checkpoint, "save_file", lambda *a, **k: (real[0](*a, **k), done.append("write"))[0])
    monkeypatch.setattr(checkpoint, "sync", lambda path: (real[1](path), done.append(f"sync {path.suffix}"))[0])
    monkeypatch.setattr(os, "replace", lambda *a: (real[2](*a), done.append("rename"))[0])
    monkeypatch.setattr(os, "fsync", lambda _: done.append("fsync"))
    checkpoint.save(tmp_path, 1, {"x": torch.ones(3)}, {})
    assert done == ["write", "fsync", "sync .tmp", "rename", "fsync", "sync "]


@contextmanager
def without_the_power_to_write(folder: Path) -> Iterator[None]:
    """A read-only folder, and where the tests run as root, which writes anywhere, another user for as long."""
    root = os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        os.seteuid(65534)  # nobody
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_read_only_folder_is_an_error_that_names_it_and_stays_as_it_was(open_folder):
    checkpoint.save(open_folder, 1, {"x": torch.ones(3)}, {})
    for begin in (
        lambda: train(ToyStage(), Rows(), toy_config(open_folder / "run")),
        lambda: checkpoint.save(open_folder, 2, {"x": torch.ones(3)}, {}),
    ):
        with (
            without_the_power_to_write(open_folder),
            pytest.raises(Error, match=r"could not be written.*denied.*--out"),
        ):
            begin()
    assert [path.name for path in open_folder.iterdir()] == ["step-00000001.safetensors"]


def test_a_disk_that_fills_up_in_the_middle_of_a_run_stops_it_and_it_goes_on_from_the_last_good_one(
    tmp_path, monkeypatch
):
    train(ToyStage(), Rows(), toy_config(tmp_path / "whole"))
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", full_after(3))
        with pytest.raises(Error, match=r"step-00000020\.safetensors could not be written.*No space left"):
            train(ToyStage(), Rows(), toy_config(tmp_path / "full"))
    assert checkpoint.latest(tmp_path / "full")[0] == 15
    train(ToyStage(), Rows(), toy_config(tmp_path / "full"))
    assert_same_run(tmp_path / "whole", tmp_path / "full")


def full_after(writes: int) -> Callable[..., None]:
    """A save_file for a disk with room for so many files; the next is cut short."""
    left = [writes]

    def write(tensors: dict, path: Path, **options: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        save_file(tensors, path, **options)

    return write


def test_the_best_checkpoint_is_kept_beside_the_last_ones(tmp_path):
    for step, valid in enumerate([0.9, 0.2, 0.5, 0.4, 0.3], start=1):
        checkpoint.save(tmp_path, step, {"x": torch.ones(3)}, {"valid": valid}, keep=2)
    assert [int(path.stem[-1]) for path in checkpoint.checkpoints(tmp_path)] == [2, 4, 5]
    assert checkpoint.best(tmp_path) == tmp_path / "step-00000002.safetensors"
    assert checkpoint.latest(tmp_path)[0] == 5


def test_damaged_checkpoints_that_lie_ahead_do_not_crowd_out_the_one_just_written(tmp_path):
    for step in (10, 20, 30):
        checkpoint.save(tmp_path, step, {"x": torch.ones(2)}, {}, keep=3)
    for ahead in checkpoint.checkpoints(tmp_path)[1:]:
        ahead.write_bytes(ahead.read_bytes()[:-4])
    assert checkpoint.newest(tmp_path).name == "step-00000010.safetensors"
    written = checkpoint.save(tmp_path, 15, {"x": torch.ones(2)}, {}, keep=1)
    assert written.is_file()
    assert checkpoint.newest(tmp_path) == written
    with pytest.warns(UserWarning, match="is damaged"):
        assert checkpoint.latest(tmp_path)[0] == 15
    checkpoint.save(tmp_path, 35, {"x": torch.ones(2)}, {}, keep=2)
    assert [int(path.stem[-2:]) for path in checkpoint.checkpoints(tmp_path)] == [15, 35]


def test_a_damaged_checkpoint_is_not_the_best_and_without_validation_there_is_none(tmp_path):
    checkpoint.save(tmp_path, 1, {"x": torch.ones(3)}, {})
    assert checkpoint.best(tmp_path) is None
    checkpoint.save(tmp_path, 2, {"x": torch.ones(3)}, {"valid": 0.1})
    path = checkpoint.save(tmp_path, 3, {"x": torch.ones(3)}, {"valid": 0.0})
    path.write_bytes(path.read_bytes()[:40])
    assert checkpoint.best(tmp_path).stem == "step-00000002"


def test_the_checkpoints_of_another_run_are_refused(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=5))

    class Wider(ToyStage):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(8, 8)

    class Frozen(ToyStage):
        def __init__(self) -> None:
            super().__init__()
            self.net[0].requires_grad_(False)

    for other in (Wider, Frozen):
        with pytest.raises(Error, match=r"holds checkpoints of another run.*choose another --out"):
            train(other(), Rows(), toy_config(tmp_path, steps=10))


def test_memory_that_runs_out_while_a_checkpoint_is_loaded_is_not_another_run(tmp_path):
    """As on a GPU that a process which should be dead still holds."""
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=5))

    class Crowded(ToyStage):
        @property
        def trained(self) -> torch.nn.Module:
            def hungry(state: dict) -> None:
                raise torch.OutOfMemoryError("CUDA out of memory")

            self.net.load_state_dict = hungry
            return self.net

    with pytest.raises(Error, match=r"^out of memory while the checkpoint is loaded: .*--batch"):
        train(Crowded(), Rows(), toy_config(tmp_path, steps=10))


def test_where_every_checkpoint_is_damaged_the_run_says_that_it_begins_anew(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=10))
    for path in checkpoint.checkpoints(tmp_path):
        path.write_bytes(path.read_bytes()[:40])
    with pytest.warns(UserWarning, match="damaged") as said:
        train(ToyStage(), Rows(), toy_config(tmp_path, steps=10))
    assert ["anew" in str(one.message) for one in said] == [False, True]
    assert len(losses(tmp_path)) == 10


def test_curves_with_lines_that_are_none_are_gone_on_with(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path / "whole"))
    train(ToyStage(), Rows(), toy_config(tmp_path / "cut", steps=40))
    checkpoint.checkpoints(tmp_path / "cut")[-1].unlink()
    lines = (tmp_path / "cut" / "curves.csv").read_bytes().splitlines(keepends=True)
    lines[0] = b"st\0p,loss,lr,norm\r\n"
    lines[3:3] = [b"\0" * 200_000 + b"\n", b"17,?,1,1\n", b"\xff\xfe\n", b"x,1,1,1\n", b'"\n', b"18,1\n"]
    lines.append(b"35,0.5,0.1,0.2")  # cut short in the middle of its last number
    (tmp_path / "cut" / "curves.csv").write_bytes(b"".join(lines))
    train(ToyStage(), Rows(), toy_config(tmp_path / "cut"))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_checkpoint_written_before_validation_existed_is_resumed(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path / "whole"), held_out=Rows(9))
    with pytest.raises(Stopped):
        train(ToyStage(), StopsAt(17), toy_config(tmp_path / "old"))
    (tmp_path / "old" / "valid.csv").unlink()
    train(ToyStage(), Rows(), toy_config(tmp_path / "old"), held_out=Rows(9))
    assert_same_run(tmp_path / "whole", tmp_path / "old")


def test_half_precision_resumes_exactly_and_rounds_otherwise_and_no_more(tmp_path):
    """On the CPU in bf16; tests/gpu has fp16 with its loss scale."""
    train(ToyStage(), Rows(), toy_config(tmp_path / "half", precision="bf16"))
    with pytest.raises(Stopped):
        train(ToyStage(), StopsAt(17), toy_config(tmp_path / "two", precision="bf16"))
    train(ToyStage(), Rows(), toy_config(tmp_path / "two", precision="bf16"))
    assert_same_run(tmp_path / "half", tmp_path / "two")
    train(ToyStage(), Rows(), toy_config(tmp_path / "whole"))
    assert losses(tmp_path / "half") != losses(tmp_path / "whole")
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "whole"), rel=0.02)
    with pytest.raises(Error, match="precision fp16 is a GPU's"):
        train(ToyStage(), Rows(), toy_config(tmp_path / "fp16", precision="fp16"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps is 0: expected 1 or more"),
        ({"batch": -1}, "batch is -1"),
        ({"lr": math.nan}, "lr is nan"),
        ({"ema": 1.0}, "ema is 1.0: expected a decay below 1"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"decay": "linear"}, "decay is 'linear'"),
    ],
)
def test_values_that_make_no_sense_are_refused_before_anything_is_written(tmp_path, changes, words):
    with pytest.raises(Error, match=words):
        toy_config(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_gradient_that_is_not_a_number_stops_the_run_before_it_reaches_the_weights(tmp_path):
    class Steep(ToyStage):
        """A finite loss whose gradient is infinite: √x at 0."""

        def forward(self, batch: dict, draws: Draws) -> torch.Tensor:
            return super().forward(batch, draws) + (0 * self.net[0].weight).sum().sqrt()

    stage = Steep()
    before = {k: v.clone() for k, v in stage.state_dict().items()}
    with pytest.raises(Error, match=r"gradient norm is nan at step 0; batch: row \d+, .*no checkpoint yet"):
        train(stage, Rows(), toy_config(tmp_path))
    assert all(torch.equal(before[k], v) for k, v in stage.state_dict().items())


def test_a_run_that_ends_in_an_error_leaves_no_file_open(tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(Curves, "close", lambda curves: closed.append(curves.folder))
    with pytest.raises(Error, match="loss is nan"):
        train(ToyStage(), Rows(broken=3), toy_config(tmp_path))
    assert closed == [tmp_path]


def test_a_gradient_that_is_never_a_number_stops_a_run_in_fp16_too(tmp_path, monkeypatch):
    """There a step whose gradient overflows is skipped and the loss's scale halved; here no scale is small enough."""

    class Steep(ToyStage):
        def forward(self, batch: dict, draws: Draws) -> torch.Tensor:
            return super().forward(batch, draws) + (0 * self.net[0].weight).sum().sqrt()

    made = start.new_accelerator

    def with_scaler(*arguments: object) -> object:
        accelerator = made(*arguments)
        accelerator.scaler = torch.amp.GradScaler("cpu")
        return accelerator

    monkeypatch.setattr(start, "new_accelerator", with_scaler)
    with pytest.raises(Error, match=r"gradient norm is nan at step 27; batch: row .*Lower the learning rate"):
        train(Steep(), Rows(), toy_config(tmp_path))


@pytest.mark.parametrize(("broken", "number"), [(math.nan, "nan"), (1e30, "inf")])
def test_a_loss_that_is_not_a_number_stops_the_run_with_step_batch_and_checkpoint(tmp_path, broken, number):
    with pytest.raises(Error, match=rf"loss is {number} at step \d+; batch: .*row 3.*step-\d+\.safetensors") as stopped:
        train(ToyStage(), Rows(200, broken=3, number=broken), toy_config(tmp_path, steps=200, save_every=1))
    assert math.isfinite(losses(tmp_path)[-1] if losses(tmp_path) else 0.0)
    assert "Lower the learning rate" in str(stopped.value)


@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried 9 GB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=["CUDA", "MPS", "CPU", "cuBLAS", "Python"],
)
def test_running_out_of_memory_names_the_three_options_that_help(tmp_path, problem):
    class Hungry(ToyStage):
        def forward(self, batch: dict, draws: Draws) -> torch.Tensor:
            raise problem

    with pytest.raises(Error, match=r"at step 0: .*--recompute.*--batch.*--accumulate.*--precision"):
        train(Hungry(), Rows(), toy_config(tmp_path))


def test_what_is_advised_where_memory_runs_out_are_options_that_the_stage_has(capsys):
    """The locked models of the phases are halved by both options of half precision; a reader does not recompute."""
    sd = small_stable_diffusion()
    phase1 = Phase1Stage(sd, small_controlnet(sd))
    assert "--dtype bfloat16 --precision bf16" in phase1.lighter
    others = ReaderStage(AttributeReader()), DetectorStage(sd, ClothingDetector([1]))
    assert not any("--recompute" in stage.lighter for stage in others)
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert "--eight-bit" in BaseStage.lighter  # AdamW's two numbers a weight are half of all that a base needs
    for stage in (ToyStage(), phase1, BaseStage(sd), *others):
        advised = set(re.findall(r"--[a-z-]+", stage.lighter))
        assert len(advised) >= 4  # three ways, one of which is a pair
        assert advised <= known


@pytest.mark.parametrize("stage", ["reader", "detector", "phase1", "phase2", "vae", "base"])
def test_what_is_advised_is_not_refused(tmp_path, monkeypatch, stage):
    kinds = {"reader": ReaderStage, "detector": DetectorStage, "phase1": Phase1Stage, "phase2": Phase2Stage}
    kind = (kinds | {"base": BaseStage}).get(stage, Stage)
    monkeypatch.setattr(commands, f"train_{stage}", lambda a, config: config.out)
    values = {"--batch": ["1"], "--accumulate": ["2"], "--precision": ["bf16"], "--dtype": ["bfloat16"]}
    options = [word for name in re.findall(r"--[a-z-]+", kind.lighter) for word in (name, *values.get(name, []))]
    assert main(["train", stage, "--out", str(tmp_path), *options]) == 0


def test_memory_that_runs_out_outside_the_steps_is_said_as_well(tmp_path, monkeypatch, capsys):
    def hungry(*_):
        raise MemoryError

    monkeypatch.setattr(commands, "draw_dolls", hungry)
    assert main(["train", "base", "--device", "cpu", "--out", str(tmp_path)]) == 2
    assert "out of memory outside the steps: take fewer --dolls" in capsys.readouterr().err


def test_memory_that_runs_out_for_a_validation_sheet_is_said_as_well(tmp_path):
    class Shows(ToyStage):
        def sheet(self) -> Image.Image:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(Error, match=r"out of memory at step 4: .*--recompute"):
        train(Shows(), Rows(), toy_config(tmp_path, steps=5))
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-00000005.safetensors"]


def test_a_sheet_that_a_run_did_not_come_to_is_drawn_when_it_goes_on(tmp_path):
    class Shows(ToyStage):
        hungry = True

        def sheet(self) -> Image.Image:
            if self.hungry:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return Image.new("RGB", (8, 8))

    stage = Shows()
    with pytest.raises(Error, match="out of memory at step 4"):
        train(stage, Rows(), toy_config(tmp_path, steps=5))
    with pytest.raises(Error, match="out of memory for a validation sheet"):
        train(stage, Rows(), toy_config(tmp_path, steps=5))
    stage.hungry = False
    train(stage, Rows(), toy_config(tmp_path, steps=5))
    assert (tmp_path / "sheet-00000005.png").is_file()
    assert (tmp_path / "curves.png").is_file()


def test_a_place_for_caches_or_results_that_cannot_be_written_is_one_clear_error(open_folder):
    control = small_controlnet(small_stable_diffusion())
    with without_the_power_to_write(open_folder):
        with pytest.raises(Error, match=r"could not be written.*denied.*choose another --cache"):
            kept(open_folder / "cache" / "x.safetensors", "d", lambda: {"x": torch.ones(3)})
        with pytest.raises(Error, match=r"could not be written.*denied"):
            control.save(open_folder / "controlnet")
        for save in (
            lambda: save_reader(AttributeReader(), open_folder / "reader"),
            lambda: ClothingDetector([1]).save(open_folder / "detector"),
        ):
            with pytest.raises(Error, match=r"model\.safetensors could not be written.*denied"):
                save()
    assert list(open_folder.iterdir()) == []


def test_what_a_killed_run_left_in_a_folder_that_became_read_only_is_one_clear_error(open_folder):
    (open_folder / "step-00000001.safetensors.123.tmp").write_bytes(b"half")
    with without_the_power_to_write(open_folder), pytest.raises(Error, match=r"could not be written.*denied.*--out"):
        train(ToyStage(), Rows(), toy_config(open_folder))
    assert len(list(open_folder.iterdir())) == 1


def test_a_device_that_training_would_not_run_on_is_refused(tmp_path):
    with pytest.raises(Error, match="device='meta', but training would run on"):
        train(ToyStage(), Rows(), toy_config(tmp_path, device="meta"))
    with pytest.raises(Error, match="device='abacus' is not on this machine"):
        train(ToyStage(), Rows(), toy_config(tmp_path, device="abacus"))


def test_another_error_in_a_step_is_not_taken_for_want_of_memory(tmp_path):
    class Broken(ToyStage):
        def forward(self, batch: dict, draws: Draws) -> torch.Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        train(Broken(), Rows(), toy_config(tmp_path))
