"""The command line on files as users have them: official layouts, real and drawn pictures."""

import gc
import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import minicc
from minicc.cli import main
from minicc.data import dolls
from minicc.data.folder import read_folder
from minicc.data.masks import clothes_in
from minicc.evaluation import commands as evaluation
from minicc.models.controlnet import ControlNet
from minicc.models.unet import UNet
from minicc.small import UNET as SMALL_UNET
from minicc.small import small_controlnet, small_stable_diffusion
from tests.outfit.test_compose import picture, square


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    """A folder with a small checkpoint and a ControlNet as CompVis single files, a character and a mask."""
    folder = tmp_path_factory.mktemp("official")
    sd = small_stable_diffusion()
    sd.save(folder / "sd.safetensors", layout="compvis")
    small_controlnet(sd).save(folder / "control.safetensors", layout="compvis")
    picture((70, 50), "RGBA").save(folder / "character.png")
    Image.fromarray(square((70, 50), (20, 10, 40, 40)).astype(np.uint8) * 255).save(folder / "mask.png")
    return folder


def phase1(folder: Path, out: Path, *more: str) -> int:
    files = ["--sd", "sd.safetensors", "--control", "control.safetensors", "--character", "character.png"]
    files = [str(folder / f) if "." in f else f for f in [*files, "--mask", "mask.png"]]
    return main(["phase1", *files, "--prompt", "a red dress", "--out", str(out), "--steps", "2", *more])


def test_phase1_goes_the_whole_way_on_official_layouts(official, tmp_path, capsys):
    assert phase1(official, tmp_path / "new" / "o.png") == 0
    assert "2/2" in capsys.readouterr().err  # the bar
    before, after = (np.asarray(Image.open(f)) for f in (official / "character.png", tmp_path / "new" / "o.png"))
    mask = np.asarray(Image.open(official / "mask.png")) > 0
    assert np.array_equal(before[~mask], after[~mask])
    assert (before[mask] != after[mask]).any()


def test_generate_writes_what_the_model_draws_from_each_sentence(official, tmp_path, capsys):
    words = ["a red dress", "blue jeans"]
    options = [
        "--sd",
        str(official / "sd.safetensors"),
        "--steps",
        "2",
        "--seed",
        "3",
        "--out",
        str(tmp_path / "o.png"),
    ]
    assert main(["generate", "--prompt", *words, *options]) == 0
    paths = [tmp_path / "o-0.png", tmp_path / "o-1.png"]
    assert capsys.readouterr().out.split() == [str(path) for path in paths]
    sd = minicc.load(official / "sd.safetensors")
    for path, expected in zip(paths, sd.generate(words, steps=2, seed=3), strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(expected))
    assert main(["generate", "--prompt", "x", *options[:-1], str(tmp_path / "o.jpg")]) == 2  # before anything is drawn


def test_the_demo_redresses_a_doll_by_a_sentence_and_by_a_garment_with_nothing_from_outside(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--steps", "2"]) == 0
    said, written = capsys.readouterr().out, {p.stem for p in (tmp_path / "demo").iterdir()}
    for phase, names in {"phase1": "character mask result", "phase2": "character garment mask result"}.items():
        assert {phase, *(f"{phase}-{name}" for name in names.split())} <= written
        assert f"{phase}.png" in said
        before, mask, after = (
            np.asarray(Image.open(tmp_path / "demo" / f"{phase}-{n}.png")) for n in ("character", "mask", "result")
        )
        assert np.array_equal(before[mask == 0], after[mask == 0])
        assert (before[mask > 0] != after[mask > 0]).any()
    assert re.search(r"its colours: ΔE2000 \d+\.\d from the garment's", said)
    doll, other = (dolls.draw(seed, split="test") for seed in range(2))
    mask = np.asarray(Image.open(tmp_path / "demo" / "phase1-mask.png")) > 0
    new = doll.wearing(other.outfit)  # what the sentence asks for has room
    assert mask[clothes_in(doll.index) | clothes_in(new.index)].mean() > 0.95


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("folder", ["lpc/val", "anime"])
def test_phase1_redresses_real_characters_from_checkpoints_as_they_are_downloaded(
    official, tmp_path, shared, folder, mode
):
    """A Lightning .ckpt, a ControlNet's .pth; RGBA: cut to an odd size, white made transparent."""
    torch.save({"state_dict": load_file(official / "sd.safetensors"), "callbacks": {Path: 1}}, tmp_path / "sd.ckpt")
    torch.save(load_file(official / "control.safetensors"), tmp_path / "control.pth")
    sample = read_folder(shared / "characters" / folder)[0][0]
    character, mask = Image.open(sample.image).convert(mode), Image.open(sample.mask)  # 0: not clothes
    if mode == "RGBA":
        character.putalpha(character.convert("L").point(lambda grey: 255 * (grey < 250)))
        character, mask = (p.crop((3, 2, p.width - 4, p.height - 9)) for p in (character, mask))
    character.save(tmp_path / "c.png")
    mask.save(tmp_path / "m.png")
    changes = [f"--{name}={tmp_path / file}" for name, file in [
        ("sd", "sd.ckpt"), ("control", "control.pth"), ("character", "c.png"), ("mask", "m.png")
    ]]  # fmt: skip
    assert phase1(official, tmp_path / "o.png", *changes) == 0
    after, before, inside = Image.open(tmp_path / "o.png"), np.asarray(character), np.asarray(mask) > 0
    assert (after.mode, after.size) == (mode, character.size)
    assert np.array_equal(before[~inside], np.asarray(after)[~inside])
    assert (before[inside] != np.asarray(after)[inside]).any()


def test_a_controlnet_of_another_family_is_one_clear_line(official, tmp_path, capsys):
    unet = UNet(replace(SMALL_UNET, cross_attention_dim=128))
    ControlNet.from_unet(unet).save(tmp_path / "other.safetensors", layout="compvis")
    assert phase1(official, tmp_path / "o.png", "--control", str(tmp_path / "other.safetensors")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "made for another base: its cross_attention_dim is 128, the U-Net's is 64" in error


def test_a_device_that_is_not_there_is_one_clear_line(official, tmp_path, capsys):
    assert phase1(official, tmp_path / "o.png", "--device", "gpu") == 2
    assert capsys.readouterr().err.strip() == (
        "minicc: device='gpu' is not on this machine: leave it out, or take cuda, mps or cpu"
    )


def test_variants_are_numbered_and_differ(official, tmp_path):
    assert phase1(official, tmp_path / "o.png", "--variants", "2") == 0
    assert phase1(official, tmp_path / "alone.png", "--seed", "1") == 0
    a, b, alone = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("o-0.png", "o-1.png", "alone.png"))
    assert (a != b).any()
    assert abs(b - alone).max() <= 1  # a batch sums in another order


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--mask", "nowhere.png", "nowhere.png"),
        ("--sd", "nowhere.safetensors", "nowhere.safetensors"),
        ("--character", "mask.txt", "mask.txt"),
    ],
)
def test_a_users_mistake_is_one_clear_line_and_nothing_is_written(official, tmp_path, capsys, option, value, words):
    (official / "mask.txt").write_text("not a picture")
    assert phase1(official, tmp_path / "o.png", option, str(official / value)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("minicc: ")
    assert words in error
    assert not (tmp_path / "o.png").exists()


def folder_of_characters(folder: Path) -> Path:
    """Six pictures with masks and captions, in the imagefolder convention."""
    folder.mkdir()
    rows = []
    for i in range(6):
        picture((32, 32), seed=i).save(folder / f"{i}.png")
        Image.fromarray(square((32, 32), (8, 8, 24, 30)).astype(np.uint8) * 255).save(folder / f"{i}-mask.png")
        rows.append({"file_name": f"{i}.png", "mask_file_name": f"{i}-mask.png", "text": f"outfit {i}"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_train_phase1_saves_a_controlnet_that_phase1_loads_and_diffusers_opens(official, tmp_path, capsys):
    data, out = folder_of_characters(tmp_path / "data"), tmp_path / "run"
    options = ["--steps", "3", "--batch", "2", "--size", "32", "--save-every", "2", "--device", "cpu"]
    options += ["--cache", str(tmp_path / "cache")]
    sd = str(official / "sd.safetensors")
    assert main(["train", "phase1", "--sd", sd, "--data", str(data), "--out", str(out), *options]) == 0
    assert "needs about" in capsys.readouterr().out
    theirs = diffusers.ControlNetModel.from_pretrained(out / "controlnet")
    ours = ControlNet.load(out / "controlnet")
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert ours.controlnet_mid_block.weight.abs().max() > 0
    assert phase1(official, tmp_path / "o.png", "--control", str(out / "controlnet")) == 0


def test_train_phase1_on_pictures_without_masks_says_what_they_lack(official, tmp_path, capsys):
    data = folder_of_characters(tmp_path / "data")
    (data / "metadata.jsonl").unlink()
    for path in data.glob("*-mask.png"):
        path.unlink()
    options = ["--data", str(data), "--size", "32", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run")]
    assert main(["train", "phase1", "--sd", str(official / "sd.safetensors"), *options]) == 2
    error = capsys.readouterr().err.strip()
    assert "6 pictures left out: no mask and no caption (0.png, 1.png, 2.png and 3 more)." in error
    assert "Each needs a mask and a caption" in error
    assert not (tmp_path / "run").exists()


def test_training_on_real_characters_takes_real_steps(official, tmp_path, shared):
    options = ["--steps", "2", "--batch", "2", "--size", "64", "--device", "cpu", "--out", str(tmp_path / "run")]
    options += ["--cache", str(tmp_path / "cache")]
    source, data = shared / "characters" / "lpc" / "train", tmp_path / "data"
    rows = [json.loads(line) for line in (source / "metadata.jsonl").read_text("utf-8").splitlines()[:8]]
    for path in (
        value for row in rows for value in row.values() if isinstance(value, str) and (source / value).is_file()
    ):
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / path, data / path)
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert main(["train", "phase1", "--sd", str(official / "sd.safetensors"), "--data", str(data), *options]) == 0
    assert (tmp_path / "run" / "controlnet" / "config.json").is_file()


def test_phase_1_starts_from_an_official_controlnet_and_on_a_v_model(official, tmp_path):
    """A step of no length leaves what it began with."""
    data = folder_of_characters(tmp_path / "data")
    options = ["--data", str(data), "--size", "32", "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    options += ["--batch", "2", "--steps", "1", "--lr", "0"]
    sd = ["--sd", str(official / "sd.safetensors"), "--control", str(official / "control.safetensors")]
    assert main(["train", "phase1", *sd, *options, "--out", str(tmp_path / "run")]) == 0
    start, end = (ControlNet.load(p) for p in (official / "control.safetensors", tmp_path / "run" / "controlnet"))
    assert all(torch.equal(v, end.state_dict()[k]) for k, v in start.state_dict().items())
    assert main(["train", "phase1", *sd, "--prediction", "v_prediction", *options, "--out", str(tmp_path / "v")]) == 0
    losses = [(tmp_path / name / "curves.csv").read_text().splitlines()[1] for name in ("run", "v")]
    assert losses[0] != losses[1]


def test_an_inpainting_model_of_nine_channels_is_no_base_for_a_controlnet(tmp_path, capsys):
    sd = small_stable_diffusion()
    sd.unet = UNet(replace(SMALL_UNET, in_channels=9))
    sd.save(tmp_path / "sd.safetensors", layout="compvis")
    data = folder_of_characters(tmp_path / "data")
    options = ["--data", str(data), "--size", "32", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run")]
    for stage in ("phase1", "phase2"):
        assert main(["train", stage, "--sd", str(tmp_path / "sd.safetensors"), *options]) == 2
        assert "is an inpainting model" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_half_precision_control_goes_with_a_float32_model(official, tmp_path):
    half, control = tmp_path / "half.safetensors", str(official / "control.safetensors")
    options = ["--layout", "compvis", "--dtype", "float16", "--out", str(half)]
    assert main(["export", "--control", control, *options]) == 0
    assert {value.dtype for value in load_file(half).values()} == {torch.float16}
    assert phase1(official, tmp_path / "o.png", "--control", str(half)) == 0


def test_a_command_leaves_the_garbage_collector_as_it_was(tmp_path, capsys):
    before = gc.get_threshold()
    assert main(["dolls", "--sheet", str(tmp_path / "s.png"), "-n", "1", "--size", "64"]) == 0
    assert main(["dolls"]) == 2
    assert gc.get_threshold() == before


def test_a_command_leaves_a_notebooks_warnings_as_they_were(official, tmp_path):
    shown = warnings.showwarning
    assert phase1(official, tmp_path / "o.png") == 0
    assert warnings.showwarning is shown


def test_export_writes_the_file_that_a1111_and_comfyui_read(official, tmp_path):
    out = tmp_path / "mine.safetensors"
    assert (
        main(["export", "--control", str(official / "control.safetensors"), "--layout", "compvis", "--out", str(out)])
        == 0
    )
    from safetensors import safe_open

    with safe_open(out, "pt") as file:
        assert all(key.startswith("control_model.") for key in file.keys())  # noqa: SIM118 (not a dict)


@pytest.mark.parametrize(("layout", "holds"), [("pairs", "garment_b"), ("layers", "caption.txt"), ("viton", "cloth")])
def test_dolls_are_written_as_a_sheet_and_as_a_folder_of_any_layout(tmp_path, layout, holds):
    where = ["--sheet", str(tmp_path / "new" / "sheet.png"), "--folder", str(tmp_path / "dolls"), "--layout", layout]
    assert main(["dolls", *where, "-n", "3", "--size", "64", "--split", "val"]) == 0
    assert Image.open(tmp_path / "new" / "sheet.png").size == (3 * 64, 64)
    names = {path.name for path in (tmp_path / "dolls").rglob("*")}
    rows = tmp_path / "dolls" / "metadata.jsonl"
    assert holds in names or holds in rows.read_text("utf-8")
    samples, report = read_folder(tmp_path / "dolls")
    assert len(samples) == (6 if layout == "pairs" else 3)
    assert not report.dropped


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("demo --out FILE", "is a file, and no folder"),
        ("train vae --size 100 --out run", "expected a multiple of 8"),
        ("evaluate detector --labels 5 0", "1 labelled picture or more"),
        ("detect --character m-uncertainty.png --out m.png", "would be overwritten: it is also an input"),
        ("phase2 --character m-uncertainty.png --garment g.png --out m.png", "would be overwritten"),
        ("detect --character c.png --out m.png --parts --classes top", "leave out --classes and --grow"),
        ("detect --character c.png --out .", "no suffix"),
        ("detect --character c.png --out m\0.png", "a NUL in it"),
        ("dolls --folder \0", "a NUL in it"),
        ("dolls --sheet s.png --layout pairs", "--layout is a folder's"),
        (
            "export --control FILE --vae FILE --layout compvis --out x.safetensors",
            "--control exports a ControlNet alone",
        ),
        (
            "phase2 --character c.png --garment g.png --mask g.png --detector tiny --out o.png",
            "--detector finds the clothes",
        ),
        ("evaluate base --data FILE", "--data is for phase1, detector, phase2: leave it out of base"),
        (
            "train vae --sd tiny --out run",
            "--sd is for base, phase1, detector, points, names, phase2: leave it out of vae",
        ),
        ("train base --drop 0.3 --out run", "--drop is for phase1, phase2: leave it out of base"),
        ("phase2 --character c.png --garment g.png --out .", "no suffix"),
        ("phase2 --character c.png --garment g.png busy.png --out m.png", "busy.png: the garment's ground is busy"),
        (
            "phase2 --character c.png --garment g.png veil.png --out m.png",
            "veil.png: the garment is nearly transparent",
        ),
        ("phase1 --character c.png --mask g.png --prompt hat --variants 2 --out .", "no suffix"),
    ],
)
def test_what_cannot_work_is_one_clear_line_before_anything_is_done(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    for name in ("FILE", "c.png", "g.png", "m-uncertainty.png"):
        dolls.draw(0).image.save(tmp_path / name, "PNG")
    Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / "busy.png")
    Image.new("RGBA", (64, 64), (200, 30, 30, 40)).save(tmp_path / "veil.png")
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments.split()) == 2
    assert words in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_guidance_0_is_measured_as_0_and_a_detectors_curves_make_no_empty_table(monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(evaluation, "base", lambda a, sd: asked.append(a.guidance) or {"baselines": {}})
    monkeypatch.setattr(evaluation, "detector", lambda a, sd: {"labels": {"1": 0.5}, "baselines": {"labels": {}}})
    for stage in ("base", "detector"):
        assert main(["evaluate", stage, "--n", "2", "--guidance", "0", "--device", "cpu"]) == 0
    assert asked == [0]
    assert capsys.readouterr().out.count("| goal |") == 1
