"""`minicc train` from nothing: VAE → base → phase 1 and the reader, each a few steps on a few dolls."""

import json
import math
import re
import shutil
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import minicc
from minicc.cli import main
from minicc.data import dolls
from minicc.data.dolls.wardrobe import CLASSES
from minicc.errors import Error
from minicc.evaluation import base
from minicc.models import blocks
from minicc.models.controlnet import ControlNet
from minicc.models.tokenizer import tokenize
from minicc.models.vae import VAE
from minicc.outfit.clothing import Clothes
from minicc.outfit.reach import reaching_mask
from minicc.reader import load_reader
from minicc.small import small_stable_diffusion
from minicc.training import commands, dolls_cache, encode, phase2_stage, sources
from minicc.training.config import TrainConfig
from minicc.training.data import Dressed, Latents, Painted, Pictures, in_range
from minicc.training.dolls_cache import (
    changed_in,
    chosen_slot,
    draw_dolls,
    draw_others,
    drawn,
    lone_garments,
    one,
    stacked,
    texts,
    worn,
)
from minicc.training.draws import Draws
from minicc.training.encode import contexts_of, folder_latents, latents_of
from minicc.training.phase2_stage import Worn
from minicc.training.precision import emulates_bfloat16
from minicc.training.stages import BaseStage, Phase1Stage, VAEStage, contrast, dropped
from minicc.training.tiny import VAE_CONFIG
from minicc.weights.export import save_vae
from minicc.weights.load import load_vae
from tests.training.runs import assert_same_run, losses
from tests.training.toy import Rows, ToyStage

N = 12


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """All stages, trained for two steps each."""
    folder = tmp_path_factory.mktemp("runs")

    def train(stage: str, *more: str) -> None:
        options = ["--dolls", str(N), "--cache", str(folder / "cache"), "--steps", "2", "--batch", "2"]
        assert main(["train", stage, *options, "--out", str(folder / stage), "--device", "cpu", *more]) == 0

    train("vae", "--ema", "0.9")
    mixed = "no" if emulates_bfloat16(torch.device("cpu")) else "bf16"  # emulated, its sheet takes ten minutes
    train("base", "--snr-gamma", "5", "--precision", mixed, "--vae", str(folder / "vae" / "vae"))
    train("phase1", "--sd", str(folder / "base" / "sd"))
    train("reader")
    return folder


@pytest.fixture(scope="module")
def cache(runs) -> dict[str, torch.Tensor]:
    return draw_dolls(runs / "cache", "train", range(N))


def test_each_stage_leaves_its_curves_and_a_sheet(runs):
    for stage in ("vae", "base", "phase1"):
        assert {"curves.csv", "curves.png", "sheet-00000002.png"} <= {p.name for p in (runs / stage).iterdir()}


def test_each_doll_shows_one_garment_alone_whose_kind_is_known(cache):
    shown = lone_garments(cache, range(N))
    for seed, number in enumerate(shown["slot"].tolist()):
        doll = dolls.draw(seed)
        slot = doll.slots[seed % len(doll.slots)]
        assert number == CLASSES[slot]
        flat = np.asarray(doll.flat(slot).resize((128, 128)).convert("RGB"))
        assert torch.equal(shown["flat"][seed], torch.from_numpy(flat.transpose(2, 0, 1).copy()))
    assert len(set(shown["slot"].tolist())) > 2


def test_the_first_doll_may_be_any(runs, cache, tmp_path):
    """Other dolls than those of 0 to N − 1, with their own garments: what the shipped weights have not seen."""
    seeds = range(5, 8)
    later = draw_dolls(tmp_path, "train", seeds)
    for name in ("image", "index", "flat", "facts"):
        assert torch.equal(later[name], cache[name][5:8]), name
    assert torch.equal(lone_garments(later, seeds)["slot"], lone_garments(cache, range(N))["slot"][5:8])
    options = ["--dolls", "3", "--first-doll", "5", "--cache", str(tmp_path), "--steps", "1", "--batch", "1"]
    assert main(["train", "vae", "--out", str(tmp_path / "vae"), "--device", "cpu", *options]) == 0
    drawn = {path.name for path in tmp_path.glob("dolls-train-*")}
    assert drawn == {"dolls-train-5-8-128.safetensors"}


def test_there_is_no_doll_before_the_first(tmp_path, capsys):
    assert main(["train", "vae", "--out", str(tmp_path / "vae"), "--first-doll", "-1"]) == 2
    assert capsys.readouterr().err == "minicc: --first-doll -1: expected 0 or more\n"


def test_the_vae_has_a_measured_scaling_factor(runs, cache):
    vae = load_vae(runs / "vae" / "vae")
    with torch.no_grad():
        means = vae.encode(cache["image"].float() / 127.5 - 1).mean
    assert vae.config.scaling_factor * means.std().item() == pytest.approx(1, abs=0.02)


def test_the_base_draws_pictures_of_its_size(runs):
    sd = minicc.load(runs / "base" / "sd", device="cpu")
    picture = sd.generate(["a doll in a red dress"], steps=2)[0]
    assert picture.size == (128, 128)


def test_a_vae_and_a_base_can_be_trained_further(runs, tmp_path):
    options = ["--dolls", str(N), "--cache", str(runs / "cache"), "--steps", "1", "--batch", "1", "--lr", "0"]
    options += ["--device", "cpu"]
    vae, base = runs / "vae" / "vae", runs / "base" / "sd"
    assert main(["train", "vae", "--vae", str(vae), "--out", str(tmp_path / "vae"), *options]) == 0
    assert main(["train", "base", "--sd", str(base), "--out", str(tmp_path / "base"), *options]) == 0
    before, after = load_vae(vae).state_dict(), load_vae(tmp_path / "vae" / "vae").state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    before, after = (minicc.load(p, device="cpu").unet.state_dict() for p in (base, tmp_path / "base" / "sd"))
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("stage", ["vae", "base", "phase1"])
def test_a_stage_in_two_parts_ends_as_in_one(runs, tmp_path, stage):
    """Bit for bit, from the command line; two steps of `runs` again, the second in a run of its own."""
    options = [
        "--dolls",
        str(N),
        "--cache",
        str(runs / "cache"),
        "--batch",
        "2",
        "--device",
        "cpu",
        "--save-every",
        "1",
    ]
    options += {"vae": [], "base": ["--vae", str(runs / "vae" / "vae")], "phase1": ["--sd", str(runs / "base" / "sd")]}[
        stage
    ]
    for name, parts in (("whole", "2"), ("parts", "12")):
        for steps in parts:
            assert main(["train", stage, *options, "--steps", steps, "--out", str(tmp_path / name)]) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_base_that_goes_on_keeps_its_tokenizer(runs, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("words numbered anew")

    monkeypatch.setattr(commands, "train_tokenizer", refuse)
    shutil.copytree(runs / "base", tmp_path / "base")
    options = ["--dolls", str(N), "--cache", str(runs / "cache"), "--steps", "2", "--batch", "2", "--device", "cpu"]
    options += ["--vae", str(runs / "vae" / "vae"), "--out", str(tmp_path / "base")]
    assert main(["train", "base", *options]) == 0


def test_a_base_goes_on_with_another_vae(runs, tmp_path):
    vae = load_vae(runs / "vae" / "vae")
    vae.config = replace(vae.config, scaling_factor=0.5)
    save_vae(vae, tmp_path / "vae")
    options = ["--dolls", str(N), "--cache", str(tmp_path / "cache"), "--steps", "1", "--batch", "1", "--device", "cpu"]
    options += ["--sd", str(runs / "base" / "sd"), "--vae", str(tmp_path / "vae"), "--out", str(tmp_path / "base")]
    assert main(["train", "base", *options]) == 0
    assert minicc.load(tmp_path / "base" / "sd", device="cpu").vae.config.scaling_factor == 0.5


def test_decoder_only_training_leaves_the_latents_what_they_are(runs, tmp_path):
    """The encoder, quant_conv and the scaling factor stay, bit for bit; every part of the decoder learns."""
    options = ["--dolls", str(N), "--cache", str(runs / "cache"), "--steps", "2", "--batch", "2", "--ema", "0.9"]
    before, out = runs / "vae" / "vae", tmp_path / "vae"
    options += ["--vae", str(before), "--decoder-only", "--out", str(out), "--device", "cpu", "--precision", "bf16"]
    assert main(["train", "vae", *options]) == 0
    old, new = load_vae(before), load_vae(out / "vae")
    assert new.config == old.config
    moved = {
        key.split(".")[0] for key, value in new.state_dict().items() if not torch.equal(value, old.state_dict()[key])
    }
    assert moved == {"decoder", "post_quant_conv"}


def test_decoder_only_training_needs_a_trained_vae(tmp_path, capsys):
    assert main(["train", "vae", "--decoder-only", "--out", str(tmp_path / "x")]) == 2
    assert "--vae FOLDER" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_cached_latents_outlive_another_decoder_but_not_another_scaling_factor(tmp_path, capsys):
    sd, images = small_stable_diffusion(), torch.randint(255, (2, 3, 32, 32), dtype=torch.uint8)
    first = latents_of(tmp_path / "l", sd, images)
    torch.nn.init.zeros_(sd.vae.decoder.conv_out.weight)
    assert torch.equal(latents_of(tmp_path / "l", sd, images), first)
    assert "stale" not in capsys.readouterr().out
    sd.vae.config = replace(sd.vae.config, scaling_factor=1.0)
    assert not torch.equal(latents_of(tmp_path / "l", sd, images), first)
    assert "stale" in capsys.readouterr().out


def test_phase_1_changed_the_copy_and_nothing_else(runs):
    sd = minicc.load(runs / "base" / "sd", device="cpu")
    control = ControlNet.load(runs / "phase1" / "controlnet", unet=sd.unet)
    assert control.controlnet_mid_block.weight.abs().max() > 0
    assert control.phase == 1
    assert (sd.unet.conv_in.weight - control.conv_in.weight).abs().max() < 1e-2


def test_the_same_seed_gives_the_same_phase_1_from_its_first_weights_on(runs, tmp_path):
    options = ["--dolls", str(N), "--cache", str(runs / "cache"), "--steps", "2", "--batch", "2", "--device", "cpu"]
    assert main(["train", "phase1", *options, "--sd", str(runs / "base" / "sd"), "--out", str(tmp_path)]) == 0
    one, two = (ControlNet.load(out / "controlnet").state_dict() for out in (runs / "phase1", tmp_path))
    assert [key for key in one if not torch.equal(one[key], two[key])] == []


def test_locked_models_may_be_kept_in_half_precision(runs, tmp_path, monkeypatch):
    """Estimate, steps and sheet; and the loss curve is drawn without pyplot, from which a notebook has its figures."""
    monkeypatch.setattr("matplotlib.use", None)
    monkeypatch.setattr(commands, "SHOWN", 1)  # where bfloat16 is emulated, a sheet of six takes a quarter of an hour
    options = ["--dolls", "4", "--cache", str(tmp_path / "cache"), "--steps", "2", "--batch", "2", "--recompute"]
    options += ["--size", "64"]
    options += ["--sd", str(runs / "base" / "sd"), "--device", "cpu", "--dtype", "bfloat16", "--precision", "bf16"]
    assert main(["train", "phase1", *options, "--out", str(tmp_path / "phase1")]) == 0
    control = ControlNet.load(tmp_path / "phase1" / "controlnet")
    assert control.conv_in.weight.dtype == torch.float32
    assert control.controlnet_mid_block.weight.abs().max() > 0
    assert {"curves.png", "sheet-00000002.png"} <= {p.name for p in (tmp_path / "phase1").iterdir()}


def test_evaluate_vae_and_reader_alone(runs, tmp_path):
    out, options = tmp_path / "figures.json", ["--n", "3", "--json", str(tmp_path / "figures.json")]
    reader = ["--reader", str(runs / "reader" / "reader")]
    assert main(["evaluate", "vae", "--vae", str(runs / "vae" / "vae"), *reader, *options]) == 0
    figures = json.loads(out.read_text())
    assert 0 < figures["vae_psnr"] < 40
    assert {"vae_ssim", "garment_psnr", "garment_ssim"} <= set(figures)
    assert 0 <= figures["reader_on_reconstruction"] <= 1
    assert set(figures["attributes"]) == set(dolls.CLOTHES)
    assert main(["evaluate", "reader", *reader, *options, "--device", "cpu", "--dtype", "bfloat16"]) == 0
    figures = json.loads(out.read_text())
    assert 0 <= figures["reader_on_truth"] <= 1
    assert set(figures["attributes"]) == set(dolls.CLOTHES)


def test_evaluate_base_writes_every_figure(runs, tmp_path):
    out = tmp_path / "figures.json"
    options = ["--sd", str(runs / "base" / "sd"), "--reader", str(runs / "reader" / "reader"), "--device", "cpu"]
    assert main(["evaluate", "base", "--n", "3", "--steps", "2", "--json", str(out), *options]) == 0
    figures = json.loads(out.read_text())
    assert set(figures["attributes"]) == set(dolls.CLOTHES)
    for name in ("attributes_all", "attributes_all_outfit", "reader_on_truth", "vae_ssim"):
        assert 0 <= figures[name] <= 1
    assert 0 < figures["vae_psnr"] < 40
    assert figures["frechet_ratio"] == pytest.approx(figures["frechet"] / figures["frechet_floor"])
    assert figures["frechet_alike"] > 0
    assert 0 <= figures["nothing_added"] <= 1


def test_the_base_learns_and_is_asked_both_whole_captions_and_what_is_worn_alone(runs, cache, monkeypatch):
    told, given = [], []
    real = base.generate
    monkeypatch.setattr(base, "generate", lambda sd, said, *rest: told.append(said) or real(sd, said, *rest))
    monkeypatch.setattr(commands, "train", lambda stage, data, *rest: given.append((stage, data)))
    options = ["--sd", str(runs / "base" / "sd"), "--device", "cpu"]
    asked = ["--n", "2", "--steps", "1", "--reader", str(runs / "reader" / "reader")]
    assert main(["evaluate", "base", *options, *asked]) == 0
    first = [dolls.draw(base.FIRST + i, split="test", combinations="heldout") for i in range(2)]
    assert told[:2] == [[doll.caption for doll in first], [doll.outfit_text for doll in first]]
    learned = ["--dolls", str(N), "--cache", str(runs / "cache"), "--steps", "1", "--batch", "2"]
    assert main(["train", "base", *options, *learned, "--out", str(runs / "told")]) == 0
    ((stage, data),) = given
    for way, said in enumerate(("caption", "outfit")):
        assert torch.equal(data.ids[:, way], tokenize(stage.sd.tokenizer, texts(cache[said])))


def test_a_reader_is_small_and_reads_every_fact(runs, cache):
    reader = load_reader(runs / "reader" / "reader")
    read = reader.read(cache["image"].float() / 127.5 - 1)
    assert read.shape == (N, len(dolls.FACTS))
    assert (read < torch.tensor([len(values) for values in dolls.FACTS.values()])).all()
    assert (runs / "reader" / "reader" / "model.safetensors").stat().st_size < 3e6


def test_a_reader_goes_on_learning(runs, tmp_path):
    start = runs / "reader" / "reader"
    options = ["--dolls", str(N), "--cache", str(runs / "cache"), "--steps", "1", "--batch", "2", "--device", "cpu"]
    for lr, same in (("0", True), ("1e-3", False)):
        out = tmp_path / lr
        assert main(["train", "reader", "--reader", str(start), "--lr", lr, "--out", str(out), *options]) == 0
        before, after = load_reader(start).state_dict(), load_reader(out / "reader").state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before) is same


def test_what_is_no_reader_is_named(runs):
    with pytest.raises(minicc.Error, match=r"vae.*no attribute reader.*minicc train reader"):
        load_reader(runs / "vae")


def test_the_cached_dolls_are_the_dolls(cache):
    doll = dolls.draw(5)
    assert np.array_equal(cache["index"][5].numpy(), doll.index)
    assert texts(cache["caption"])[5] == doll.caption
    assert texts(cache["outfit"])[5] == doll.outfit_text


def test_several_processes_draw_the_same_dolls(cache):
    rows = drawn(one, [("train", seed, 128) for seed in range(N)], chunk=4)
    assert torch.equal(stacked(rows)["image"], cache["image"])


def test_a_dressed_dolls_mask_covers_both_outfits_and_nothing_of_a_third(runs, cache):
    sample = Dressed(cache, draw_others(runs / "cache", "train", range(N)), texts(cache["outfit"]))[5]
    doll = dolls.draw(5)
    worn = (doll.index > 0) & (doll.index < 6)
    mask = sample["mask"][0].numpy() > 0
    assert (mask & worn).sum() == worn.sum() < mask.sum()
    assert sample["caption"] == doll.outfit_text
    other = dolls.draw(5).wearing(dolls.random_outfit(np.random.default_rng([doll.words, 3]), "seen"))
    a, b = np.asarray(doll.image)[~mask], np.asarray(other.image)[~mask]
    assert np.array_equal(a, b)


class Characters(torch.utils.data.Dataset):
    """Two pictures with half of each masked."""

    def __init__(self) -> None:
        self.images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> dict:
        mask = torch.zeros(1, 32, 32)
        mask[:, 8:24, 4:16] = 1
        return {"image": self.images[i], "mask": mask, "caption": f"outfit {i}", "name": str(i)}


def test_cached_latents_belong_to_their_picture_mirrored_or_not(tmp_path):
    sd, pictures = small_stable_diffusion(), Characters()
    data = Painted(
        pictures, folder_latents(tmp_path / "l", sd, pictures), contexts_of(tmp_path / "c", sd, ["a", "b"]), 0
    )
    mirrored = []
    for position in range(12):
        sample = data[1, position]
        expected = sd.encode_image(sample["image"][None])[0]
        assert torch.allclose(sample["latents"].float(), expected, atol=1e-3)
        mirrored.append(torch.equal(sample["image"], pictures.images[1].flip(-1)))
        assert mirrored[-1] or torch.equal(sample["image"], pictures.images[1])
    assert 0 < sum(mirrored) < 12
    assert torch.equal(data[1, 0]["context"], sd.encode_text(["b"])[0].half())
    first = folder_latents(tmp_path / "l", sd, pictures)
    pictures.images[1] = -pictures.images[1]
    changed = folder_latents(tmp_path / "l", sd, pictures)
    assert torch.equal(changed[0], first[0])
    assert not torch.equal(changed[1], first[1])


def test_dolls_latents_are_cached_both_ways_and_the_base_sees_half_mirrored_and_half_told_only_what_is_worn(tmp_path):
    sd, images = small_stable_diffusion(), torch.randint(255, (2, 3, 32, 32), dtype=torch.uint8)
    latents = latents_of(tmp_path / "l", sd, images)
    assert latents.shape == (2, 2, 4, 32 // sd.vae.stride, 32 // sd.vae.stride)
    for way, pictures in enumerate((images, images.flip(-1))):
        assert torch.allclose(latents[:, way].float(), sd.encode_image(in_range(pictures)), atol=1e-3)
    ids = torch.arange(4).view(2, 2, 1).expand(2, 2, 77)
    data = Latents(latents, ids, seed=0)
    ways = [torch.equal(data[1, position]["latents"], latents[1, 1]) for position in range(40)]
    said = [int(data[1, position]["ids"][0]) for position in range(40)]
    assert set(said) == {2, 3}
    assert 10 < sum(one == 3 for one in said) < 30
    assert len(set(zip(ways, said, strict=True))) == 4  # drawn apart
    assert 10 < sum(ways) < 30
    assert all(w or torch.equal(data[1, i]["latents"], latents[1, 0]) for i, w in enumerate(ways))


def test_dolls_of_the_training_part_are_mirrored_and_held_out_ones_are_not(tmp_path):
    sd, a = small_stable_diffusion(), Namespace(cache=tmp_path, size=64, seed=0, supervise=0.0)
    for split, ways in (("train", 2), ("val", 1)):
        assert sources.phase1_dolls(a, sd, split, range(2)).latents.shape[1] == ways
        data = sources.phase2_dolls(a, sd, split, range(2))
        assert data.latents.shape[1] == ways
        pictures = {data[0, position]["image"].numpy().tobytes() for position in range(12)}
        assert len(pictures) == ways


def test_phase_2_mirrors_the_doll_its_mask_and_where_its_garment_went_together(monkeypatch):
    """Column 0 alone is worn and shows a point at the garment's left; mirrored, column 3 does, and still that point.
    An automatic mask, which reaches further, goes with them as well.
    """
    monkeypatch.setattr(phase2_stage, "paint", lambda layer, random: layer)
    image = torch.arange(32, dtype=torch.uint8).expand(1, 3, 32, 32).clone()
    region, where = torch.zeros(1, 32, 32, dtype=torch.uint8), torch.full((1, 4, 4, 2), float("nan"))
    region[..., :8], where[:, :, 0] = 1, 0.25
    reach = region.clone()
    reach[..., :13] = 1
    latents = torch.stack([torch.zeros(1, 4, 4, 4), torch.ones(1, 4, 4, 4)], dim=1)
    worn = {"flat": torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "region": region, "reach": reach}
    data = Worn({"image": image}, worn, latents, torch.zeros(1, 77, 8), seed=0, vary=False, where=where)
    seen = set()
    for position in range(12):
        sample = data[0, position]
        mirrored, automatic = bool(sample["latents"].all()), int(sample["mask"].sum()) == 13 * 32
        seen.add((mirrored, automatic))
        mask = reach[0] if automatic else region[0]
        assert torch.equal(sample["image"], in_range(image[0].flip(-1) if mirrored else image[0]))
        assert torch.equal(sample["mask"][0], (mask.flip(-1) if mirrored else mask).float())
        known = ~sample["where"].isnan().any(-1)
        assert known[:, -1 if mirrored else 0].all()
        assert known.sum() == 4
        assert (sample["where"][known] == 0.25).all()
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


def test_masks_are_painted_anew_for_every_position(tmp_path):
    data = Painted(Characters(), torch.zeros(2, 2, 4, 4, 4), torch.zeros(2, 77, 64), 0)
    masks = [data[0, position]["mask"] for position in (0, 1, 2)]
    assert not torch.equal(masks[0], masks[1])
    assert torch.equal(data[0, 2]["mask"], masks[2])


def test_another_picture_caption_or_model_is_encoded_anew_and_the_same_is_not(tmp_path, monkeypatch, capsys):
    sd, images = small_stable_diffusion(), torch.randint(255, (2, 3, 32, 32), dtype=torch.uint8)
    first = latents_of(tmp_path / "l", sd, images)
    with monkeypatch.context() as patched:
        patched.setattr(sd.vae, "encode", None)  # what would be called
        assert torch.equal(latents_of(tmp_path / "l", sd, images), first)
    assert "stale" not in capsys.readouterr().out
    changed = latents_of(tmp_path / "l", sd, 255 - images)
    assert not torch.equal(changed, first)
    assert not torch.equal(latents_of(tmp_path / "l", small_stable_diffusion(seed=1), 255 - images), changed)
    a = contexts_of(tmp_path / "c", sd, ["a"])
    assert not torch.equal(contexts_of(tmp_path / "c", sd, ["b"]), a)
    assert capsys.readouterr().out.count("is stale (made from other pictures or another model)") == 3


def test_some_garments_are_shoes_and_a_barefoot_doll_shows_none():
    seeds = {seed: chosen_slot(dolls.draw(seed, split="train"))[1] for seed in range(200)}
    shod = [seed for seed, slot in seeds.items() if slot == "shoes"]
    assert 10 < len(shod) < 40
    assert all(slot in dolls.draw(seed, split="train").slots for seed, slot in seeds.items())
    row = worn(("train", shod[0], 64))
    assert row["slot"] == CLASSES["shoes"]
    assert row["region"].any()
    assert not row["region"][:40].any()


def test_the_automatic_mask_of_a_doll_is_that_of_the_one_that_wears_another_garment():
    """It covers what changes and, unlike its outline, tells little of how long the new garment is."""
    for seed in range(6):
        doll, row = dolls.draw(seed, size=64, split="train"), worn(("train", seed, 64))
        random, slot = chosen_slot(doll)
        before = doll.wearing(changed_in(doll.outfit, slot, random, "seen"))
        kind = "dress" if slot == "onepiece" else slot
        mask = reaching_mask(Clothes.certain(before.index), [kind])
        assert np.array_equal(row["reach"] > 0, mask | (row["region"] > 0))
        assert (row["reach"] > row["region"]).any()


def test_phase_1_learns_from_half_of_the_sentences():
    x, empty = torch.ones(4000, 77, 2), torch.zeros(1, 77, 2)
    kept_share = dropped(x, empty, 0.5, Draws.at(0, 0))[:, 0, 0].mean().item()
    assert kept_share == pytest.approx(0.5, abs=0.03)


def test_the_garments_alone_are_a_quarter_of_what_the_vae_sees(cache):
    data = Pictures(cache, 0)
    flats = [cache["flat"][0], cache["flat"][0].flip(-1)]
    seen = [data[0, position]["image"] for position in range(400)]
    share = np.mean([any(torch.equal(x, f.float() / 127.5 - 1) for f in flats) for x in seen])
    assert share == pytest.approx(0.25, abs=0.07)


def test_the_vaes_pictures_say_where_the_clothes_are_mirrored_or_not(cache):
    """The part mask of a doll; of a garment alone, all that is not white."""
    index, flat = cache["index"][5], cache["flat"][5]
    expected = {"image": (index > 0) & (index < 6), "flat": (flat < 255).any(0)}
    data, seen = Pictures(cache, 0), set()
    for position in range(40):
        sample = data[5, position]
        for kind, mirrored in product(expected, (False, True)):
            picture, clothes = (x.flip(-1) if mirrored else x for x in (cache[kind][5], expected[kind]))
            if torch.equal(sample["image"], picture.float() / 127.5 - 1):
                assert torch.equal(sample["clothes"], clothes[None])
                seen.add((kind, mirrored))
    assert len(seen) == 4


def test_a_wrong_garment_pixel_costs_the_vae_more_than_a_wrong_sky_pixel():
    stage = VAEStage(VAE(VAE_CONFIG), torch.zeros(1, 3, 16, 16), kl_weight=0)
    torch.nn.init.zeros_(stage.vae.decoder.conv_out.weight)  # it answers with 0 everywhere
    torch.nn.init.zeros_(stage.vae.decoder.conv_out.bias)
    image, clothes = torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    image[..., 4, 4], clothes[..., 4, 4] = 1, True
    with_clothes, without = (stage({"image": image, "clothes": m}, Draws.at(0, 0)) for m in (clothes, ~clothes))
    torch.testing.assert_close(without, torch.tensor(2 / 256 + 4 / 240))  # |e| + e², and four edges
    torch.testing.assert_close(with_clothes, 4 * without)


def test_a_motif_may_cost_the_vae_more_than_the_plain_cloth_around_it():
    """A white dot on black clothes, an answer that is wrong by 1 everywhere: only the dot's cost grows, as c says."""
    image, clothes = -torch.ones(1, 3, 32, 32), torch.ones(1, 1, 32, 32, dtype=torch.bool)
    image[..., 16, 16] = 1
    c = contrast(image)
    assert c[..., 16, 16].item() == pytest.approx(2 * (1 - 1 / 81))  # of a square of 9 × 9
    assert c[..., 16, 20].item() == pytest.approx(2 / 81)
    assert c[..., 16, 21].item() == 0

    def cost(place: tuple[int, int], motifs: float) -> float:
        stage = VAEStage(VAE(VAE_CONFIG), torch.zeros(1, 3, 16, 16), kl_weight=0, clothes=1, motifs=motifs)
        answer = image.clone()
        answer[(..., *place)] += 1
        stage.vae.decode = lambda z: answer
        return stage({"image": image, "clothes": clothes}, Draws.at(0, 0)).item()

    assert cost((16, 16), 3) == pytest.approx(cost((16, 16), 0) * (1 + 3 * c[..., 16, 16].item()))
    assert cost((2, 2), 3) == cost((2, 2), 0)


def test_the_stage_moves_nothing_but_the_copy():
    sd = small_stable_diffusion()
    stage = Phase1Stage(sd, ControlNet.from_unet(sd.unet))
    assert {id(p) for p in stage.parameters() if p.requires_grad} == {id(p) for p in stage.control.parameters()}
    assert not [p for m in (sd.vae, sd.text_encoder) for p in m.parameters() if p.requires_grad]


def test_what_is_masked_may_count_more_in_the_loss_and_the_papers_loss_counts_all_alike():
    sd, mask = small_stable_diffusion(), torch.zeros(1, 1, 32, 32)
    control = ControlNet.from_unet(sd.unet)
    cells = 32 // sd.vae.stride
    mask[..., : 32 // cells, : 32 // cells] = 1  # one latent cell
    right, inside, outside = (torch.zeros(1, 4, cells, cells) for _ in range(3))
    inside[..., 0, 0], outside[..., -1, -1] = 1, 1
    t = torch.zeros(1, dtype=torch.long)
    for weight in (1.0, 3.0):
        stage = Phase1Stage(sd, control, inside=weight)
        within, beyond = (stage.loss(wrong, right, mask, t) for wrong in (inside, outside))
        torch.testing.assert_close(within, torch.tensor(weight / (cells**2 - 1 + weight)))
        torch.testing.assert_close(within, weight * beyond)
    with pytest.raises(Error, match="expected more than 0"):
        Phase1Stage(sd, control, inside=0)


@pytest.mark.parametrize("inside", [1.0, 4.0])
def test_the_noisiest_steps_may_count_more_in_the_loss_of_a_controlnet(inside):
    sd, mask = small_stable_diffusion(), torch.zeros(1, 1, 32, 32)
    right = torch.zeros(1, 4, 32 // sd.vae.stride, 32 // sd.vae.stride)
    control, wrong = ControlNet.from_unet(sd.unet), right + 1
    plain, weighed = (Phase1Stage(sd, control, inside=inside, snr_gamma=gamma) for gamma in (math.inf, 0.5))
    for step in (0, 100, 999):
        t = torch.tensor([step])
        snr = sd.schedule.snr[step].item()
        assert plain.loss(wrong, right, mask, t) == 1
        assert weighed.loss(wrong, right, mask, t).item() == pytest.approx(min(snr, 0.5) / snr)
    with pytest.raises(Error, match="snr_gamma=0: a weight in the loss, expected more than 0"):
        Phase1Stage(sd, control, snr_gamma=0)


def test_half_of_the_sentences_are_dropped_unless_told_otherwise_and_all_or_none_if_so():
    from minicc.cli import parser

    sd = small_stable_diffusion()
    control, generator = ControlNet.from_unet(sd.unet), torch.Generator().manual_seed(0)
    assert Phase1Stage(sd, control).drop == 0.5
    assert commands.given(parser().parse_args(["train", "phase1", "--out", "x"]), "drop", "inside") == {}
    assert commands.given(parser().parse_args(["train", "phase1", "--out", "x", "--drop", "0"]), "drop", "inside") == {
        "drop": 0
    }
    with pytest.raises(Error, match="drop=7: a share of the sentences"):
        Phase1Stage(sd, control, drop=7)
    batch = {
        "latents": torch.randn(2, 4, 32 // sd.vae.stride, 32 // sd.vae.stride, generator=generator),
        "image": torch.zeros(2, 3, 32, 32),
        "mask": torch.ones(2, 1, 32, 32),
    }
    one, other = (batch | {"context": sd.encode_text([text] * 2)} for text in ("a red dress", "blue jeans"))
    with torch.no_grad():
        for drop, alike in ((1.0, True), (0.0, False)):
            stage = Phase1Stage(sd, control, drop)
            assert torch.equal(stage(one, Draws.at(0, 0)), stage(other, Draws.at(0, 0))) is alike


def test_a_tenth_of_the_bases_captions_are_dropped_unless_told_otherwise():
    sd = small_stable_diffusion()
    assert BaseStage(sd).drop == 0.1
    batch = {"latents": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))}
    one, other = (batch | {"ids": tokenize(sd.tokenizer, [text] * 2)} for text in ("a red dress", "blue jeans"))
    with torch.no_grad():
        for drop, alike in ((1.0, True), (0.0, False)):
            stage = BaseStage(sd, drop)
            assert torch.equal(stage(one, Draws.at(0, 0)), stage(other, Draws.at(0, 0))) is alike


@pytest.mark.parametrize("stage", ["vae", "base", "phase1"])
def test_recomputing_activations_changes_no_loss_and_is_refused_where_it_would_do_nothing(
    runs, tmp_path, stage, monkeypatch, capsys
):
    called = []
    real = blocks.checkpoint
    monkeypatch.setattr(blocks, "checkpoint", lambda *a, **k: (called.append(1), real(*a, **k))[1])
    options = ["--dolls", str(N), "--cache", str(runs / "cache"), "--steps", "2", "--batch", "2", "--device", "cpu"]
    options += ["--vae", str(runs / "vae" / "vae")]
    for name, more in (("kept", []), ("again", ["--recompute"])):
        assert called == []
        assert main(["train", stage, *options, *more, "--out", str(tmp_path / name)]) == 0
    assert called
    assert losses(tmp_path / "again") == pytest.approx(losses(tmp_path / "kept"), rel=1e-5)
    assert main(["train", "reader", "--recompute", "--out", str(tmp_path / "no")]) == 2
    assert "--recompute is for vae, base, phase1, phase2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("detector --data {0} --held-out {0}", "--held-out is for vae, base, phase1, phase2: leave it out of detector"),
        ("base --inside 2", "--inside is for phase1, phase2: leave it out of base"),
        ("vae --snr-gamma 5", "--snr-gamma is for base, phase1, phase2: leave it out of vae"),
        ("phase1 --supervise 1", "--supervise is for phase2: leave it out of phase1"),
    ],
)
def test_an_option_of_another_stage_is_refused(words, said, tmp_path, capsys):
    assert main(["train", *words.format(tmp_path).split(), "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_batchs_loss_is_the_mean_of_its_pictures_losses_whatever_is_masked():
    """So two processes, or two accumulated halves, have the loss of the whole."""
    sd, generator = small_stable_diffusion(), torch.Generator().manual_seed(0)
    stage = Phase1Stage(sd, ControlNet.from_unet(sd.unet), inside=4, snr_gamma=1)
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, :, :16], mask[1, :, :4, :4] = 1, 1
    side = 32 // sd.vae.stride
    output, target = (torch.randn(2, 4, side, side, generator=generator) for _ in range(2))
    t = torch.tensor([100, 900])
    parts = [stage.loss(output[i : i + 1], target[i : i + 1], mask[i : i + 1], t[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(stage.loss(output, target, mask, t), sum(parts) / 2)


def test_what_a_run_will_need_and_what_is_free_is_said_before_it_begins(runs, tmp_path, monkeypatch, capsys):
    def begins(*_: object) -> None:
        raise Error("it began")

    monkeypatch.setattr(commands, "train", begins)
    options = ["--dolls", str(N), "--cache", str(runs / "cache"), "--steps", "1", "--batch", "2", "--device", "cpu"]
    assert main(["train", "reader", *options, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().out.splitlines()
    assert re.search(
        r"^needs about \d+\.\d GB \(weights 0\.01, .*\); \d+\.\d GB are free for it$", "\n".join(said), re.M
    )


def test_options_are_all_there_for_every_stage():
    from minicc.cli import parser

    a = parser().parse_args(["train", "base", "--out", "x"])
    assert isinstance(a, Namespace)
    assert a.sd is None


def test_every_process_takes_a_gpu_of_its_own_and_a_base_is_there_before_its_pictures_are_encoded(
    runs, tmp_path, monkeypatch
):
    """The sheets need its VAE there as well, which the loop does not move. The GPU is imagined."""

    class Encoding(Exception):
        pass

    def stops(path: Path, sd: minicc.StableDiffusion, images: torch.Tensor) -> torch.Tensor:
        places.append({p.device.type for module in (sd.unet, sd.vae, sd.text_encoder) for p in module.parameters()})
        raise Encoding

    chosen, places = list[int](), list[set[str]]()
    monkeypatch.setattr(sources, "latents_of", stops)
    monkeypatch.setattr(commands, "default_device", lambda: torch.device("meta"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    options = ["--dolls", str(N), "--cache", str(runs / "cache"), "--out", str(tmp_path)]
    for device in ([], ["--device", "cpu"]):
        with pytest.raises(Encoding):
            main(["train", "base", *options, *device])
    assert places == [{"meta"}, {"cpu"}]
    assert chosen == [1]


def test_what_is_opened_beside_the_copy_is_in_a_checkpoint_as_well():
    """sd_locked=False: the U-Net's decoder learns, too."""
    sd = small_stable_diffusion()
    for locked in (True, False):
        stage = Phase1Stage(sd, ControlNet.from_unet(sd.unet), sd_locked=locked)
        learning = {id(p) for p in stage.parameters() if p.requires_grad}
        assert learning == {id(p) for p in stage.trained.parameters()}
        assert (id(sd.unet.conv_out.weight) in learning) is not locked


@pytest.mark.parametrize(("side", "batches"), [(128, [5]), (512, [2, 2, 1]), (2048, [1] * 5)])
def test_large_pictures_are_encoded_fewer_at_a_time(monkeypatch, side, batches):
    seen = []
    monkeypatch.setattr(encode, "both_ways", lambda sd, images: seen.append(len(images)) or images.new_zeros(1))
    encode.encode_images(None, torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(5, 1, side, side))
    assert seen == batches


def test_drawn_dolls_belong_to_all_the_code_that_chose_them(tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr(dolls_cache, "digest_of", lambda *parts: named.extend(parts) or "")
    draw_dolls(tmp_path, "val", range(1))
    names = {part.name for part in named if isinstance(part, Path)}
    assert {"doll.py", "tops.py", "masks.py", "dolls_cache.py"} <= names
    assert "dataset.py" not in names


def test_weights_that_lie_on_the_gpu_already_count_as_free(monkeypatch, tmp_path, capsys):
    class Large(ToyStage):
        """Of 2 GB on a GPU, and more on the CPU, where the system counts what is mapped as free itself."""

        def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
            yield SimpleNamespace(nbytes=2 * 2**30, device=torch.device("cuda"))  # type: ignore[misc]
            yield SimpleNamespace(nbytes=2**40, device=torch.device("cpu"))  # type: ignore[misc]

    monkeypatch.setattr(commands, "available", lambda device: 3 * 2**30)
    monkeypatch.setattr(commands, "estimate", lambda *_, **__: "needs something")
    commands.announce(Large(), Rows(), TrainConfig(tmp_path, steps=1, batch=1, device="cpu"))
    assert capsys.readouterr().out == "needs something; 5.0 GB are free for it\n"
