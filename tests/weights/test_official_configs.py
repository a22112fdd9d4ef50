"""The official config files (tests/data/configs), against what is inferred from the official shapes alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from minicc.errors import Error
from minicc.models.controlnet import ControlNet
from minicc.models.text import TextConfig
from minicc.models.unet import UNetConfig
from minicc.models.vae import VAEConfig
from minicc.weights.forms import any_text, any_unet, any_vae
from minicc.weights.infer import infer_text_config, infer_unet_config, infer_vae_config
from minicc.weights.prediction import OFFICIAL
from tests.weights.test_layouts import table

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
FILES = {  # config → the table of its single file
    "sd14": "sd15_compvis",
    "sd15": "sd15_compvis",
    "sd15-inpaint": "sd15_inpaint_compvis",
    "sd21-base": "sd21_compvis",
    "sd21-768v": "sd21_compvis",
}
official = pytest.mark.parametrize("name", FILES)


@pytest.mark.parametrize(("key", "value"), [("act_fn", "gelu"), ("freq_shift", 1), ("mid_block_type", "Other")])
def test_a_unet_whose_keys_are_the_same_and_whose_sums_are_not_is_refused(key, value):
    plain = UNetConfig().to_config()
    assert UNetConfig.from_config(plain | {"act_fn": "silu", "freq_shift": 0}) == UNetConfig()
    with pytest.raises(Error, match=f"{key}={value!r} is not Stable Diffusion's"):
        UNetConfig.from_config(plain | {key: value})


def config(name: str) -> dict:
    return json.loads((CONFIGS / f"{name}.json").read_text())


@official
def test_the_unet_config_inferred_from_the_shapes_is_the_official_one(name):
    """Trap 5: `attention_head_dim: 8` is the number of heads; [5, 10, 20, 20] is 64 channels a head."""
    ours = infer_unet_config(any_unet(table(FILES[name])))
    theirs = UNetConfig.from_config(config(name)["unet_config"])
    assert theirs == replace(ours, sample_size=96 if name == "sd21-768v" else 64)
    assert [theirs.heads_of(c) for c in theirs.block_out_channels] == ([5, 10, 20, 20] if "21" in name else [8] * 4)


@official
def test_the_vae_config_inferred_from_the_shapes_is_the_official_one(name):
    assert infer_vae_config(any_vae(table(FILES[name]))) == VAEConfig.from_config(config(name)["vae_config"])


@official
def test_the_text_config_inferred_from_the_shapes_is_the_official_one(name):
    ours = infer_text_config(any_text(table(FILES[name])))
    theirs = TextConfig.from_config(config(name)["text_encoder_config"])
    assert theirs == replace(ours, eos_token_id=2)  # the number that transformers wrote in 2022, used by no SD


@official
def test_the_schedule_of_a_single_file_is_the_official_one(name):
    theirs = config(name)["scheduler_scheduler_config"]
    for key in OFFICIAL.keys() - {"_class_name"}:
        assert OFFICIAL[key] == theirs.get(key, OFFICIAL[key]), key


def test_the_controlnet_config_opens_as_the_official_controlnet():
    import torch

    with torch.device("meta"):
        control = ControlNet.from_config(config("controlnet-sd15")["diffusers_config"])
    assert sum(p.numel() for p in control.parameters()) == 361_279_120
