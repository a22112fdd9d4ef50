"""The names, against the tables of every official key (made from the reference classes, see tests/data/layouts)."""

import ast
from pathlib import Path

import pytest
import torch
from torch import Tensor

from minicc.errors import WeightsError
from minicc.models.controlnet import ControlNet
from minicc.models.text import text_encoder
from minicc.models.unet import UNet, UNetConfig
from minicc.models.vae import VAE
from minicc.weights import layouts as L
from minicc.weights import parts as P
from minicc.weights.forms import SCHEDULE, any_control, any_text, any_unet, any_vae, leftovers
from minicc.weights.infer import (
    family,
    infer_controlnet_config,
    infer_text_config,
    infer_unet_config,
    infer_vae_config,
)

TABLES = Path(__file__).parents[1] / "data" / "layouts"
CASES = [  # map, table of the source, prefix there, table of the target, there, back
    ("sd15_unet", "sd15_compvis", L.UNET, "sd15_diffusers_unet", L.unet_to_diffusers, L.unet_to_compvis),
    ("sd21_unet", "sd21_compvis", L.UNET, "sd21_diffusers_unet", L.unet_to_diffusers, L.unet_to_compvis),
    ("vae", "sd15_compvis", L.VAE, "sd15_diffusers_vae_new", P.vae_to_diffusers, P.vae_to_compvis),
    ("clip_l", "sd15_compvis", L.TEXT, "sd15_diffusers_text_encoder", P.clip_to_diffusers, P.clip_to_compvis),
    (
        "openclip_h",
        "sd21_compvis",
        L.TEXT,
        "sd21_diffusers_text_encoder",
        P.openclip_to_diffusers,
        P.openclip_to_compvis,
    ),
    *(
        (f"controlnet_{sd}_prefixed", f"controlnet_{sd}_lllyasviel_prefixed", L.CONTROL, f"controlnet_{sd}_diffusers")
        + (L.controlnet_to_diffusers, L.controlnet_to_compvis)
        for sd in ("sd15", "sd21")
    ),
    ("controlnet_sd15_bare", "controlnet_sd15_lllyasviel_bare", "", "controlnet_sd15_diffusers")
    + (L.controlnet_to_diffusers, L.controlnet_to_compvis),
]
cases = pytest.mark.parametrize(
    ("name", "source", "prefix", "target", "there", "back"), CASES, ids=[c[0] for c in CASES]
)


def rows(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (TABLES / f"{name}.tsv").read_text().splitlines()]


def shapes(name: str) -> dict[str, list[int]]:
    return {key: ast.literal_eval(shape) for key, shape, *_ in rows(name)}


def table(name: str) -> dict[str, Tensor]:
    """The table's keys and shapes; the values number the keys, and along the first axis the places, without memory."""
    out = {}
    for i, (key, shape) in enumerate(shapes(name).items()):
        if not shape:
            out[key] = torch.tensor(float(i))
            continue
        places = i * 10_000 + torch.arange(shape[0], dtype=torch.float64)
        out[key] = places.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    return out


def sketch(x: Tensor) -> list[float]:
    """The numbers of a table's tensor: one for each place of the first axis."""
    return x.reshape(-1).tolist() if x.dim() < 2 else x.flatten(1)[:, 0].tolist()


@cases
def test_every_official_key_gets_its_diffusers_name_and_keeps_its_values(name, source, prefix, target, there, back):
    state = table(source)
    made = there(L.take(state, prefix))
    for old, new, how in rows(f"map_{name}"):
        expected = sketch(state[old])
        if how.startswith("reshape") and "in_proj" in old:  # q, k, v stacked
            third = len(expected) // 3
            at = "qkv".index(new.split("self_attn.")[1][0])
            expected = expected[at * third : (at + 1) * third]
        assert sketch(made[new]) == expected, f"{old} → {new}"


@cases
def test_the_converted_keys_and_shapes_are_exactly_those_of_the_diffusers_folder(
    name, source, prefix, target, there, back
):
    made = {key: list(value.shape) for key, value in there(L.take(table(source), prefix)).items()}
    expected = shapes(target)
    if name == "openclip_h":  # a buffer of old transformers that OpenCLIP does not have
        del expected["text_model.embeddings.position_ids"]
    assert made == expected


@cases
def test_both_ways_together_change_nothing(name, source, prefix, target, there, back):
    state = L.take(table(source), prefix)
    unused = P.openclip_unused(state) if name == "openclip_h" else set()
    again = back(there(state))
    assert again.keys() == state.keys() - unused
    for key in again:
        assert again[key].shape == state[key].shape, key
        assert again[key].dtype == state[key].dtype, key
        assert sketch(again[key]) == sketch(state[key]), key


def test_the_tower_is_read_to_the_last_block_but_one():
    unused = P.openclip_unused(L.take(table("sd21_compvis"), L.TEXT))
    assert {"model.text_projection", "model.logit_scale"} < unused
    assert {key.split(".")[3] for key in unused if "resblocks" in key} == {"23"}


def test_a_tower_that_ends_where_sd2_reads_loses_nothing():
    whole = L.take(table("sd21_compvis"), L.TEXT)
    short = P.openclip_to_compvis(P.openclip_to_diffusers(whole))
    assert P.openclip_unused(short) == set()
    assert L.count(P.openclip_to_diffusers(short), "text_model.encoder.layers.") == 23


def test_vae_attention_has_two_names_and_one_meaning():
    old, new = table("sd15_diffusers_vae_old"), table("sd15_diffusers_vae_new")
    assert {key: list(v.shape) for key, v in P.vae_to_diffusers(old).items()} == shapes("sd15_diffusers_vae_new")
    assert P.vae_to_diffusers(new).keys() == new.keys()
    attention = "decoder.mid_block.attentions.0."
    made = P.vae_to_diffusers(old)
    for was, now in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items():
        assert sketch(made[f"{attention}{now}.weight"]) == sketch(old[f"{attention}{was}.weight"])


def test_the_dotless_names_of_the_ema_copy_find_their_keys():
    ema = table("sd15_compvis_model_ema")
    state = table("sd15_compvis")
    found = L.unet_from_ema(state | ema)
    assert found.keys() == L.take(state, L.UNET).keys()
    key = "output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight"
    dotless = "model_ema.diffusion_modeloutput_blocks111transformer_blocks0attn2to_kweight"
    assert sketch(found[key]) == sketch(ema[dotless])
    used = {value.data_ptr() for value in found.values()}
    assert {key for key, value in ema.items() if value.data_ptr() not in used} == {
        "model_ema.decay",
        "model_ema.num_updates",
    }


@pytest.mark.parametrize(
    ("widths", "layers"), [((32,), 1), ((32, 64), 1), ((32, 64, 64), 3), ((32, 32, 64, 64, 64), 2)]
)
def test_any_depth_and_width_comes_back_from_compvis(widths, layers):
    with torch.device("meta"):
        config = UNetConfig(block_out_channels=widths, layers_per_block=layers, cross_attention_dim=40)
        unet, control = UNet(config), ControlNet(config, (16, 32, 48))
    state, copy = unet.state_dict(), control.state_dict()
    compvis = L.unet_to_compvis(state)
    assert len(compvis) == len(state)
    assert not any(key.startswith(("down_blocks", "up_blocks", "mid_block")) for key in compvis)
    assert L.unet_to_diffusers(compvis) == state
    assert L.controlnet_to_diffusers(L.controlnet_to_compvis(copy)) == copy
    assert infer_unet_config(state) == config
    assert infer_controlnet_config(copy) == (config, (16, 32, 48), 3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sd15_compvis", "sd1"),
        ("sd15_inpaint_compvis", "sd1-inpaint"),
        ("sd21_compvis", "sd2"),
        ("sd15_diffusers_unet", "sd1"),
        ("sd15_inpaint_diffusers_unet", "sd1-inpaint"),
        ("sd21_diffusers_unet", "sd2"),
        ("controlnet_v10_full_ldm_sd15", "sd1"),
    ],
)
def test_the_family_is_read_from_the_weights(name, kind):
    assert family(table(name)) == kind


@pytest.mark.parametrize(
    "name", ["sd15_compvis", "sd15_inpaint_compvis", "sd21_compvis", "controlnet_v10_full_ldm_sd15"]
)
def test_the_models_inferred_from_an_official_file_have_exactly_its_keys_and_shapes(name):
    state = table(name)
    unet, vae, text = any_unet(state), any_vae(state), P.text_to_module(any_text(state))
    with torch.device("meta"):
        models = [
            (UNet(infer_unet_config(unet)), unet),
            (VAE(infer_vae_config(vae)), vae),
            (text_encoder(infer_text_config(any_text(state))), text),
        ]
    for model, expected in models:
        have = {key: list(v.shape) for key, v in model.state_dict().items()}
        assert have == {key: list(v.shape) for key, v in expected.items()}, type(model).__name__


@pytest.mark.parametrize("sd", ["sd15", "sd21"])
def test_the_inferred_controlnet_has_exactly_the_official_keys_and_shapes(sd):
    state = any_control(table(f"controlnet_{sd}_lllyasviel_prefixed"))
    with torch.device("meta"):
        control = ControlNet(*infer_controlnet_config(state))
    assert {key: list(v.shape) for key, v in control.state_dict().items()} == shapes(f"controlnet_{sd}_diffusers")
    assert sum(p.numel() for p in control.parameters()) == {"sd15": 361_279_120, "sd21": 364_228_240}[sd]


def test_the_hint_encoder_is_the_released_one_with_eight_convolutions():
    """Trap 8: 3→16→16→32→32→96→96→256→320, not the four layers of the paper's text."""
    state = L.controlnet_to_diffusers(table("controlnet_sd15_lllyasviel_bare"))
    names = ["conv_in", *(f"blocks.{i}" for i in range(6)), "conv_out"]
    convolutions = [state[f"controlnet_cond_embedding.{name}.weight"].shape for name in names]
    assert [s[1] for s in convolutions] + [convolutions[-1][0]] == [3, 16, 16, 32, 32, 96, 96, 256, 320]
    assert all(list(s[2:]) == [3, 3] for s in convolutions)


@pytest.mark.parametrize(
    "name", ["sd15_compvis", "sd15_inpaint_compvis", "sd21_compvis", "controlnet_v10_full_ldm_sd15"]
)
def test_every_key_of_an_official_file_is_accounted_for(name):
    """Trap 2: what belongs to no model is a schedule buffer or logvar, and is known as such."""
    state = table(name) | (table("sd15_compvis_model_ema") if name == "sd15_compvis" else {})
    assert leftovers(state) == set()
    assert leftovers(state | {"stranger": torch.ones(1)}) == {"stranger"}
    buffers = {key for key in state if "." not in key}
    assert len(buffers) >= 12
    assert buffers <= SCHEDULE


def test_a_key_that_no_rule_knows_keeps_its_name():
    state = {
        "input_blocks.x.0.weight": torch.ones(1),
        "input_blocks.1.0.new.weight": torch.ones(1),
        "mystery": torch.ones(1),
    }
    assert L.unet_to_diffusers(state).keys() == state.keys()


def test_a_file_that_mixes_two_layouts_is_refused():
    state = {"input_blocks.0.0.weight": torch.ones(1), "conv_in.weight": torch.ones(1)}
    with pytest.raises(WeightsError, match=r"two keys of the file both mean conv_in\.weight"):
        L.unet_to_diffusers(state)
