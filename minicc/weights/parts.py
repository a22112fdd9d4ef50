"""CompVis ↔ diffusers names, for the VAE and the two text encoders: pure functions on state dicts, both ways.

U-Net and ControlNet: layouts.py. Here, too, a key that no rule knows keeps its name.
"""

import torch

from minicc.weights.layouts import State, count, put, rename, take

VAE_ATTENTION = {
    "norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0",          # CompVis
    "query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0",                     # diffusers, 2022
}  # fmt: skip
VAE_ATTENTION_BACK = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
CLIP_STEM = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
CLIP_STEM_BACK = {new: old for old, new in CLIP_STEM.items()}
CLIP_LAYER_BACK = {new: old for old, new in CLIP_LAYER.items()}


def vae_to_diffusers(state: State) -> State:
    """CompVis VAE (keys without `first_stage_model.`), or diffusers' with the attention names of 2022 → diffusers.

    CompVis counts the decoder's levels from the picture inwards, diffusers from the latent outwards; its attention
    is made of 1×1 convolutions [C, C, 1, 1], diffusers' of linear layers [C, C].
    """
    levels = count(state, "decoder.up.")
    return _vae_attention(rename(state, lambda key: _vae_name(key, levels)), square=True)


def vae_to_compvis(state: State) -> State:
    """diffusers VAE → CompVis (keys without `first_stage_model.`)."""
    levels = count(state, "decoder.up_blocks.")
    return rename(_vae_attention(state, square=False), lambda key: _vae_name_back(key, levels))


def _vae_name(key: str, levels: int) -> str:
    match key.split("."):
        case [side, "norm_out", leaf]:
            return f"{side}.conv_norm_out.{leaf}"
        case [side, "mid", "attn_1", name, leaf]:
            return f"{side}.mid_block.attentions.0.{VAE_ATTENTION[name]}.{leaf}"
        case [side, "mid_block", "attentions", "0", name, leaf] if name in VAE_ATTENTION:
            return f"{side}.mid_block.attentions.0.{VAE_ATTENTION[name]}.{leaf}"
        case [side, "mid", block, *rest]:
            return f"{side}.mid_block.resnets.{int(block.removeprefix('block_')) - 1}.{_shortcut(rest)}"
        case [side, "down", i, "block", j, *rest]:
            return f"{side}.down_blocks.{i}.resnets.{j}.{_shortcut(rest)}"
        case [side, "down", i, "downsample", *rest]:
            return f"{side}.down_blocks.{i}.downsamplers.0.{'.'.join(rest)}"
        case [side, "up", i, "block", j, *rest]:
            return f"{side}.up_blocks.{levels - 1 - int(i)}.resnets.{j}.{_shortcut(rest)}"
        case [side, "up", i, "upsample", *rest]:
            return f"{side}.up_blocks.{levels - 1 - int(i)}.upsamplers.0.{'.'.join(rest)}"
    return key


def _vae_name_back(key: str, levels: int) -> str:
    match key.split("."):
        case [side, "conv_norm_out", leaf]:
            return f"{side}.norm_out.{leaf}"
        case [side, "mid_block", "attentions", "0", *name, leaf]:
            return f"{side}.mid.attn_1.{VAE_ATTENTION_BACK['.'.join(name)]}.{leaf}"
        case [side, "mid_block", "resnets", j, *rest]:
            return f"{side}.mid.block_{int(j) + 1}.{_shortcut_back(rest)}"
        case [side, "down_blocks", i, "resnets", j, *rest]:
            return f"{side}.down.{i}.block.{j}.{_shortcut_back(rest)}"
        case [side, "down_blocks", i, "downsamplers", "0", *rest]:
            return f"{side}.down.{i}.downsample.{'.'.join(rest)}"
        case [side, "up_blocks", i, "resnets", j, *rest]:
            return f"{side}.up.{levels - 1 - int(i)}.block.{j}.{_shortcut_back(rest)}"
        case [side, "up_blocks", i, "upsamplers", "0", *rest]:
            return f"{side}.up.{levels - 1 - int(i)}.upsample.{'.'.join(rest)}"
    return key


def _vae_attention(state: State, square: bool) -> State:
    """The attention's weights as matrices [C, C], or as 1×1 convolutions [C, C, 1, 1]: the same memory, seen anew."""
    out = dict(state)
    for key, value in state.items():
        if ".attentions.0.to_" in key and key.endswith(".weight"):
            out[key] = value.reshape(value.shape[:2] if square else (*value.shape[:2], 1, 1))
    return out


def _shortcut(rest: list[str]) -> str:
    return ".".join(rest).replace("nin_shortcut", "conv_shortcut")


def _shortcut_back(rest: list[str]) -> str:
    return ".".join(rest).replace("conv_shortcut", "nin_shortcut")


def clip_to_diffusers(state: State) -> State:
    """SD 1.x text encoder (keys without `cond_stage_model.`) → a diffusers folder's: the same names less a prefix."""
    return take(state, "transformer.")


def clip_to_compvis(state: State) -> State:
    return put(state, "transformer.")


def openclip_to_diffusers(state: State) -> State:
    """OpenCLIP text tower of SD 2.x (keys without `cond_stage_model.`) → CLIPTextModel in a diffusers folder.

    `in_proj` is q, k, v stacked. SD 2.x reads the text after the last block but one and `ln_final`: so what
    openclip_unused names is left out, and 23 of ViT-H's 24 blocks remain.
    """
    unused = openclip_unused(state)
    out: State = {}
    for key, value in take({k: v for k, v in state.items() if k not in unused}, "model.").items():
        match key.split("."):
            case ["transformer", "resblocks", i, "attn", ("in_proj_weight" | "in_proj_bias") as name]:
                leaf = name.removeprefix("in_proj_")
                for letter, part in zip("qkv", value.chunk(3), strict=True):
                    out[f"encoder.layers.{i}.self_attn.{letter}_proj.{leaf}"] = part
            case ["transformer", "resblocks", i, *rest] if ".".join(rest[:-1]) in CLIP_LAYER:
                out[f"encoder.layers.{i}.{CLIP_LAYER['.'.join(rest[:-1])]}.{rest[-1]}"] = value
            case _:
                out[CLIP_STEM.get(key, key)] = value
    return put(out, "text_model.")


def openclip_to_compvis(state: State) -> State:
    """The text encoder of a diffusers folder → OpenCLIP (keys without `cond_stage_model.`), with as many blocks."""
    out: State = {}
    for key, value in take(state, "text_model.").items():
        match key.split("."):
            case ["encoder", "layers", i, "self_attn", "q_proj", leaf]:
                qkv = [state[f"text_model.encoder.layers.{i}.self_attn.{x}_proj.{leaf}"] for x in "qkv"]
                out[f"transformer.resblocks.{i}.attn.in_proj_{leaf}"] = torch.cat(qkv)
            case ["encoder", "layers", _, "self_attn", "k_proj" | "v_proj", _] | ["embeddings", "position_ids"]:
                pass  # stacked above; a buffer that OpenCLIP does not have
            case ["encoder", "layers", i, *rest] if ".".join(rest[:-1]) in CLIP_LAYER_BACK:
                out[f"transformer.resblocks.{i}.{CLIP_LAYER_BACK['.'.join(rest[:-1])]}.{rest[-1]}"] = value
            case _:
                out[CLIP_STEM_BACK.get(key, key)] = value
    return put(out, "model.")


def openclip_unused(state: State) -> set[str]:
    """The keys of the tower (without `cond_stage_model.`) that SD 2.x never reads: what follows the last block but one.

    A tower is whole if it has its projection, or ViT-H's 24 blocks; one written from a diffusers folder has neither and
    ends where SD 2.x reads.
    """
    depth = count(state, "model.transformer.resblocks.")
    whole = "model.text_projection" in state or depth == 24
    last = f"model.transformer.resblocks.{depth - 1}."
    end = {"model.text_projection", "model.logit_scale", "model.attn_mask"}
    return {key for key in state if key in end or (whole and key.startswith(last))}


def text_to_module(state: State) -> State:
    """A diffusers folder's text encoder → transformers' CLIPTextModel: since version 5 its keys have no `text_model.`.

    `position_ids` is 0 … 76, a buffer that old files hold and new modules make themselves.
    """
    bare = {key.removeprefix("text_model."): value for key, value in state.items()}
    bare.pop("embeddings.position_ids", None)
    return bare


def text_from_module(state: State) -> State:
    """CLIPTextModel's state, with or without the prefix → a diffusers folder's keys, which have it."""
    return put(text_to_module(state), "text_model.")
