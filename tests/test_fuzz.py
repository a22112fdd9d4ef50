"""Whatever a user hands in: a result or the package's own clear error; no crash, no code run, no path outside.

A short form in every run; `pytest -m slow tests/test_fuzz.py` gives each of the eleven doors 1,500 inputs.
"""

import io
import json
import pickle
import shutil
import signal
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from minicc.cli import main
from minicc.data.folder import PictureFolder, read_folder
from minicc.data.pictures import open_mask, open_picture
from minicc.diffusion.schedule import NoiseSchedule
from minicc.errors import Error
from minicc.evaluation import bench
from minicc.models.controlnet import ControlNet
from minicc.models.unet import UNetConfig
from minicc.models.vae import VAEConfig
from minicc.outfit import demo
from minicc.outfit.clothing import ClothingDetector, features
from minicc.outfit.compose import read_mask
from minicc.small import small_controlnet, small_stable_diffusion
from minicc.training import checkpoint, commands
from minicc.training.cache import kept
from minicc.training.shards import Shards, write_shards
from minicc.weights.load import load_controlnet, load_stable_diffusion
from minicc.weights.read import read_state_dict

inputs = pytest.mark.parametrize("examples", [60, pytest.param(1500, marks=pytest.mark.slow)])


def attack(door: Callable[[Any], object], strategy: st.SearchStrategy, examples: int) -> None:
    """Put many inputs through a door: it may return, or raise Error."""

    @settings(max_examples=examples, deadline=60_000, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def one(value: Any) -> None:
        with warnings.catch_warnings(), no_longer_than(60):
            warnings.simplefilter("ignore")
            try:
                door(value)
            except Error as problem:
                assert str(problem)

    one()


class Hang(BaseException):
    """No Exception, which a door might catch."""


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """A door that hangs is stopped, and fails. Where there are alarms: not on Windows."""

    def stop(*_: object) -> None:
        raise Hang(f"no answer in {seconds} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutated(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Seeds with bytes changed, cut, doubled or put in; or no seed at all."""

    def change(seed: bytes, edits: list[tuple[int, bytes, int]]) -> bytes:
        data = bytearray(seed)
        for place, new, drop in edits:
            at = place % (len(data) + 1)
            data[at : at + drop] = new
        return bytes(data)

    edit = st.tuples(st.integers(0, 2**20), st.binary(max_size=8), st.integers(0, 64))
    changed = st.builds(change, st.sampled_from(seeds), st.lists(edit, min_size=1, max_size=4))
    return st.one_of(changed, st.binary(max_size=200))


def pictures() -> list[bytes]:
    """Small pictures of many formats and modes."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise, "RGBA")
    found = []
    for mode, format_ in [("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("1", "PNG"), ("L", "JPEG"),
                          ("CMYK", "JPEG"), ("RGB", "WEBP"), ("P", "GIF"), ("CMYK", "TIFF")]:  # fmt: skip
        file = io.BytesIO()
        (rgba.convert("L").convert("I").convert("I;16") if mode == "I;16" else rgba.convert(mode)).save(file, format_)
        found.append(file.getvalue())
    return found


@inputs
def test_picture_and_mask_files(tmp_path, examples):
    path = tmp_path / "picture.png"

    def door(data: bytes) -> None:
        path.write_bytes(data)
        picture = open_picture(path)
        assert picture.mode in ("RGB", "RGBA")
        read_mask(open_mask(path), picture.size)

    attack(door, mutated(pictures()), examples)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
NAMES = ["0.png", "../secret.png", "/etc/hostname", "sub/../../secret.png", "C:\\x.png", "", ".", "\0", "0.png/", "~"]


@inputs
def test_metadata_of_a_folder(tmp_path, examples):
    folder = tmp_path / "data"
    folder.mkdir()
    for file in (folder / "0.png", tmp_path / "secret.png"):
        Image.new("RGB", (8, 8), "red" if file.parent == folder else "blue").save(file)
    names = (
        "file_name mask_file_name text person_a mask_a person_b mask_b caption_a changed x garment_a garment_b "
        "target_file_name target_mask_file_name garment_file_name"
    )
    keys = st.sampled_from(names.split())
    row = st.dictionaries(keys, st.one_of(st.sampled_from(NAMES), json_values), max_size=6).map(json.dumps)

    cells = st.lists(st.sampled_from(NAMES), max_size=6).map(",".join)
    columns = b"file_name,mask_file_name,text,person_a,mask_a,garment_a\n"

    def door(given: tuple[str, list[str | bytes]]) -> None:
        kind, lines = given
        raw = b"\n".join(line if isinstance(line, bytes) else line.encode("utf-8", "surrogatepass") for line in lines)
        for old in folder.glob("metadata.*"):
            old.unlink()
        (folder / f"metadata.{kind}").write_bytes(columns + raw if kind == "csv" else raw)
        samples, _ = read_folder(folder)
        for sample in samples:
            files = (sample.image, sample.mask, sample.garment, sample.target, sample.target_mask, *sample.layers)
            for path in files:
                assert path is None or Path(path).resolve().is_relative_to(folder.resolve())
        data = PictureFolder(folder, size=8) if samples else ()
        for i in range(len(data)):
            item = data[i]
            assert item["image"][2].max() < 1 or item["image"][0].max() == 1  # never the blue secret

    lines = st.lists(st.one_of(row, cells, st.text(max_size=20), st.binary(max_size=20)), max_size=4)
    attack(door, st.tuples(st.sampled_from(["jsonl", "csv"]), lines), examples)


class Payload:
    """A pickle that would write a file, if anything in it were called."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (self.path, "w")


def weights(marker: str) -> list[bytes]:
    """Small checkpoints: safetensors, zipped pickles, with a payload, with a class that is only named."""
    tensors = {"model.diffusion_model.out.2.bias": torch.ones(4), "x": torch.zeros(2, 3)}
    found = [save(tensors), save({})]
    for value in (tensors, {"state_dict": tensors}, Payload(marker), {"callbacks": {Payload: 1}}, [1, (2, 3)]):
        file = io.BytesIO()
        torch.save(value, file)
        found.append(file.getvalue())
    found.append(pickle.dumps(Payload(marker)))
    found.append(struct.pack("<Q", 2**40) + b"{}")
    return found


@inputs
def test_checkpoint_files(tmp_path, examples):
    marker = tmp_path / "code-was-run"

    def door(data: bytes) -> None:
        for name in ("w.safetensors", "w.ckpt"):
            path = tmp_path / name
            path.write_bytes(data)
            for read in (read_state_dict, load_controlnet, load_stable_diffusion):
                try:
                    read(path)
                except Error as problem:
                    assert str(problem)
                assert not marker.exists()

    attack(door, mutated(weights(str(marker))), examples)


@inputs
def test_a_zip_with_a_changed_pickle_inside(tmp_path, examples):
    """Mutations that the zip's checksum would hide: the pickle is changed, then packed properly."""
    marker = tmp_path / "code-was-run"
    file = io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(2, 2)}, "n": Payload}, file)
    with zipfile.ZipFile(file) as z:
        members = {name: z.read(name) for name in z.namelist()}
    (name,) = (n for n in members if n.endswith("data.pkl"))
    path = tmp_path / "w.ckpt"

    def door(data: bytes) -> None:
        with zipfile.ZipFile(path, "w") as z:
            for member, content in members.items():
                z.writestr(member, data if member == name else content)
        try:
            read_state_dict(path)
        finally:
            assert not marker.exists()

    attack(door, mutated([members[name], pickle.dumps(Payload(str(marker)), protocol=2)]), examples)


SIZES = st.one_of(st.integers(-3, 70), json_values)
CONFIG = st.dictionaries(
    st.sampled_from(
        ["in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim", "attention_head_dim",
         "norm_num_groups", "down_block_types", "use_linear_projection", "num_attention_heads", "latent_channels",
         "scaling_factor", "beta_schedule", "beta_start", "beta_end", "num_train_timesteps", "prediction_type",
         "timestep_spacing", "steps_offset", "conditioning_embedding_out_channels", "sample_size", "bogus"]
    ),
    st.one_of(SIZES, st.lists(SIZES, max_size=4)),
    max_size=6,
)  # fmt: skip


@inputs
def test_configs(examples):
    def door(config: dict[str, Any]) -> None:
        for read in (UNetConfig.from_config, VAEConfig.from_config, NoiseSchedule.from_config, make_controlnet):
            try:
                read(config)
            except Error as problem:
                assert str(problem)

    def make_controlnet(config: dict[str, Any]) -> None:
        with torch.device("meta"):
            ControlNet.from_config({"block_out_channels": [32, 32]} | config)

    attack(door, CONFIG, examples)


@inputs
def test_the_command_line(tmp_path, examples, monkeypatch, capsys):
    """Any arguments: a status, 2 by argparse, or 0 for --help; never a traceback, and nothing written outside."""
    outside, work = tmp_path / "outside", tmp_path / "work"
    outside.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    words = st.sampled_from(
        ["phase1", "phase2", "--garment", "export", "train", "vae", "--sd", "--control", "--character", "--mask",
         "--prompt", "--steps", "-1", "0", "x.png", "nowhere.safetensors", "--seed", "--dtype", "float32",
         "--layout", "compvis", "--help", "--device", "cpu", "--variants", "", "é", "--out", "--sheet", "detect",
         "../o.png", str(outside / "o.png")]
    )  # fmt: skip

    def door(arguments: list[str]) -> None:
        try:
            assert main(arguments) in (0, 2)
        except SystemExit as stopped:
            assert stopped.code in (0, 2)
        assert list(outside.iterdir()) == []
        assert {path.name for path in tmp_path.iterdir()} == {"outside", "work"}
        capsys.readouterr()

    commands = st.lists(st.one_of(words, st.text(max_size=5)), max_size=10)
    without_training = commands.filter(lambda a: "train" not in a and "demo" not in a and "dolls" not in a)
    attack(door, without_training, examples)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with all that a command needs to run to its end: small models, a picture, a mask, a garment."""
    folder = tmp_path_factory.mktemp("models")
    sd = small_stable_diffusion()
    sd.save(folder / "sd.safetensors", layout="compvis")
    small_controlnet(sd).save(folder / "control")
    maps = features(sd, torch.zeros(1, 3, 32, 40))
    torch.manual_seed(0)
    ClothingDetector([m.shape[1] for m in maps], heads=1).save(folder / "detector")
    Image.new("RGB", (40, 32), "teal").save(folder / "c.png")
    garment = Image.new("RGB", (40, 32), "white")
    garment.paste("red", (8, 8, 24, 24))
    garment.save(folder / "g.png")
    mask = Image.new("L", (40, 32))
    mask.paste(255, (8, 8, 24, 24))
    mask.save(folder / "m.png")
    return folder


MODEL = "--sd sd.safetensors --device cpu"
COMMANDS = [
    f"phase1 {MODEL} --control control --character c.png --mask m.png --prompt dress --steps 1 --out o.png",
    f"phase1 {MODEL} --control control --character c.png --mask m.png --prompt hat --steps 1 --variants 2 --out o.png "
    "--sheet s.png",
    f"generate {MODEL} --prompt hat --steps 1 --out o.png",
    f"export {MODEL} --control control --layout diffusers --out o",
    f"phase2 {MODEL} --control control --character c.png --garment g.png --mask m.png --steps 1 --out o.png",
    f"detect {MODEL} --detector detector --character c.png --out o.png",
    "dolls --sheet o.png --size 64 -n 2",
    "dolls --folder o --size 64 -n 1",
    "evaluate reader --device cpu --n 2 --json o.json",
    "bench --rows unet --device cpu --rounds 1",
    "demo --out o --steps 1 --device cpu",
]
WORDS = ["-1", "0", "1", "2", "nan", "1e400", "", "é", "\0", "c.png", "m.png", "control", ".", "..", "nowhere", "o.png",
         "../o.png", "new/o.png", "o.gif", "--feather", "--max-side", "--seed", "--eta", "--strength", "--guidance",
         "--help", "compvis", "float16", "--dtype", "--vae", "/dev/null"]  # fmt: skip


def edited(command: str, edits: list[tuple[int, str, str]]) -> list[str]:
    """A command's words with some put in, dropped or changed."""
    words = command.split()
    for place, kind, word in edits:
        at = place % len(words)
        words[at : at + (kind != "put")] = [] if kind == "drop" else [word]
    return words


def was_told(path: Path, arguments: list[str]) -> bool:
    """Whether an argument names this file, a folder that it is in or of, or its name but for a number of a variant."""
    told = {Path(word).resolve() for word in arguments if "\0" not in word}
    told |= {Path("out").resolve()} if "demo" in arguments else set()  # where it writes if nothing is told
    names = told | {one.with_suffix("") for one in told}
    return any(
        path == one or one in path.parents or path in one.parents or path.stem.rpartition("-")[0] == one.name
        for one in names
    )


@inputs
def test_commands_that_could_run(tmp_path, examples, models, monkeypatch, capsys):
    """A command that works, with some of its words changed: what it writes is what it was told to, or nothing."""
    work = tmp_path / "work"
    shutil.copytree(models, work)
    monkeypatch.chdir(work)
    monkeypatch.setattr(bench, "rows", lambda *_: ())  # what is timed is no door
    monkeypatch.setattr(demo, "load", lambda *_: None)
    shown = {"character": Image.new("RGB", (4, 4))}
    for way in ("by_sentence", "by_garment"):
        monkeypatch.setattr(demo, way, lambda sd, doll, other, out, *_, way=way: demo.saved(shown, out, way))
    before, worked = set(tmp_path.rglob("*")), []

    def door(case: tuple[str, list[tuple[int, str, str]]]) -> None:
        arguments = edited(*case)
        try:
            status = main(arguments)
        except SystemExit as stopped:
            status = stopped.code
        assert status in (0, 2)
        made = [path for path in tmp_path.rglob("*") if path not in before]
        files = [path for path in made if path.is_file()]
        assert status == 0 or all("-uncertainty" in path.name for path in files), (arguments, made)
        assert all(was_told(path, arguments) for path in made), (arguments, made)
        worked.extend(made)
        for path in made:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for name in ("c.png", "m.png", "g.png"):  # a command may be told to write over what it was given
            shutil.copy(models / name, work / name)
        capsys.readouterr()

    edits = st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from(["put", "drop", "change"]), st.sampled_from(WORDS)), max_size=2
    )
    attack(door, st.tuples(st.sampled_from(COMMANDS), edits), examples)
    assert worked  # some of them did run


@inputs
def test_the_options_of_a_training(tmp_path, examples, monkeypatch, capsys):
    """Up to where the first doll would be drawn; whatever gets there has a configuration that makes sense."""
    for name in [name for name in dir(commands) if name.startswith("train_") and name != "train_stage"]:
        monkeypatch.setattr(commands, name, lambda a, config: config.out)
    flags = st.sampled_from(
        ["--steps", "--batch", "--accumulate", "--lr", "--warmup", "--ema", "--seed", "--workers", "--keep", "--dolls",
         "--save-every", "--sample-every", "--size", "--precision", "--decay", "--vae", "--data", "--compile"]
    )  # fmt: skip
    values = st.sampled_from(
        ["-1", "0", "1", "0.5", "nan", "inf", "-inf", "1e400", "9" * 40, "bf16", "cosine", "", "é"]
    )

    def door(pairs: list[tuple[str, str]]) -> None:
        arguments = [word for pair in pairs for word in pair]
        try:
            assert main(["train", "vae", "--out", str(tmp_path / "run"), *arguments]) in (0, 2)
        except SystemExit as stopped:
            assert stopped.code in (0, 2)
        assert list(tmp_path.iterdir()) == []
        capsys.readouterr()

    attack(door, st.lists(st.tuples(flags, st.one_of(values, st.text(max_size=4))), max_size=4), examples)


@inputs
def test_caches(tmp_path, examples):
    """A damaged cache is made again, whatever is in the file."""
    good = save({"a": torch.ones(3)}, {"digest": "d"})
    path = tmp_path / "cache"

    def door(data: bytes) -> None:
        path.write_bytes(data)
        assert isinstance(kept(path, "d", lambda: {"a": torch.ones(3)}), dict)

    attack(door, mutated([good, save({}), save({"a": torch.ones(3)})]), examples)


@inputs
def test_shards(tmp_path, examples):
    folder = write_shards(({"x": torch.ones(2)} for _ in range(3)), tmp_path / "shards", size=3)
    outside = tmp_path / "outside.tar"
    outside.write_bytes((folder / "000000.tar").read_bytes())
    names = st.sampled_from(["000000.tar", "../outside.tar", str(outside), "..", "", ".", "\0", "pipe:touch marker"])
    lists = st.dictionaries(names, st.one_of(st.just(3), st.integers(), json_values), max_size=2).map(json.dumps)
    tar = mutated([(folder / "000000.tar").read_bytes()])

    def door(case: tuple[str, bytes]) -> None:
        (folder / "shards.json").write_text(case[0])
        (folder / "000000.tar").write_bytes(case[1])
        try:
            stream = Shards(folder)
            assert "outside" not in str(stream.counts)
            next(stream.samples(0))
        finally:
            assert {path.name for path in tmp_path.iterdir()} == {"shards", "outside.tar"}
            assert {path.name for path in folder.iterdir()} == {"shards.json", "000000.tar"}

    attack(door, st.tuples(st.one_of(st.just('{"000000.tar": 3}'), lists), tar), examples)


@inputs
def test_training_checkpoints(tmp_path, examples):
    good = save({"weights.x": torch.ones(3)}, {"step": "7", "notes": "{}"})

    def door(data: bytes) -> None:
        (tmp_path / "step-00000009.safetensors").write_bytes(data)
        (tmp_path / "step-00000007.safetensors").write_bytes(good)
        step, tensors, notes = checkpoint.latest(tmp_path)
        try:
            said, there, told = checkpoint.read(tmp_path / "step-00000009.safetensors")
        except Exception:
            said, there, told = 7, {"weights.x": torch.ones(3)}, {}
        assert (step, notes, list(tensors)) == (said, told, list(there))
        assert all(torch.equal(tensors[key], there[key]) or tensors[key].isnan().any() for key in there)

    attack(door, mutated([good, save({"weights.x": torch.ones(3)})]), examples)
