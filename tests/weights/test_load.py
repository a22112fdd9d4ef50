"""Whole files in the official layouts, and their parts: what is inferred, what is ignored, what is refused."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import minicc
from minicc.cli import main
from minicc.errors import Error, WeightsError
from minicc.models.text import TextConfig, text_encoder
from minicc.models.unet import UNet, UNetConfig
from minicc.models.vae import VAE, VAEConfig
from minicc.outfit.clothing import features
from minicc.pipeline import Hinted
from minicc.small import small_controlnet, small_stable_diffusion
from minicc.weights import fill, load
from minicc.weights.export import save_vae
from minicc.weights.fill import build, widest
from minicc.weights.layouts import TEXT, UNET, put, take, unet_to_compvis
from minicc.weights.parts import vae_to_compvis
from minicc.weights.read import read_state_dict
from tests.weights.conftest import Small, compvis_state, load_sd, shake


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_compvis_file_gives_back_the_models_that_it_was_made_of(tmp_path: Path, small: Small, suffix, equal):
    path = tmp_path / f"model{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": small.state, "callbacks": {Small: 1}}, path)
    else:
        small.save(path)
    parts = load_sd(path)
    assert equal(parts.unet, small.unet)
    assert equal(parts.vae, small.vae)
    assert equal(parts.text_encoder, small.text)
    assert parts.unet.config.heads == small.unet.config.heads
    assert parts.family == ("sd2" if small.sd2 else "sd1") + ("-inpaint" if small.unet.config.in_channels == 9 else "")


def test_no_weight_of_the_text_encoder_stays_random(tmp_path: Path, small: Small):
    """Trap 3: CLIPTextModel's keys have no `text_model.` in transformers 5, the files' have: prove it by the output."""
    parts = load_sd(small.save(tmp_path / "x.safetensors"))
    ids = torch.tensor([[97, *range(20), *[98] * 56]])
    with torch.no_grad():
        assert torch.equal(parts.text_encoder(ids).last_hidden_state, small.text(ids).last_hidden_state)
    assert not any(t.is_meta for t in [*parts.text_encoder.parameters(), *parts.text_encoder.buffers()])


def test_what_shapes_cannot_tell_follows_the_official_rule(tmp_path: Path, sd1: Small, sd2: Small):
    """Trap 5: 8 heads in SD 1.x, 64 channels a head in SD 2.x and the text encoders; quick_gelu and gelu."""
    one, two = (load_sd(sd.save(tmp_path / "x.safetensors")) for sd in (sd1, sd2))
    assert (one.unet.config.heads_of(64), two.unet.config.heads_of(128)) == (8, 2)
    assert (one.text_encoder.config.num_attention_heads, two.text_encoder.config.num_attention_heads) == (1, 2)
    assert (one.text_encoder.config.hidden_act, two.text_encoder.config.hidden_act) == ("quick_gelu", "gelu")
    assert two.text_encoder.config.num_hidden_layers == 3  # the file has 4 blocks


def test_buffers_and_the_ema_copy_are_ignored(tmp_path: Path, sd1: Small, equal):
    """Trap 2: 12 schedule buffers, logvar, model_ema.*, position_ids: there in some files, not in others."""
    ema = {"model_ema." + ("diffusion_model" + key).replace(".", ""): v + 1 for key, v in take(sd1.state, UNET).items()}
    more = ema | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(1, dtype=torch.int32)}
    full = load_sd(sd1.save(tmp_path / "full.safetensors", **more))
    assert equal(full.unet, sd1.unet)
    assert any("EMA copy" in note for note in full.notes)
    bare = {k: v for k, v in sd1.state.items() if k not in ("betas", "logvar") and not k.endswith("position_ids")}
    save_file(bare, tmp_path / "bare.safetensors")
    assert equal(load_sd(tmp_path / "bare.safetensors").unet, sd1.unet)
    averaged = load_sd(tmp_path / "full.safetensors", ema=True).unet
    assert equal(averaged, {key: value + 1 for key, value in sd1.unet.state_dict().items()})
    with pytest.raises(WeightsError, match="has no EMA copy"):
        load_sd(tmp_path / "bare.safetensors", ema=True)


def test_keys_that_belong_to_no_model_are_told(tmp_path: Path, sd1: Small):
    parts = load_sd(sd1.save(tmp_path / "x.safetensors", embedding_manager=torch.ones(2)))
    assert parts.notes == ["1 keys of the file belong to no model and were not used, e.g. embedding_manager"]
    assert load_sd(sd1.save(tmp_path / "x.safetensors")).notes == []


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("wanted", [None, torch.float16, torch.bfloat16, torch.float32])
def test_any_precision_loads_in_any_precision(tmp_path: Path, sd1: Small, stored, wanted):
    save_file(
        {k: v.to(stored) if v.is_floating_point() else v for k, v in sd1.state.items()}, tmp_path / "x.safetensors"
    )
    parts = load_sd(tmp_path / "x.safetensors", dtype=wanted)
    for loaded, made in ((parts.unet, sd1.unet), (parts.vae, sd1.vae), (parts.text_encoder, sd1.text)):
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, made.state_dict()[key].to(stored).to(wanted or stored)), key
            assert value.dtype == (wanted or stored)


def test_parts_of_several_precisions_load_in_the_unets(tmp_path: Path, sd1: Small):
    """As a fine-tuned VAE in float32 beside a model in half precision: what goes from one to the other fits."""
    halves = {k: v.half() if v.is_floating_point() else v for k, v in sd1.state.items()}
    save_file(halves, tmp_path / "x.safetensors")
    save_vae(sd1.vae, tmp_path / "vae")
    parts = load_sd(tmp_path / "x.safetensors", vae=tmp_path / "vae")
    models = (parts.unet, parts.vae, parts.text_encoder)
    assert {p.dtype for model in models for p in model.parameters()} == {torch.float16}


def test_a_file_of_mixed_precision_becomes_wide_throughout():
    assert widest({"a": torch.ones(1).half(), "b": torch.ones(1), "c": torch.arange(2)}) == torch.float32


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_a_file_without_a_part_says_which_and_takes_it_from_elsewhere(tmp_path: Path, sd1: Small, part, equal):
    prefix = {"vae": "first_stage_model.", "text_encoder": "cond_stage_model."}[part]
    whole = sd1.save(tmp_path / "whole.safetensors")
    save_file({k: v for k, v in sd1.state.items() if not k.startswith(prefix)}, tmp_path / "part.safetensors")
    with pytest.raises(WeightsError, match=rf"part\.safetensors has no {part} .*pass {part}="):
        load_sd(tmp_path / "part.safetensors")
    by_path = load_sd(tmp_path / "part.safetensors", **{part: whole})
    module = {"vae": sd1.vae, "text_encoder": sd1.text}[part]
    assert equal(getattr(by_path, part), module)
    assert getattr(load_sd(tmp_path / "part.safetensors", **{part: module}), part) is module


def test_missing_unexpected_and_misshaped_keys_come_in_one_error_with_ten_named(tmp_path: Path, sd1: Small):
    state = unet_to_compvis(sd1.unet.state_dict())
    dropped = [key for key in state if key.startswith("output_blocks.0.0")][:9]
    for key in dropped:
        del state[key]
    state["out.2.bias"] = torch.ones(5)
    state |= {f"input_blocks.1.0.foreign{i}": torch.ones(i + 1) for i in range(4)}
    save_file(put(state, UNET), tmp_path / "x.safetensors")
    with pytest.raises(WeightsError) as error:
        load.load_unet(tmp_path / "x.safetensors")
    text = str(error.value)
    total = len(sd1.unet.state_dict())
    assert f"x.safetensors (U-Net): of {total} keys 9 are missing and 1 of another shape, 4 more are unexpected" in text
    assert "missing up_blocks.0.resnets.0.norm1.weight [128]" in text
    assert "conv_out.bias is [5], expected [4]" in text
    assert text.count("missing up_blocks") == 9
    assert "and 4 more" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_nan_or_infinite_weight_is_found_wherever_it_is(tmp_path: Path, sd1: Small, value, dtype):
    state = {key: v.to(dtype) for key, v in sd1.unet.state_dict().items()}
    state["conv_out.weight"] = state["conv_out.weight"].clone()
    state["conv_out.weight"][3, 7, 1, 1] = value
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"conv_out\.weight holds 1 values of \d+ that are NaN or infinite"):
        load.load_unet(tmp_path / "x.safetensors")


BROKEN = {  # the last number of each is NaN; a part that uses it, and what the error names
    "model.diffusion_model.out.2.weight": (lambda sd: sd.generate(["a hat"], steps=1), "UNet: conv_out.weight"),
    "first_stage_model.decoder.conv_out.weight": (
        lambda sd: sd.decode_latents(torch.zeros(1, 4, 8, 8)),
        "VAE: decoder",
    ),
    "first_stage_model.encoder.conv_out.weight": (
        lambda sd: sd.encode_image(torch.zeros(1, 3, 64, 64)),
        "VAE: encoder",
    ),
    "model.diffusion_model.input_blocks.0.0.weight": (
        lambda sd: features(sd, torch.zeros(1, 3, 64, 64)),
        "UNet: conv_in",
    ),
    TEXT + "transformer.text_model.encoder.layers.0.mlp.fc1.weight": (
        lambda sd: sd.encode_text(["a hat"]),
        "CLIPTextModel: encoder",
    ),
}


@pytest.mark.parametrize("key", BROKEN)
def test_a_nan_that_loading_does_not_reach_is_named_when_it_is_used(tmp_path: Path, monkeypatch, key):
    use, named = BROKEN[key]
    small_stable_diffusion().save(tmp_path / "x.safetensors", layout="compvis")
    state = {k: v.clone() for k, v in read_state_dict(tmp_path / "x.safetensors").items()}
    state[key].view(-1)[-1] = float("nan")
    save_file(state, tmp_path / "x.safetensors")
    monkeypatch.setattr(fill, "FIRST", 16)
    with pytest.raises(WeightsError, match=rf"{re.escape(named)}.* holds 1 values of \d+ that are NaN"):
        use(minicc.load(tmp_path / "x.safetensors"))
    for whole in ({"look": True}, {"dtype": torch.float16}):  # asked to look; or converts, and so reads all
        with pytest.raises(WeightsError, match="NaN"):
            minicc.load(tmp_path / "x.safetensors", **whole)


@pytest.mark.parametrize("option", ["--sd", "--control"])
def test_nothing_broken_is_exported(tmp_path: Path, monkeypatch, capsys, option):
    monkeypatch.setattr(fill, "FIRST", 16)
    sd = small_stable_diffusion()
    model = sd if option == "--sd" else small_controlnet(sd)
    weight = sd.vae.decoder.conv_out.weight if option == "--sd" else model.controlnet_mid_block.weight
    weight.data.view(-1)[-1] = float("nan")
    model.save(tmp_path / "broken")
    assert (
        main(["export", option, str(tmp_path / "broken"), "--layout", "compvis", "--out", str(tmp_path / "out")]) == 2
    )
    assert "NaN" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_controlnets_nan_is_named_as_its_own():
    sd = small_stable_diffusion()
    control = small_controlnet(sd)
    control.conv_in.weight[0, 0, 0, 0] = float("nan")
    speaking = Hinted.of(control, torch.zeros(1, 3, 64, 64))
    context = sd.encode_text(["a hat"])
    with pytest.raises(WeightsError, match=r"ControlNet: conv_in\.weight holds 1 values"):
        sd.guided(context, context, 1, controls=[speaking])(torch.zeros(1, 4, 8, 8), torch.zeros(1))


def test_what_came_in_broken_is_not_put_on_good_weights():
    sd = small_stable_diffusion()
    context = sd.encode_text(["a hat"])
    model = sd.guided(context, context, 1)
    with pytest.raises(
        Error, match=r"UNet gave NaN or infinity, and its weights are good: the input was not finite already"
    ):
        model(torch.full((1, 4, 8, 8), float("inf")), torch.zeros(1))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("conditioner.embedders.0.transformer.text_model.embeddings.position_ids", "Stable Diffusion XL"),
        ("model.diffusion_model.input_blocks.4.1.transformer_blocks.1.norm1.weight", "Stable Diffusion XL"),
        ("add_embedding.linear_1.weight", "Stable Diffusion XL"),
        ("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("transformer_blocks.0.attn.add_q_proj.weight", "Stable Diffusion 3"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("single_transformer_blocks.0.attn.to_q.weight", "Flux"),
        ("model.diffusion_model.label_emb.0.0.weight", "unCLIP"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "a LoRA"),
    ],
)
def test_another_family_is_refused_by_its_name(tmp_path: Path, sd1: Small, key, name):
    path = sd1.save(tmp_path / "x.safetensors", **{key: torch.ones(2)})
    for loader in (load.load_stable_diffusion, load.load_unet, load.load_controlnet):
        with pytest.raises(WeightsError, match=f"{name}.*minicc reads Stable Diffusion 1"):
            loader(path)


def test_a_vae_loads_alone_from_every_layout(tmp_path: Path, sd1: Small, equal):
    """Trap 4; a VAE file of CompVis also holds its loss."""
    new = sd1.vae.state_dict()
    words = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, value in new.items():
        for now, was in words.items():
            key = key.replace(now, was)
        old[key] = value
    assert old.keys() != new.keys()
    compvis = vae_to_compvis(new) | {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.tensor(0.9)}
    for i, state in enumerate([new, old, compvis, sd1.state]):
        save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / f"{i}.safetensors")
        assert equal(load.load_vae(tmp_path / f"{i}.safetensors"), sd1.vae), i


def test_each_model_loads_alone_from_a_whole_file(tmp_path: Path, small: Small, equal):
    path = small.save(tmp_path / "x.safetensors")
    assert equal(load.load_unet(path), small.unet)
    assert equal(load.load_vae(path), small.vae)
    assert equal(load.load_text_encoder(path), small.text)


@pytest.mark.parametrize(
    ("loader", "what"),
    [
        (load.load_unet, "no U-Net among the 1 keys"),
        (load.load_vae, "no VAE among"),
        (load.load_text_encoder, "no text encoder among"),
        (load.load_controlnet, "no ControlNet among"),
    ],
)
def test_a_file_of_something_else_says_what_was_looked_for(tmp_path: Path, loader, what):
    save_file({"fc.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=what):
        loader(tmp_path / "x.safetensors")


def test_loaded_models_share_the_mapped_file_where_nothing_is_converted(tmp_path: Path, sd1: Small):
    """No copy: the parameter is the file's memory; and training on it never reaches the file."""
    path = sd1.save(tmp_path / "x.safetensors")
    before = path.read_bytes()
    state = read_state_dict(path)
    unet = build(lambda: UNet(sd1.unet.config), {k: state[UNET + c] for k, c in named(sd1).items()}, "x")
    assert unet.conv_in.weight.data_ptr() == state[UNET + "input_blocks.0.0.weight"].data_ptr()
    with torch.no_grad():
        unet.conv_in.weight.zero_()
    assert path.read_bytes() == before


def named(sd: Small) -> dict[str, str]:
    """diffusers key → CompVis key."""
    numbered = {key: torch.tensor(i) for i, key in enumerate(sd.unet.state_dict())}
    compvis = {int(v): key for key, v in unet_to_compvis(numbered).items()}
    return {key: compvis[int(v)] for key, v in numbered.items()}


def test_models_that_are_saved_alone_do_not_drag_the_whole_file_along(tmp_path: Path, sd2: Small):
    parts = load_sd(sd2.save(tmp_path / "x.safetensors"))
    torch.save(parts.text_encoder.state_dict(), tmp_path / "text.pth")
    held = sum(v.nbytes for v in parts.text_encoder.state_dict().values())
    assert (tmp_path / "text.pth").stat().st_size < 1.1 * held + 50_000


def test_a_whole_file_with_other_widths_and_depths_loads(tmp_path: Path, equal):
    unet = shake(UNet(UNetConfig(block_out_channels=(32, 32, 64), layers_per_block=1, cross_attention_dim=128)), 1)
    vae = shake(VAE(VAEConfig(block_out_channels=(32, 64, 64, 96), layers_per_block=2, latent_channels=4)), 2)
    size = {"hidden_size": 128, "intermediate_size": 96, "num_attention_heads": 2, "num_hidden_layers": 1}
    text = shake(text_encoder(TextConfig(vocab_size=300, eos_token_id=299, max_position_embeddings=40, **size)), 3)
    save_file(compvis_state(unet, vae, text, False), tmp_path / "x.safetensors")
    parts = load_sd(tmp_path / "x.safetensors")
    assert equal(parts.unet, unet)
    assert equal(parts.vae, vae)
    assert equal(parts.text_encoder, text)
