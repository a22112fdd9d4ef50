"""The loop: it learns, shows what it does, and two processes are one."""

import csv
import math
import os
import re
import subprocess
import sys
import types
import warnings
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from minicc.data import dolls
from minicc.errors import Error
from minicc.models.controlnet import ControlNet
from minicc.models.garment_ways import in_way
from minicc.small import small_controlnet, small_stable_diffusion
from minicc.training import checkpoint, start
from minicc.training.draws import Draws, Order
from minicc.training.ema import EMA
from minicc.training.loop import HELD_OUT, learning_rate, train
from minicc.training.phase2_stage import Phase2Stage
from minicc.training.precision import emulates_bfloat16
from minicc.training.stages import BaseStage, Phase1Stage
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
    batches = Order(9, 3, 0, 0, 12)
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


class Quiet(ToyStage):
    """Without noise, which is drawn a micro-batch at a time."""

    def forward(self, batch: dict, draws: Draws) -> torch.Tensor:
        return (self.net(batch["x"]) - batch["x"]).square().mean()


def test_two_accumulated_halves_are_one_batch(tmp_path):
    for name, batch, accumulate in (("whole", 4, 1), ("halves", 2, 2), ("half", 2, 1)):
        train(Quiet(), Rows(), toy_config(tmp_path / name, batch=batch, accumulate=accumulate))
    assert losses(tmp_path / "halves") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    assert losses(tmp_path / "half") != pytest.approx(losses(tmp_path / "whole"), rel=1e-2)


def test_a_stage_that_was_trained_in_half_precision_trains_in_float32_afterwards(tmp_path):
    class Watched(ToyStage):
        def forward(self, batch: dict, draws: Draws) -> torch.Tensor:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(batch, draws)

    stage, seen = Watched(), list[bool]()
    for name, precision in (("half", "bf16"), ("whole", "no")):
        train(stage, Rows(), toy_config(tmp_path / name, steps=1, precision=precision))
    assert seen == [True, False]
    stage(torch.utils.data.default_collate([Rows()[0, 0]]), Draws.at(0, 0))
    assert seen[2:] == [False]
    assert "forward" not in vars(stage)  # no circle that keeps a model on a GPU


def test_bf16_where_it_is_slower_warns(tmp_path, monkeypatch):
    for emulated, precision, warned in ((True, "bf16", 1), (False, "bf16", 0), (True, "no", 0)):
        monkeypatch.setattr(start, "emulates_bfloat16", lambda device, emulated=emulated: emulated)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            train(ToyStage(), Rows(), toy_config(tmp_path / f"{emulated} {precision}", steps=1, precision=precision))
        assert sum("float32 is faster: leave precision out" in str(w.message) for w in seen) == warned
    assert not emulates_bfloat16(torch.device("cuda"))


def test_a_gradient_is_clipped_to_its_largest_norm(tmp_path, monkeypatch):
    """With plain gradient descent the weights' step is the gradient."""
    sgd = lambda stage, config: torch.optim.SGD(stage.parameters(), lr=config.lr)  # noqa: E731
    monkeypatch.setattr(start, "optimizer_of", sgd)
    for clip, moved in ((0.25, 0.25), (1e6, None)):
        stage = Quiet()
        before = torch.cat([p.detach().flatten().clone() for p in stage.parameters()])
        config = toy_config(tmp_path / str(clip), steps=1, lr=1.0, warmup=0, decay="constant", ema=0.0, clip=clip)
        train(stage, Rows(), config)
        after = torch.cat([p.detach().flatten() for p in stage.parameters()])
        norm = (after - before).norm().item()
        assert norm == pytest.approx(moved or norm, rel=1e-4)
        assert moved or norm > 0.3


def test_the_models_that_draw_the_validation_pictures_go_where_the_stage_trains(tmp_path):
    stage, places = ToyStage(), []
    stage.sd = types.SimpleNamespace(to=places.append)
    train(stage, Rows(), toy_config(tmp_path, steps=1, device="cpu"))
    assert places == [torch.device("cpu")]


def test_no_clipping_is_infinity_and_not_0(tmp_path):
    with pytest.raises(Error, match=r"clip is 0: expected the largest norm of a gradient, or math\.inf"):
        toy_config(tmp_path, clip=0)
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=2, clip=math.inf))
    assert all(math.isfinite(loss) for loss in losses(tmp_path))


def test_the_first_of_ten_warm_up_steps_moves_a_tenth(tmp_path, monkeypatch):
    sgd = lambda stage, config: torch.optim.SGD(stage.parameters(), lr=config.lr)  # noqa: E731
    monkeypatch.setattr(start, "optimizer_of", sgd)
    moved = []
    for warmup in (0, 10):
        stage = Quiet()
        before = [p.detach().clone() for p in stage.parameters()]
        config = toy_config(tmp_path / str(warmup), steps=1, lr=1.0, warmup=warmup, decay="constant", ema=0.0)
        train(stage, Rows(), config)
        moved.append(torch.cat([(p.detach() - b).flatten() for p, b in zip(stage.parameters(), before, strict=True)]))
    assert moved[0].norm() > 0.1
    assert torch.allclose(moved[1], moved[0] / 10, rtol=1e-3, atol=1e-6)


def test_the_average_follows_its_formula_and_is_what_a_run_leaves(tmp_path):
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 1.0)
    average, expected = EMA(module, 0.15), 1.0
    for n, w in enumerate((3.0, -2.0, 5.0), start=1):
        torch.nn.init.constant_(module.weight, w)
        average.update()
        d = min(0.15, (1 + n) / (10 + n))  # the second while the average is young, then the first
        expected = d * expected + (1 - d) * w
        assert average.average["weight"].item() == pytest.approx(expected)
    stage = ToyStage()
    train(stage, Rows(), toy_config(tmp_path))
    saved = final(tmp_path)
    for name, value in stage.net.state_dict().items():
        assert torch.equal(value, saved[f"ema.{name}"])
        assert not torch.equal(value, saved[f"weights.{name}"])


def test_8_bit_adam_is_taken_from_bitsandbytes_resumes_and_is_missed_with_advice(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(Error, match="pip install bitsandbytes, or train without it"):
        train(ToyStage(), Rows(), toy_config(tmp_path / "missing", eight_bit=True))
    made = []

    class AdamW8bit(torch.optim.AdamW):
        """With what is particular about the real one's state: one table for all, a whole number, a nest."""

        table = torch.linspace(0, 1, 256)

        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)
            made.append(self)

        def step(self, closure: None = None) -> None:
            super().step(closure)
            for state in self.state.values():
                state |= {"qmap1": self.table, "steps": state.get("steps", 0) + 1}

        def state_dict(self) -> dict:
            whole = super().state_dict()
            nested = {i: {k: v for k, v in s.items() if k != "qmap1"} | {"nest": {}} for i, s in whole["state"].items()}
            return whole | {"state": nested}

    module = types.ModuleType("bitsandbytes.optim")
    module.AdamW8bit = AdamW8bit
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)
    train(ToyStage(), Rows(), toy_config(tmp_path / "whole", eight_bit=True, decay="constant"))
    for steps in (20, 40):
        train(ToyStage(), Rows(), toy_config(tmp_path / "parts", eight_bit=True, decay="constant", steps=steps))
    assert len(made) == 3
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert {(type(s["steps"]), s["steps"]) for s in made[-1].state.values()} == {(int, 40)}


class WideStage(ToyStage):
    """With two matrices of more than 4,096 numbers, which is where 8-bit Adam begins; below that it keeps float32."""

    def __init__(self) -> None:
        super().__init__()
        wide = nn.Sequential(nn.Linear(8, 640), nn.SiLU(), nn.Linear(640, 8))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in wide.parameters():
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))
        self.net = wide


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="pip install bitsandbytes, which also runs on a CPU")
def test_bitsandbytes_own_8_bit_adam_learns_and_resumes_bit_for_bit(tmp_path):
    options = {"eight_bit": True, "decay": "constant", "lr": 1e-2}
    train(WideStage(), Rows(), toy_config(tmp_path / "whole", **options))
    for steps in (20, 40):
        train(WideStage(), Rows(), toy_config(tmp_path / "parts", **options, steps=steps))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    state = final(tmp_path / "whole")
    assert {str(v.dtype) for k, v in state.items() if k.endswith("state1")} == {"torch.uint8", "torch.float32"}
    assert mean(losses(tmp_path / "whole")[-5:]) < 0.9 * mean(losses(tmp_path / "whole")[:5])


def test_validation_sheets_come_every_so_many_steps_and_at_the_end(tmp_path):
    class Shows(ToyStage):
        def sheet(self) -> Image.Image:
            return Image.new("RGB", (6, 4))

    train(Shows(), Rows(), toy_config(tmp_path, steps=5, sample_every=2))
    assert sorted(path.name for path in tmp_path.glob("sheet-*.png")) == [f"sheet-0000000{n}.png" for n in (2, 4, 5)]


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


LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]  # torchrun
# For several GPUs; told device="cpu", the loop runs on as many CPU processes. Port 0: any that is free.
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


def run_python(*words: str | Path) -> None:
    """A script of its own, of one thread."""
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_two_processes_have_the_losses_of_one_with_the_double_batch(tmp_path):
    """gloo on the CPU, two micro-batches a step, started by `accelerate launch`, and resumed by torchrun."""
    run_python(*ACCELERATE, "-m", "tests.training.toy", tmp_path / "two", "batch=4", "accumulate=2")
    train(ToyStage(), Rows(), toy_config(tmp_path / "one", batch=8, accumulate=2))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    run_python(*LAUNCH, "-m", "tests.training.toy", tmp_path / "two", "batch=4", "accumulate=2", "steps=60")
    train(ToyStage(), Rows(), toy_config(tmp_path / "one", batch=8, accumulate=2, steps=60))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)  # resumed by both


# A run of phase 2 whose second batch has no garment: layers that only see garments get no gradient there.
BARE = next(seed for seed in range(1000) if Draws.at(seed, 1).once() < Phase2Stage.without)


@pytest.mark.parametrize(
    "stage", ["phase1 --inside 4 --snr-gamma 1", f"phase2 --variant decoder --seed {BARE}"], ids=["phase1", "phase2"]
)
def test_two_processes_train_from_the_command_line_with_a_cold_cache_as_one_does(tmp_path, stage):
    """torchrun -m minicc.cli train …: what `accelerate launch` starts as well."""
    sd = small_stable_diffusion()
    sd.save(tmp_path / "sd.safetensors", layout="compvis")
    start = small_controlnet(sd).save(tmp_path / "start")
    dolls.export(tmp_path / "dolls", [dolls.draw(i) for i in range(6)], "pairs")
    options = f"--size 128 --device cpu --steps 3 --warmup 1 --lr 1e-4 --data {tmp_path / 'dolls'} --control {start}"
    command = ["-m", "minicc.cli", "train", *stage.split(), "--sd", tmp_path / "sd.safetensors", *options.split()]
    for launch, name, batch in ((LAUNCH, "two", "2"), ([], "one", "4")):
        where = ["--cache", tmp_path / f"cache-{name}", "--out", tmp_path / name, "--batch", batch]
        run_python(*launch, *command, *where)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    first = in_way(ControlNet.load(start), "decoder" if "decoder" in stage else "joint")
    runs = (ControlNet.load(tmp_path / name / "controlnet") for name in ("one", "two"))
    before, one, two = (
        torch.cat([v.flatten() for _, v in sorted(control.state_dict().items())]) for control in (first, *runs)
    )
    assert (one - before).abs().mean() > 20 * (one - two).abs().mean()
    assert not [path for path in tmp_path.rglob("*") if "tmp" in path.name]


def test_machines_that_see_different_checkpoints_are_told_that_they_must_share_them(tmp_path):
    """Each process with an --out of its own, as two machines without a common disk would have."""
    train(ToyStage(), Rows(), toy_config(tmp_path / "0", steps=5))
    script = (
        "import os, sys; from pathlib import Path; from tests.training.toy import *;"
        "train(ToyStage(), Rows(), toy_config(Path(sys.argv[1]) / os.environ['RANK']))"
    )
    (tmp_path / "apart.py").write_text(script)
    done = subprocess.run(
        [sys.executable, *LAUNCH, str(tmp_path / "apart.py"), str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "checkpoints of steps 0 and 5 on different machines: --out must be on a disk of all" in done.stderr


def test_a_checkpoint_beyond_the_last_step_is_said_to_be_the_result(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=10, decay="constant"))
    stage = ToyStage()
    with pytest.warns(UserWarning, match="holds a checkpoint of step 10, beyond --steps 5: nothing is learned"):
        assert np.isnan(train(stage, Rows(), toy_config(tmp_path, steps=5, decay="constant")))
    kept = checkpoint.without_prefix("ema", final(tmp_path))
    assert all(torch.equal(p, kept[name]) for name, p in stage.net.named_parameters())


def test_a_run_that_goes_on_with_another_seed_or_batch_says_so(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=5, decay="constant"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(ToyStage(), Rows(), toy_config(tmp_path, steps=10, decay="constant"))
    same = {"seed": 3, "batch": 8, "decay": "constant"}
    with pytest.warns(UserWarning, match="had seed 0 and goes on with 3 from step 10"):
        train(ToyStage(), Rows(), toy_config(tmp_path, steps=15, **same | {"batch": 4}))
    with pytest.warns(UserWarning, match="had batch 4 and goes on with 8"):
        train(ToyStage(), Rows(), toy_config(tmp_path, steps=20, **same))
    with pytest.warns(UserWarning, match=r"had lr 0\.01 and goes on with 0\.02"):
        train(ToyStage(), Rows(), toy_config(tmp_path, steps=25, **same, lr=0.02))
    with pytest.warns(UserWarning, match="had samples 37 and goes on with 40"):  # a folder that has grown
        train(ToyStage(), Rows(40), toy_config(tmp_path, steps=30, **same, lr=0.02))
    with pytest.warns(UserWarning, match=r"had ema 0\.9 and goes on with 0\.0"):
        train(ToyStage(), Rows(40), toy_config(tmp_path, steps=35, **same, lr=0.02, ema=0.0))


def test_a_cosine_that_goes_on_to_another_length_says_so(tmp_path):
    train(ToyStage(), Rows(), toy_config(tmp_path, steps=5))
    with pytest.warns(UserWarning, match="had steps 5 and goes on with 10 from step 5"):
        train(ToyStage(), Rows(), toy_config(tmp_path, steps=10))


@pytest.mark.parametrize("kind", ["base", "phase1", "phase2"])
def test_a_sheet_is_always_of_the_same_noise(kind):
    sd, grey = small_stable_diffusion(), torch.zeros(3, 32, 32)
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:24, 8:24] = 1
    shown = [{"image": grey, "mask": mask, "caption": "a red dress", "garment": red_square()}]
    stage = {
        "base": lambda: BaseStage(sd, shown=["a red dress", "a blue hat"]),
        "phase1": lambda: Phase1Stage(sd, small_controlnet(sd), shown=shown),
        "phase2": lambda: Phase2Stage(sd, small_controlnet(sd), shown=shown),
    }[kind]()
    first = stage.sheet().tobytes()
    torch.manual_seed(7)
    assert stage.sheet().tobytes() == first


def red_square() -> torch.Tensor:
    garment = torch.ones(3, 32, 32)
    garment[1:, 8:24, 8:24] = -1
    return garment


def test_the_learning_rate_warms_up_and_decays_to_a_tenth(tmp_path):
    config = toy_config(tmp_path, steps=100, warmup=10, lr=1.0)
    assert learning_rate(0, config) == pytest.approx(0.1)
    assert learning_rate(9, config) == pytest.approx(1.0)
    assert learning_rate(100, config) == pytest.approx(0.1)
