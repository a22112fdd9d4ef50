"""ε or v: the same keys and shapes, so a scheduler's config, a yaml, an argument, or a stated guess decides."""

import json
import warnings
from pathlib import Path

import pytest

from minicc.diffusion.schedule import NoiseSchedule
from minicc.errors import Error, WeightsError
from minicc.weights import export, load
from minicc.weights.export import write_safetensors
from tests.weights.conftest import Small, load_sd

YAML = "model:\n  params:\n    linear_start: 0.00085\n    linear_end: 0.012\n    timesteps: 1000\n"


@pytest.mark.parametrize(("config", "expected"), [("epsilon", "epsilon"), ("v_prediction", "v_prediction")])
def test_an_sd2_folder_says_in_its_scheduler_what_it_predicts(tmp_path: Path, sd2: Small, config, expected):
    folder = export.save_stable_diffusion(load_sd(sd2.save(tmp_path / "x.safetensors")), tmp_path / "folder")
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": config}))
    parts = load.load_stable_diffusion(folder)
    assert parts.scheduler_config["prediction_type"] == expected
    assert parts.notes == []


def test_a_yaml_beside_the_file_says_what_it_predicts(tmp_path: Path, sd2: Small):
    path = sd2.save(tmp_path / "model.safetensors")
    path.with_suffix(".yaml").write_text(YAML + '    parameterization: "v"\n')
    parts = load.load_stable_diffusion(path)
    assert parts.scheduler_config["prediction_type"] == "v_prediction"
    assert parts.scheduler_config["beta_end"] == 0.012
    assert parts.unet.config.sample_size == 96
    path.with_suffix(".yaml").write_text(YAML)  # ldm's default is ε
    assert load.load_stable_diffusion(path).scheduler_config["prediction_type"] == "epsilon"
    path.with_suffix(".yaml").write_text("just: words")
    with pytest.raises(WeightsError, match=r"model\.yaml has no model\.params"):
        load.load_stable_diffusion(path)


@pytest.mark.parametrize(("name", "assumed"), [("v2-1_768-ema-pruned", "v_prediction"), ("512-base-ema", "epsilon")])
def test_an_sd2_file_alone_is_assumed_to_be_what_its_name_says_and_the_assumption_is_stated(
    tmp_path: Path, sd2: Small, name, assumed
):
    path = sd2.save(tmp_path / f"{name}.safetensors")
    with pytest.warns(UserWarning, match=f"assumed {assumed}"):
        parts = load.load_stable_diffusion(path)
    assert parts.scheduler_config["prediction_type"] == assumed
    assert "Pass prediction=" in parts.notes[0]


def test_the_argument_settles_what_is_predicted(tmp_path: Path, sd1: Small, sd2: Small):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sd in (sd1, sd2):
            parts = load.load_stable_diffusion(sd.save(tmp_path / "x.safetensors"), prediction="v")
            assert (parts.scheduler_config["prediction_type"], parts.notes) == ("v_prediction", [])
        assert (
            load.load_stable_diffusion(sd1.save(tmp_path / "x.safetensors")).scheduler_config["prediction_type"]
            == "epsilon"
        )
    with pytest.raises(WeightsError, match="expected 'epsilon'"):
        load_sd(tmp_path / "x.safetensors", prediction="velocity")


@pytest.mark.parametrize(
    "text", ["model: 3", "model: {params: abc}", "model: {params: [1, 2]}", "- model", "\0", "model: {params: {"]
)
def test_a_yaml_that_is_not_the_models_is_named(tmp_path: Path, sd2: Small, text):
    path = sd2.save(tmp_path / "model.safetensors")
    path.with_suffix(".yaml").write_text(text)
    with pytest.raises(WeightsError, match=r"model\.yaml has no model\.params"):
        load.load_stable_diffusion(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("parameterization: [v]", r"says the model predicts \['v'\]: expected"),
        ("parameterization: noise", "says the model predicts 'noise': expected"),
        ("linear_start: much", "beta_start='much' is not a finite number"),
    ],
)
def test_a_yaml_with_a_word_that_means_nothing_is_an_error(tmp_path: Path, sd2: Small, text, says):
    path = sd2.save(tmp_path / "model.safetensors")
    path.with_suffix(".yaml").write_text("model: {params: {" + text + "}}")
    with pytest.raises(Error, match=says):
        NoiseSchedule.from_config(load.load_stable_diffusion(path).scheduler_config)


@pytest.mark.parametrize(
    ("note", "says"),
    [
        ("{", "its note minicc.scheduler is no config"),
        ("[1]", "its note minicc.scheduler is no config"),
        ('{"prediction_type": 3}', "says the model predicts 3: expected"),
    ],
)
def test_a_damaged_note_in_the_header_is_named(tmp_path: Path, sd2: Small, note, says):
    path = write_safetensors(sd2.state, tmp_path / "x.safetensors", {"minicc.scheduler": note})
    with pytest.raises(WeightsError, match=says):
        load_sd(path)


@pytest.mark.parametrize(("word", "means"), [("eps", "epsilon"), ("v", "v_prediction"), ("x0", "sample")])
def test_a_yaml_may_use_each_of_ldms_words(tmp_path: Path, sd1: Small, word, means):
    path = sd1.save(tmp_path / "model.safetensors")
    path.with_suffix(".yaml").write_text("model: {params: {parameterization: " + word + "}}")
    assert load_sd(path).scheduler_config["prediction_type"] == means
