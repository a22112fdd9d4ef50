"""The paper's phenomena: how they are measured, on constructed sheets and on runs of two steps."""

import csv
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from minicc.errors import Error
from minicc.evaluation import experiments
from minicc.evaluation.experiments import arms, compare
from minicc.evaluation.phenomena import (
    MAGENTA,
    Follow,
    before_and_after,
    convergence,
    errors,
    identity,
    onset,
    read_course,
    turn,
    write_course,
)
from minicc.models.controlnet import ControlNet
from minicc.outfit import phase1
from minicc.outfit.compose import make_hint
from minicc.pipeline import Hinted
from minicc.small import small_controlnet, small_stable_diffusion
from minicc.training.config import TrainConfig
from minicc.training.stages import Phase1Stage


def sheet(outside, inside, cells: int = 2, side: int = 16) -> np.ndarray:
    """Grey characters; pictures from the hint alone are of these two greys."""
    characters = np.full((side, cells * side, 3), 128, np.uint8)
    masked = np.zeros(characters.shape[:2], bool)
    masked[4:12, 4:12] = masked[4:12, side + 2 : side + 9] = True
    free = np.where(masked[..., None], np.uint8(inside), np.uint8(outside)) * np.ones(3, np.uint8)
    hints = np.where(masked[..., None], np.uint8(MAGENTA), characters)
    return np.concatenate([characters, hints, free, characters])


def test_a_fresh_controlnet_changes_nothing_through_the_whole_sampler():
    assert identity(small_stable_diffusion(), steps=5) == 0


def test_errors_are_of_the_row_from_the_hint_alone_inside_and_outside_apart():
    assert errors(sheet(128, 128)) == (0, 0)
    outside, inside = errors(sheet(128, 200))
    assert outside == 0
    assert inside > 10
    outside, inside = errors(sheet(200, 128))
    assert outside > 10
    assert inside == 0


def test_the_course_of_a_run_is_read_from_its_sheets_in_order(tmp_path):
    for step, grey in [(1000, 130), (200, 200), (10, 220)]:
        Image.fromarray(sheet(grey, 128)).save(tmp_path / f"sheet-{step:08d}.png")
    course = convergence(tmp_path)
    assert [row.step for row in course] == [10, 200, 1000]
    assert course[0].outside > course[1].outside > course[2].outside
    with pytest.raises(Error, match="no sheets; expected the folder"):
        convergence(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("outside", "found"),
    [
        ([40, 39, 41, 8, 7, 7], 300),  # sudden
        ([40, 10, 41, 8, 7, 7], 300),  # a lucky sheet does not count
        ([40, 39, 38, 37, 36, 35], None),  # never
        ([40, 39, 10, 41, 8, 39], None),  # not kept
    ],
)
def test_the_onset_is_where_the_error_falls_and_stays(outside, found):
    assert onset([Follow(100 * i, value, 0.0) for i, value in enumerate(outside)]) == found


def test_before_and_after_are_the_sheets_on_both_sides_of_the_onset(tmp_path):
    greys = {10: 220, 20: 215, 30: 135, 40: 130}
    for step, grey in greys.items():
        Image.fromarray(sheet(grey, grey)).save(tmp_path / f"sheet-{step:08d}.png")
    steps = turn(convergence(tmp_path))
    assert steps == [10, 20, 30, 40]
    drawn = np.split(np.asarray(before_and_after(tmp_path, steps)), 6)
    assert (drawn[0] == 128).all()
    assert ((drawn[1] == MAGENTA).all(-1) | (drawn[1] == 128).all(-1)).all()
    assert [int(rows.mean()) for rows in drawn[2:]] == list(greys.values())
    with pytest.raises(Error, match=r"no before and after .* the hint is never followed"):
        turn([Follow(10, 40.0, 30.0), Follow(20, 39.0, 30.0)])


def test_a_course_is_written_whole_and_read_again(tmp_path):
    arms = {"zero": [Follow(100, 30.5, 20.25), Follow(200, 8.125, 9.0)], "lite": [Follow(100, 31.0, 21.0)]}
    path = write_course(tmp_path / "new" / "ablation.csv", arms)
    assert read_course(path) == arms
    with path.open() as file:
        assert next(csv.reader(file)) == ["arm", "step", "outside", "inside"]
    assert [p.name for p in path.parent.iterdir()] == ["ablation.csv"]


@pytest.fixture(scope="module")
def shown():
    mask = torch.zeros(1, 128, 128)
    mask[:, 40:90, 30:100] = 1
    image = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return [{"image": image, "mask": mask, "caption": "a red dress"}] * 2


def test_the_stages_sheet_is_one_that_can_be_measured(shown):
    sd = small_stable_diffusion()
    drawn = np.asarray(Phase1Stage(sd, small_controlnet(sd), shown=shown).eval().sheet())
    assert drawn.shape == (4 * 128, 2 * 128, 3)
    characters, hints, free, filled = np.split(drawn, 4)
    masked = (hints == MAGENTA).all(-1)
    assert np.array_equal(masked[:, :128], shown[0]["mask"][0].numpy() > 0)
    assert np.array_equal(filled[~masked], characters[~masked])
    assert (free[~masked] != characters[~masked]).any()
    assert all(value > 0 for value in errors(drawn))


def test_without_known_latents_the_picture_depends_on_the_character_by_the_hint_alone(shown):
    sd = small_stable_diffusion()
    image, mask = shown[0]["image"][None], shown[0]["mask"][None]

    def drawn(picture, control, put_back):
        controls = [Hinted.of(control, make_hint(picture, mask))]
        return phase1.fill(sd, picture, mask, ["a hat"], [0], controls, steps=2, put_back=put_back)

    deaf, awake = ControlNet.from_unet(sd.unet), small_controlnet(sd)
    assert torch.equal(drawn(image, deaf, False), drawn(-image, deaf, False))
    assert not torch.equal(drawn(image, awake, False), drawn(-image, awake, False))
    assert not torch.equal(drawn(image, deaf, True), drawn(-image, deaf, True))


def test_arms_differ_in_one_thing():
    assert [(arm.name, arm.dolls, arm.drop) for arm in arms("drop", 50)] == [("drop 0.5", 50, 0.5), ("drop 0.0", 50, 0)]
    assert [arm.dolls for arm in arms("size")] == [100, 1000, 10_000]
    assert {(arm.dolls, arm.drop) for arm in arms("ablation", 50)} == {(50, 0.5)}
    with pytest.raises(Error, match="expected ablation, drop or size"):
        arms("speed")


def test_an_experiment_trains_every_arm_and_yields_its_course(tmp_path):
    config = TrainConfig(tmp_path / "out", steps=2, batch=2, sample_every=1, save_every=2, device="cpu")
    courses = {}
    for arm, course in compare(small_stable_diffusion(), "ablation", config, tmp_path / "cache", dolls=8):
        courses[arm.name] = course
    assert list(courses) == ["zero", "gaussian", "lite"]
    assert [row.step for row in courses["lite"]] == [1, 2]
    assert (tmp_path / "out" / "gaussian" / "sheet-00000002.png").is_file()


def test_all_arms_begin_with_the_same_hint_encoder(tmp_path, monkeypatch):
    """Whatever was drawn before: nothing but the thing compared may differ."""
    begun = []
    monkeypatch.setattr(experiments, "train", lambda stage, *_: begun.append(deepcopy(stage.control)))
    monkeypatch.setattr(experiments, "convergence", lambda out: [])
    config = TrainConfig(tmp_path / "out", steps=2, batch=2, device="cpu")
    for name in ("ablation", "drop"):
        torch.rand(7)
        list(compare(small_stable_diffusion(), name, config, tmp_path / "cache", dolls=8))
    encoders = [control.controlnet_cond_embedding.state_dict() for control in begun]
    assert len(encoders) == 5
    drawn = [name for name in encoders[0] if "conv_out" not in name]
    assert len(drawn) > 2
    assert all(torch.equal(encoders[0][name], other[name]) for other in encoders[1:] for name in drawn)
