"""Whether a model predicts ε or v, and its schedule: in the scheduler's config, or in a yaml beside a CompVis file.

SD 2.x base (ε) and 768-v files have the same keys and shapes, so the weights cannot tell.
"""

import json
from pathlib import Path
from typing import Any

from minicc.errors import WeightsError
from minicc.weights.read import read_metadata
from minicc.weights.source import read_json

OFFICIAL = {  # SD 1.x and 2.x: √β linear in t (Rombach et al. 2022), 1000 steps
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
WORDS = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "ε": "epsilon",
    "v_prediction": "v_prediction",
    "v": "v_prediction",
    "sample": "sample",
    "x0": "sample",  # ldm's word
}


def find_prediction(path: Path, family: str, asked: str | None = None) -> tuple[str, str | None]:
    """('epsilon' or 'v_prediction', a sentence if it had to be assumed).

    In this order: what was asked, the scheduler's config, the yaml beside the file, minicc's own note in the file;
    SD 1.x predicts ε. Else it is assumed: v if the name says 768, as the official files' names do.
    """
    if asked is not None:
        return _word(asked, "prediction="), None
    said = _said(path)
    if said is not None:
        return _word(said, path.name), None
    if not family.startswith("sd2"):
        return "epsilon", None
    assumed = "v_prediction" if "768" in path.name else "epsilon"
    return assumed, (
        f"{path.name} is an SD 2.x and nothing beside it says whether it predicts ε or v: assumed {assumed} "
        f"({'768 in' if assumed == 'v_prediction' else 'no 768 in'} its name). Pass prediction= to be sure"
    )


def scheduler_config(path: Path, prediction: str) -> dict[str, Any]:
    """The schedule in diffusers' words: the folder's own, the yaml's numbers, or the official one."""
    config = dict(OFFICIAL)
    if path.is_dir():
        config = read_json(path / "scheduler" / "scheduler_config.json") or config
    else:
        params, config = yaml_params(path), config | _note(path)
        for ours, theirs in {
            "num_train_timesteps": "timesteps",
            "beta_start": "linear_start",
            "beta_end": "linear_end",
        }.items():
            config[ours] = params.get(theirs, config[ours])
    return config | {"prediction_type": prediction}


def yaml_params(path: Path) -> dict[str, Any]:
    """`model.params` of the yaml that has the checkpoint's name; {} if there is none.

    Raises WeightsError if the yaml is not one of CompVis's.
    """
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        return {}
    import yaml  # transformers brings it

    try:
        return dict(yaml.safe_load(beside.read_text(encoding="utf-8"))["model"]["params"] or {})
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{beside.name} has no model.params ({type(error).__name__}): take the model's own yaml"
        ) from None


def _said(path: Path) -> str | None:
    if path.is_dir():
        return (read_json(path / "scheduler" / "scheduler_config.json") or {}).get("prediction_type")
    if path.with_suffix(".yaml").is_file():
        return yaml_params(path).get("parameterization", "eps")  # ldm's default
    return _note(path).get("prediction_type")


def _note(path: Path) -> dict[str, Any]:
    """The schedule that minicc wrote into the header of its own single file."""
    try:
        return dict(json.loads(read_metadata(path).get("minicc.scheduler", "{}")))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path.name}: its note minicc.scheduler is no config ({error}): export it again") from None


def _word(word: object, where: str) -> str:
    if not isinstance(word, str) or word not in WORDS:
        raise WeightsError(f"{where} says the model predicts {word!r}: expected 'epsilon', 'v_prediction' or 'sample'")
    return WORDS[word]
