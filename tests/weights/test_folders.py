"""diffusers folders and hub repositories: configs, variants, shards, and what is missing or damaged in them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minicc.errors import WeightsError
from minicc.models.controlnet import ControlNet
from minicc.models.unet import UNet, UNetConfig
from minicc.weights import export, load, source
from minicc.weights.parts import text_from_module
from tests.weights.conftest import Small, load_sd, shake


def test_a_folder_without_a_part_says_which(tmp_path: Path, sd1: Small):
    folder = export.save_stable_diffusion(load_sd(sd1.save(tmp_path / "x.safetensors")), tmp_path / "folder")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"vae holds no weights of a vae: expected .*found config\.json"):
        load_sd(folder)
    (folder / "vae" / "config.json").unlink()
    (folder / "vae").rmdir()
    with pytest.raises(WeightsError, match=r"has no vae/ .*pass vae="):
        load_sd(folder)
    with pytest.raises(WeightsError, match="has no unet/"):
        load_sd(tmp_path)


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [
        ("StableDiffusionXLPipeline", "Stable Diffusion XL"),
        ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
        ("FluxPipeline", "Flux"),
    ],
)
def test_a_folder_of_another_family_is_refused_by_its_name(tmp_path: Path, pipeline, name):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    with pytest.raises(WeightsError, match=f"this folder is {name}"):
        load_sd(tmp_path)


def test_a_config_beside_the_weights_wins_over_the_rule(tmp_path: Path):
    config = UNetConfig(block_out_channels=(16, 32), cross_attention_dim=24, heads=2, norm_num_groups=8)
    unet = shake(UNet(config), 5)
    folder = export.save_unet(unet, tmp_path / "unet")
    assert load.load_unet(folder).config == config
    assert load.load_unet(folder / "diffusion_pytorch_model.safetensors").config == config
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"put a config\.json beside the weights"):  # 32 groups of 16 channels
        load.load_unet(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is a list, expected an object"),
        ('{"block_out_channels": 7}', "block_out_channels=7 is not a list"),
        ('{"down_block_types": ["DownBlock2D", "DownBlock2D"]}', "is not Stable Diffusion's"),
    ],
)
def test_a_config_that_is_none_is_named(tmp_path: Path, sd1: Small, content, message):
    folder = export.save_unet(sd1.unet, tmp_path / "unet")
    (folder / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=message):
        load.load_unet(folder)


def test_a_text_encoder_folder_of_either_age_loads(tmp_path: Path, sd1: Small, equal):
    """Old files hold position_ids, and `text_model.` before every key; transformers 5 writes neither."""
    folder = export.save_text_encoder(sd1.text, tmp_path / "text_encoder")
    old = text_from_module(sd1.text.state_dict()) | {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    for state in (old, {k: v.contiguous() for k, v in sd1.text.state_dict().items()}):
        save_file(state, folder / "model.safetensors")
        assert equal(load.load_text_encoder(folder), sd1.text)


def test_fp16_variants_and_shards_of_a_folder_load(tmp_path: Path, sd1: Small, equal):
    folder = export.save_unet(sd1.unet, tmp_path / "unet")
    whole = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(whole)
    half = {key: value.half() for key, value in state.items()}
    save_file(half, folder / "diffusion_pytorch_model.fp16.safetensors")
    assert equal(load.load_unet(folder), sd1.unet)
    assert equal(load.load_unet(folder, dtype=torch.float16), half)
    whole.unlink()
    assert equal(load.load_unet(folder), half)
    keys = sorted(state)
    names = {key: f"diffusion_pytorch_model-0000{1 + i % 2}-of-00002.safetensors" for i, key in enumerate(keys)}
    for name in set(names.values()):
        save_file({k: state[k] for k in keys if names[k] == name}, folder / name)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert equal(load.load_unet(folder), sd1.unet)


def test_pickled_folders_load_too(tmp_path: Path, sd1: Small, equal):
    folder = export.save_vae(sd1.vae, tmp_path / "vae")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(sd1.vae.state_dict(), folder / "diffusion_pytorch_model.bin")
    assert equal(load.load_vae(folder), sd1.vae)


def test_of_a_hub_repository_only_one_variant_of_what_is_needed_is_taken():
    st, bin_ = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
    shards = [f"unet/diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    half = [f"unet/diffusion_pytorch_model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = [
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    ]
    names = [*shards, *half, *index, f"vae/{st}", f"vae/{bin_}", "vae/diffusion_pytorch_model.fp16.safetensors"]
    names += ["safety_checker/model.safetensors", "text_encoder/pytorch_model.bin", "v1-5-pruned.ckpt"]
    assert set(source.wanted_files(names, source.PARTS, half=False)) == {
        index[0], *shards, f"vae/{st}", "text_encoder/pytorch_model.bin"
    }  # fmt: skip
    assert set(source.wanted_files(names, source.PARTS, half=True)) == {
        index[1], *half, "vae/diffusion_pytorch_model.fp16.safetensors", "text_encoder/pytorch_model.bin"
    }  # fmt: skip


def test_a_hub_id_is_downloaded_and_loaded(tmp_path: Path, sd1: Small, monkeypatch, equal):
    folder = export.save_stable_diffusion(load_sd(sd1.save(tmp_path / "x.safetensors")), tmp_path / "hub")
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    asked = {}
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda hub_id: names)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda hub_id, **kw: asked.update(kw, id=hub_id) or str(folder)
    )
    assert equal(load_sd("someone/a-model").unet, sd1.unet)
    assert asked["id"] == "someone/a-model"
    assert "unet/diffusion_pytorch_model.safetensors" in asked["allow_patterns"]


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.list_repo_files", no_network)
    monkeypatch.setattr("huggingface_hub.snapshot_download", no_network)
    with pytest.raises(WeightsError, match="nobody/nothing is neither a path here nor a repository"):
        load_sd("nobody/nothing")


@pytest.mark.parametrize("name", ["models/v1-5.safetensors", "nothing-here", "a/b/c.ckpt"])
def test_a_source_that_is_nowhere_is_named(name):
    with pytest.raises(WeightsError, match=f"{name} is not there"):
        load_sd(name)


@pytest.mark.parametrize("name", source.STAGES)
def test_a_model_that_does_not_ship_yet_is_named_with_what_trains_it_until_its_folder_is_there(
    tmp_path: Path, name, monkeypatch, control: ControlNet
):
    monkeypatch.setattr(source, "PRETRAINED", tmp_path)
    what, command, result = source.STAGES[name]
    words = f"this version ships no trained {what} yet .{name}.: train one with `{command}`, then give {result}"
    with pytest.raises(WeightsError, match=words):
        source.resolve(name)
    control.save(tmp_path / name)
    assert source.resolve(name) == tmp_path / name


def test_a_controlnets_hub_id_is_downloaded_and_loaded(tmp_path: Path, control: ControlNet, monkeypatch, equal):
    folder = control.save(tmp_path / "hub")
    names, asked = [p.name for p in folder.iterdir()], {}
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda hub_id: [*names, "diffusion_pytorch_model.bin"])
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda hub_id, **kw: asked.update(kw) or str(folder))
    assert equal(ControlNet.load("someone/a-controlnet"), control)
    assert "diffusion_pytorch_model.safetensors" in asked["allow_patterns"]
    assert "diffusion_pytorch_model.bin" not in asked["allow_patterns"]


@pytest.mark.parametrize("word", ["[]", "3", "null"])
def test_a_scheduler_config_that_names_no_prediction_is_an_error_or_the_default(tmp_path: Path, sd1: Small, word):
    folder = export.save_stable_diffusion(load_sd(sd1.save(tmp_path / "x.safetensors")), tmp_path / "folder")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": 3}))
    (folder / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": ' + word + "}")
    if word == "null":
        assert load_sd(folder).scheduler_config["prediction_type"] == "epsilon"
        return
    with pytest.raises(WeightsError, match="says the model predicts"):
        load_sd(folder)
