"""The stage that learns points: which point of its garment's picture each pixel shows."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import minicc
from minicc.cli import main
from minicc.data import dolls
from minicc.data.dolls.wardrobe import CLASSES, PATTERNED
from minicc.outfit.clothing import LOG_DOUBT, ClothingDetector
from minicc.outfit.garment import placed
from minicc.training.dolls_cache import draw_dolls, draw_points
from minicc.training.points_stage import PLACES, PointsStage, maps_and_points

N = 8


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_the_head_for_points_learns_and_the_detectors_others_stay(cache, tmp_path):
    options = ["--dolls", str(N), "--cache", str(cache), "--steps", "3", "--batch", "4", "--device", "cpu"]
    options += ["--warmup", "1", "--lr", "1e-3"]
    assert main(["train", "points", "--out", str(tmp_path / "a"), *options]) == 0
    assert {"curves.csv", "sheet-00000003.png"} <= {path.name for path in (tmp_path / "a").iterdir()}
    old, new = (ClothingDetector.load(source) for source in ("tiny", tmp_path / "a" / "detector"))
    assert new.points is not None
    kept = {name: weight for name, weight in new.state_dict().items() if not name.startswith("points.")}
    assert all(torch.equal(weight, old.state_dict()[name]) for name, weight in kept.items())
    assert (
        main(
            ["train", "points", "--detector", str(tmp_path / "a" / "detector"), "--out", str(tmp_path / "b"), *options]
        )
        == 0
    )
    further = ClothingDetector.load(tmp_path / "b" / "detector")
    assert further.points is not None
    moved = [(a - b).abs().max() for a, b in zip(new.points.parameters(), further.points.parameters(), strict=True)]
    assert 0 < max(moved) < 0.1  # it went on from there
    sd = minicc.load("tiny", device="cpu")
    found = further.find(sd, dolls.draw(0).image)
    assert found.points is not None
    assert found.points.shape == (3, 128, 128)
    assert (found.points[2] > 0).all()
    assert ClothingDetector.load("tiny").find(sd, dolls.draw(0).image).index.tobytes() == found.index.tobytes()


def test_a_detector_taught_other_pictures_or_models_tells_no_points_and_no_names(cache, tmp_path):
    options = [
        "--dolls",
        "2",
        "--cache",
        str(cache),
        "--steps",
        "1",
        "--batch",
        "1",
        "--warmup",
        "1",
        "--device",
        "cpu",
    ]
    assert main(["train", "points", "--out", str(tmp_path / "points"), *options]) == 0
    told = ["--detector", str(tmp_path / "points" / "detector")]
    assert main(["train", "detector", "--out", str(tmp_path / "same"), *told, *options]) == 0
    same = ClothingDetector.load(tmp_path / "same" / "detector")
    assert same.points is not None
    assert same.names is not None
    assert main(["train", "detector", "--out", str(tmp_path / "other"), *told, "--vae", "tiny", *options]) == 0
    other = ClothingDetector.load(tmp_path / "other" / "detector")
    assert other.points is None
    assert other.names is None


def test_each_pixels_point_is_that_of_its_own_garment(cache):
    points = draw_points(cache, "train", range(N)).float().numpy()
    for seed in (0, 3):
        doll = dolls.draw(seed)
        for slot in (slot for slot in doll.slots if slot in (*PATTERNED, "shoes")):
            there = placed(doll.flat(slot), 128).extent.parts(doll.correspondence(slot))
            worn = doll.index == CLASSES[slot]
            assert np.nanmax(np.abs(points[seed][worn] - there[worn])) < 0.001
        assert np.isnan(points[seed][~np.isin(doll.index, [CLASSES[slot] for slot in (*PATTERNED, "shoes")])]).all()


def test_maps_are_kept_at_pixels_that_show_a_point(cache):
    sd, detector = minicc.load("tiny", device="cpu"), ClothingDetector.load("tiny")
    images = draw_dolls(cache, "train", range(N))["image"][:4]
    points = torch.full((4, 128, 128, 2), torch.nan)
    x = (torch.arange(128) + 0.5) / 128
    points[:3, 40:60, 50:70] = torch.stack(torch.meshgrid(x, x, indexing="xy"), -1)[40:60, 50:70]
    kept = maps_and_points(sd, detector, images, points, seed=0)
    assert kept["maps"].shape == (3, sum(detector.channels), PLACES)  # the fourth shows none
    assert not kept["points"].isnan().any()
    for point in kept["points"]:  # of half of the pictures mirrored: their own pixels, seen in the mirror, and mirrored
        assert ((point[:, 1] > 40 / 128) & (point[:, 1] < 60 / 128)).all()
        assert ((point[:, 0] > 50 / 128) & (point[:, 0] < 70 / 128)).all() or (
            (point[:, 0] > 58 / 128) & (point[:, 0] < 78 / 128)
        ).all()


def test_a_point_told_right_and_surely_costs_least():
    """L = |p − p̂|₁ / b + 2 log b: for an error e its least value is at b = e / 2."""
    detector = ClothingDetector([2], points=4)
    stage = PointsStage(SimpleNamespace(unet=nn.Identity(), vae=nn.Identity(), text_encoder=nn.Identity()), detector)
    assert detector.points is not None
    for parameter in detector.points.parameters():
        nn.init.zeros_(parameter)
    batch = {
        "maps": torch.zeros(3, 2, PLACES, 1),
        "points": torch.full((3, PLACES, 2), 0.5) + torch.tensor([0.1, -0.1]),
    }
    losses = {}
    for b in (0.02, 0.1, 0.5):
        nn.init.constant_(detector.points.read[-1].bias[2:], 0.0)
        with torch.no_grad():
            detector.points.read[-1].bias[2] = math.log(b) - LOG_DOUBT
        losses[b] = stage(batch, None).item()
        assert losses[b] == pytest.approx(0.2 / b + 2 * math.log(b), abs=1e-4)
    assert losses[0.1] == min(losses.values())
