"""What a schedule refuses, and diffusers' scheduler_config.json, read and written."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minicc.diffusion.schedule import PREDICTIONS, NoiseSchedule
from minicc.errors import Error

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
KINDS = ("linear", "scaled_linear", "cosine")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kind": "sqrt"}, "kind='sqrt' is unknown: choose one of linear, scaled_linear, cosine"),
        ({"prediction": "v"}, "choose one of epsilon, v_prediction, sample"),
        ({"spacing": "even"}, "choose one of leading, trailing, linspace"),
        ({"beta_start": 0.0}, "expected 0 < beta_start"),
        ({"beta_end": 1.5}, "beta_end < 1"),
        ({"num_timesteps": 1}, "expected 2 or more"),
        ({"steps_offset": -1}, "expected 0 or more"),
    ],
)
def test_an_impossible_schedule_is_refused(wrong, says):
    with pytest.raises(Error, match=says):
        NoiseSchedule(**wrong)


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_an_impossible_number_of_steps_is_refused(steps):
    for method in (NoiseSchedule().timesteps, NoiseSchedule().pairs):
        with pytest.raises(Error, match=f"steps={steps}: expected 1 … 1000"):
            method(steps)


def test_a_timestep_off_the_table_is_refused():
    with pytest.raises(Error, match="timestep 1000 is off the table"):
        NoiseSchedule().alpha_bar(1000)


def test_an_unknown_variance_is_refused():
    x = torch.zeros(1, 1)
    with pytest.raises(Error, match="choose one of fixed_small, fixed_large"):
        NoiseSchedule().posterior(x, x, 5, variance="learned")


SD15 = {
    "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "trained_betas": None, "clip_sample": False,
}  # fmt: skip


def test_the_official_config_of_stable_diffusion_is_the_default_schedule():
    assert NoiseSchedule.from_config(SD15) == NoiseSchedule()
    assert NoiseSchedule.from_config(SD15 | {"prediction_type": "v_prediction"}).prediction == "v_prediction"


@pytest.mark.parametrize("name", ["sd14", "sd15", "sd15-inpaint", "sd21-base", "sd21-768v"])
def test_every_official_scheduler_config_is_read(name):
    config = json.loads((CONFIGS / f"{name}.json").read_text())["scheduler_scheduler_config"]
    prediction = "v_prediction" if name == "sd21-768v" else "epsilon"
    assert NoiseSchedule.from_config(config) == NoiseSchedule(prediction=prediction)


def test_absent_keys_have_the_references_defaults():
    expected = NoiseSchedule("linear", steps_offset=0, set_alpha_to_one=True)
    assert NoiseSchedule.from_config({}) == expected


@given(
    kind=st.sampled_from(KINDS),
    prediction=st.sampled_from(PREDICTIONS),
    zero=st.booleans(),
    spacing=st.sampled_from(["leading", "trailing", "linspace"]),
    offset=st.integers(0, 3),
    to_one=st.booleans(),
)
def test_a_schedule_survives_its_config(kind, prediction, zero, spacing, offset, to_one):
    schedule = NoiseSchedule(
        kind, prediction=prediction, zero_terminal_snr=zero, spacing=spacing, steps_offset=offset,
        set_alpha_to_one=to_one,
    )  # fmt: skip
    assert NoiseSchedule.from_config(json.loads(json.dumps(schedule.to_config()))) == schedule


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            {"beta_schedule": "sigmoid"},
            "beta_schedule='sigmoid' is unknown: choose one of linear, scaled_linear, squared",
        ),
        ({"prediction_type": "flow_prediction"}, "prediction='flow_prediction' is unknown"),
        ({"trained_betas": [0.1, 0.2]}, "a table of betas is not supported"),
    ],
)
def test_a_config_of_another_kind_of_model_is_refused(wrong, says):
    with pytest.raises(Error, match=says):
        NoiseSchedule.from_config(SD15 | wrong)
