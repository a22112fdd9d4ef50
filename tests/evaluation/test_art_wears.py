"""Phase 2 on drawings: the truth scores best, another's garment does not, and the command writes every figure."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from minicc.cli import main
from minicc.data import dolls
from minicc.evaluation.art import drawings
from minicc.evaluation.art_wears import WornDrawing, figures, others, own_is_nearer, wearable
from minicc.outfit.clothing import ClothingDetector, features
from minicc.small import small_controlnet

N = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return dolls.export(tmp_path_factory.mktemp("pairs"), [dolls.draw(i) for i in range(N)], layout="pairs")


@pytest.fixture(scope="module")
def asked(folder):
    return drawings(folder, 2 * N, 0, WornDrawing, wearable)


def test_a_picture_that_cannot_be_read_is_said(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "broken")
    next(iter(sorted((tmp_path / "broken" / "images").glob("*-a.png")))).write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"broken: metadata: .* left out"):
        assert 0 < len(drawings(tmp_path / "broken", 2 * N, 0, WornDrawing, wearable)) < 2 * N


def test_nothing_that_changes_lies_outside_the_mask(asked):
    assert len(asked) == 2 * N
    for one in asked:
        before, after = np.asarray(one.character.convert("RGB")), np.asarray(one.truth.convert("RGB"))
        assert np.array_equal(before[~one.mask], after[~one.mask])
        assert ((one.asked_for > 0) <= one.mask).all()


def test_the_truth_is_the_best_there_is(asked):
    truth = [one.truth for one in asked]
    found = figures(truth, asked, [one.mask for one in asked], truth)
    assert found == {"colour": 1, "delta_e": 0, "delta_e_raw": 0, "ssim": pytest.approx(1), "outside_max": 0}
    grey = [Image.new("RGB", one.truth.size, "grey") for one in asked]
    worse = figures(grey, asked, [one.mask for one in asked], truth)
    assert worse["delta_e"] > 10
    assert worse["ssim"] < 0.9
    assert worse["outside_max"] > 0


def test_garments_are_given_mirrored_or_not_by_the_seed(asked):
    """So that nothing is right by alignment."""
    mirrored = []
    for one in asked:
        plain, given = one.flat.tobytes(), one.garment.tobytes()
        mirrored.append(given == ImageOps.mirror(one.flat).tobytes() != plain)
        assert mirrored[-1] or given == plain
        assert replace(one).garment.tobytes() == given
    assert 0 < sum(mirrored) < len(asked)


def test_another_garment_is_another_and_of_the_same_kinds(asked):
    for one, other in zip(asked, others(asked), strict=True):
        assert other is not one
        assert other.flat.tobytes() != one.flat.tobytes()
        assert one.in_garment_of(other).flat.tobytes() == other.flat.tobytes()
        assert one.in_garment_of(other).truth.tobytes() == one.truth.tobytes()


def test_the_own_garment_must_be_nearer(asked):
    truth, before, rivals = [one.truth for one in asked], [one.character for one in asked], others(asked)
    assert own_is_nearer(truth, before, asked, rivals) == 1
    assert own_is_nearer(before, truth, asked, rivals) == 0
    assert own_is_nearer(before, before, asked, rivals) == 0, "what does not look at the garment gains nothing"
    alone = asked[:1]
    assert np.isnan(own_is_nearer(truth[:1], before[:1], alone, others(alone))), (
        "of one drawing there is no other garment"
    )


def test_a_garment_on_a_busy_ground_is_left_out_with_a_warning(asked, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "busy.png")
    with pytest.warns(UserWarning, match="left out: the garment's ground is busy"):
        assert not wearable(replace(asked[0].sample, garment=tmp_path / "busy.png"))


def test_the_command_writes_every_figure(sd, folder, tmp_path):
    sd.save(tmp_path / "sd")
    small_controlnet(sd).save(tmp_path / "control")
    channels = [m.shape[1] for m in features(sd, torch.zeros(1, 3, 32, 32))]
    ClothingDetector(channels, heads=1).save(tmp_path / "detector")
    models = [f"--{name}" for name in ("sd", "control", "phase1", "detector")]
    files = [str(tmp_path / name) for name in ("sd", "control", "control", "detector")]
    options = [word for pair in zip(models, files, strict=True) for word in pair]
    options += ["--data", str(folder), "--n", "2", "--steps", "1", "--device", "cpu", "--json", str(tmp_path / "f")]
    assert main(["evaluate", "phase2", *options]) == 0
    f = json.loads((tmp_path / "f").read_text())
    one = {"colour", "delta_e", "delta_e_raw", "ssim", "outside_max"}
    assert one | {"own_over_other", "drawings", "mask_covered", "mask_excess"} < set(f)
    assert set(f["true_masks"]) == one | {"own_over_other"}
    assert set(f["baselines"]) == {"mean", "phase1_caption"}
    assert set(f["ceiling"]) == one
    assert f["outside_max"] == f["true_masks"]["outside_max"] == 0
    assert main(["evaluate", "phase2", *options, "--plain", str(tmp_path / "control")]) == 2
