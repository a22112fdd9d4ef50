"""Out again: bit for bit, and opened by the libraries that others use."""

import json
import os
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file

from minicc.errors import Error, WeightsError
from minicc.models.controlnet import ControlNet
from minicc.models.text import TextConfig, text_encoder
from minicc.models.unet import UNet, UNetConfig
from minicc.weights import export, load
from minicc.weights.read import read_metadata
from tests.weights.conftest import Small, load_sd, shake


def test_compvis_to_models_to_compvis_changes_no_bit_and_no_key(tmp_path: Path, small: Small, equal):
    """Schedule buffers, position_ids and the tower's unused end included."""
    path = small.save(tmp_path / "a.safetensors")
    again = export.save_stable_diffusion(load_sd(path), tmp_path / "b.safetensors", layout="compvis")
    assert equal(load_file(again), load_file(path))


def test_diffusers_to_models_to_diffusers_changes_no_bit_and_no_key(tmp_path: Path, small: Small, equal):
    first = export.save_stable_diffusion(load_sd(small.save(tmp_path / "x.safetensors")), tmp_path / "a")
    second = export.save_stable_diffusion(load_sd(first), tmp_path / "b")
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_from_one_layout_over_the_other_and_back_changes_no_weight(tmp_path: Path, small: Small, equal):
    folder = export.save_stable_diffusion(load_sd(small.save(tmp_path / "x.safetensors")), tmp_path / "folder")
    single = export.save_stable_diffusion(load_sd(folder), tmp_path / "y.safetensors", layout="compvis")
    parts = load_sd(single)
    assert equal(parts.unet, small.unet)
    assert equal(parts.vae, small.vae)
    assert equal(parts.text_encoder, small.text)


def test_diffusers_opens_the_folder_and_computes_the_same(tmp_path: Path, small: Small):
    """Traps 5 and 6: heads, norm eps, timestep embedding, GEGLU and paddings agree, or the outputs would not."""
    folder = export.save_stable_diffusion(load_sd(small.save(tmp_path / "x.safetensors")), tmp_path / "folder")
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae")
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, small.unet.config.in_channels, 8, 8, generator=generator)
    t, context = torch.tensor([7, 900]), torch.randn(2, 77, small.unet.config.cross_attention_dim, generator=generator)
    z, image = torch.randn(1, 4, 8, 8, generator=generator), torch.rand(1, 3, 16, 16, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(small.unet(x, t, context), unet(x, t, context).sample, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(small.vae.decode(z), vae.decode(z).sample, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            small.vae.encode(image).mean, vae.encode(image).latent_dist.mean, rtol=1e-4, atol=1e-5
        )


def test_transformers_opens_the_text_encoder_with_no_key_left_over(tmp_path: Path, small: Small):
    folder = export.save_text_encoder(small.text, tmp_path / "text_encoder")
    text, info = transformers.CLIPTextModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ids = torch.tensor([[97, *range(20), *[98] * 56]])
    with torch.no_grad():
        assert torch.equal(text(ids).last_hidden_state, small.text(ids).last_hidden_state)


def test_a_pipeline_opens_the_whole_folder(tmp_path: Path, sd1: Small, equal):
    folder = export.save_stable_diffusion(load_sd(sd1.save(tmp_path / "x.safetensors")), tmp_path / "folder")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, tokenizer=None)  # 99 words are no vocabulary
    assert equal(pipeline.unet, sd1.unet)
    assert equal(pipeline.vae, sd1.vae)
    assert type(pipeline.scheduler) is diffusers.DDIMScheduler
    assert pipeline.scheduler.config.prediction_type == "epsilon"


def test_the_tokenizer_travels_with_the_folder(tmp_path: Path, sd1: Small):
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for name in ("vocab.json", "merges.txt"):
        (tokenizer / name).write_text("{}")
    parts = load_sd(sd1.save(tmp_path / "x.safetensors"))
    first = export.save_stable_diffusion(parts, tmp_path / "a", tokenizer=tokenizer)
    second = export.save_stable_diffusion(load_sd(first), tmp_path / "b")
    assert sorted(p.name for p in (second / "tokenizer").iterdir()) == ["merges.txt", "vocab.json"]
    assert json.loads((second / "model_index.json").read_text())["tokenizer"] == ["transformers", "CLIPTokenizer"]
    assert load_sd(second).tokenizer_source == second / "tokenizer"


def test_diffusers_reads_our_single_file(tmp_path: Path, sd1: Small, equal):
    """Its own converter, against ours: the U-Net and the VAE of a CompVis file that we wrote."""
    parts = load_sd(sd1.save(tmp_path / "x.safetensors"))
    folder = export.save_stable_diffusion(parts, tmp_path / "folder")
    single = str(export.save_stable_diffusion(parts, tmp_path / "y.safetensors", layout="compvis"))
    unet = diffusers.UNet2DConditionModel.from_single_file(single, config=str(folder), subfolder="unet")
    vae = diffusers.AutoencoderKL.from_single_file(single, config=str(folder), subfolder="vae")
    assert equal(unet, sd1.unet)
    assert equal(vae, sd1.vae)


@pytest.mark.parametrize("layout", ["diffusers", "compvis"])
def test_a_controlnet_comes_back_from_both_layouts(tmp_path: Path, control: ControlNet, layout, equal):
    path = control.save(tmp_path / ("c.safetensors" if layout == "compvis" else "c"), layout=layout)
    loaded = ControlNet.load(path)
    assert equal(loaded, control)
    assert loaded.config == control.config


@pytest.mark.parametrize("layout", ["diffusers", "compvis"])
@pytest.mark.parametrize("phase", [None, 1, 2])
def test_a_controlnet_says_which_phase_it_was_trained_for_and_an_official_one_does_not(
    tmp_path: Path, control: ControlNet, phase, layout
):
    control.phase = phase
    path = control.save(tmp_path / ("c.safetensors" if layout == "compvis" else "c"), layout=layout)
    control.phase = None
    assert ControlNet.load(path).phase == phase


def test_diffusers_reads_a_config_with_a_phase_without_a_word(tmp_path: Path, control: ControlNet, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(diffusers.configuration_utils.logger, "warning", said.append)
    control.phase = 2
    diffusers.ControlNetModel.from_pretrained(control.save(tmp_path / "c"))
    control.phase = None
    assert said == []


def test_a_phase_that_does_not_exist_is_named(control: ControlNet):
    config = control.to_config() | {"_minicc_phase": 3}
    with pytest.raises(Error, match="_minicc_phase is 3, expected 1 or 2"):
        ControlNet.from_config(config)


def test_diffusers_opens_the_controlnet_and_computes_the_same(tmp_path: Path):
    """Trap 8 too: the released hint encoder, stride 8."""
    unet = UNet(UNetConfig(block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=64))
    control = shake(ControlNet.from_unet(unet, (16, 32, 96, 256)), 3)
    reference = diffusers.ControlNetModel.from_pretrained(export.save_controlnet(control, tmp_path / "c"))
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([7, 900])
    context, hint = torch.randn(2, 77, 64, generator=generator), torch.rand(2, 3, 64, 64, generator=generator)
    with torch.no_grad():
        ours, theirs = control(x, t, context, hint), reference(x, t, context, hint)
    for a, b in zip(
        (*ours.skips, ours.middle), (*theirs.down_block_res_samples, theirs.mid_block_res_sample), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_controlnet_file_has_the_keys_that_a1111_and_comfyui_look_for(tmp_path: Path, control: ControlNet, equal):
    path = export.save_controlnet(control, tmp_path / "c.safetensors", layout="compvis")
    keys = load_file(path).keys()
    assert {"control_model.zero_convs.0.0.weight", "control_model.input_hint_block.0.weight"} <= keys
    assert all(key.startswith("control_model.") for key in keys)


def test_a_vae_file_has_the_bare_keys_that_a1111_and_comfyui_look_for(tmp_path: Path, sd1: Small, equal):
    path = export.save_vae(sd1.vae, tmp_path / "vae.safetensors", layout="compvis")
    state = load_file(path)
    assert "decoder.up.1.block.0.norm1.weight" in state
    assert list(state["encoder.mid.attn_1.q.weight"].shape) == [64, 64, 1, 1]
    assert equal(load.load_vae(path), sd1.vae)


def test_a_small_models_heads_and_groups_travel_in_the_header(tmp_path: Path, equal):
    """Shapes cannot tell them; the header's note does, and only minicc reads it."""
    unet = shake(UNet(UNetConfig(block_out_channels=(16, 32), cross_attention_dim=24, heads=2, norm_num_groups=8)), 5)
    path = export.save_unet(unet, tmp_path / "u.safetensors", layout="compvis")
    loaded = load.load_unet(path)
    assert loaded.config == unet.config
    assert equal(loaded, unet)
    assert read_metadata(path)["format"] == "pt"


def test_what_was_settled_about_the_prediction_travels_in_the_header(tmp_path: Path, sd2: Small):
    parts = load_sd(sd2.save(tmp_path / "x.safetensors"), prediction="v_prediction")
    path = export.save_stable_diffusion(parts, tmp_path / "y.safetensors", layout="compvis")
    again = load.load_stable_diffusion(path)
    assert again.scheduler_config == parts.scheduler_config
    assert again.notes == []


def test_half_precision_can_be_written(tmp_path: Path, sd1: Small, equal):
    path = export.save_unet(sd1.unet, tmp_path / "unet", dtype=torch.float16)
    halved = {key: value.half() for key, value in sd1.unet.state_dict().items()}
    assert equal(load_file(path / "diffusion_pytorch_model.safetensors"), halved)


def test_saving_over_the_file_that_is_still_mapped_is_safe(tmp_path: Path, sd1: Small, equal):
    path = sd1.save(tmp_path / "x.safetensors")
    before = load_file(path)
    parts = load_sd(path)
    with torch.no_grad():
        parts.unet.conv_in.bias.add_(1)
    export.save_stable_diffusion(parts, path, layout="compvis")
    after = load_file(path)
    assert torch.equal(after["model.diffusion_model.input_blocks.0.0.bias"], sd1.unet.conv_in.bias + 1)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"model.diffusion_model.input_blocks.0.0.bias"}


def test_a_broken_run_leaves_the_old_file_and_no_debris(tmp_path: Path, sd1: Small, monkeypatch):
    path = export.save_unet(sd1.unet, tmp_path / "u.safetensors", layout="compvis")
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(WeightsError, match=r"could not be written \(No space left"):
        export.save_unet(sd1.unet, path, layout="compvis")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["u.safetensors"]


@pytest.mark.parametrize(
    ("path", "layout", "message"),
    [
        ("x.safetensors", "a1111", "expected 'diffusers' or 'compvis'"),
        ("x.ckpt", "compvis", r"written as \.safetensors"),
    ],
)
def test_a_wrong_layout_or_ending_is_named(tmp_path: Path, sd1: Small, path, layout, message):
    with pytest.raises(WeightsError, match=message):
        export.save_unet(sd1.unet, tmp_path / path, layout=layout)


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_a_text_encoder_with_the_whole_vocabulary_gets_clips_tokenizer(tmp_path: Path, name, request, equal):
    parts = load_sd(request.getfixturevalue(name).save(tmp_path / "x.safetensors"))
    config = TextConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1)
    parts.text_encoder = text_encoder(config)
    folder = export.save_stable_diffusion(parts, tmp_path / "folder")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    ids = pipeline.tokenizer("a red dress", padding="max_length", max_length=77).input_ids
    assert ids == [49406, 320, 736, 2595, 49407] + 72 * [49407 if name == "sd1" else 0]
    assert load_sd(folder).tokenizer_source == folder / "tokenizer"
