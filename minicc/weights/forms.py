"""Each model comes in several forms; here each form becomes one: diffusers' names, nothing else in the dict."""

import torch

from minicc.errors import WeightsError
from minicc.models.unet import UNet
from minicc.weights.layouts import (
    CONTROL,
    TEXT,
    UNET,
    VAE,
    State,
    controlnet_to_diffusers,
    count,
    take,
    unet_to_diffusers,
)
from minicc.weights.parts import clip_to_diffusers, openclip_to_diffusers, text_from_module, vae_to_diffusers

SCHEDULE = {  # the buffers of a CompVis file that are computed from the schedule
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "logvar",
}  # fmt: skip
DIFFERENCE = "difference"  # the key by which A1111's, Forge's and SD.Next's readers know a difference file


def any_unet(state: State) -> State:
    """Of a whole CompVis file, of CompVis keys alone, or of diffusers keys."""
    unet = take(state, UNET) or state
    if "input_blocks.0.0.weight" in unet and "input_hint_block.0.weight" not in unet:
        unet = unet_to_diffusers(unet)
    if "conv_in.weight" not in unet or not count(unet, "up_blocks."):
        raise WeightsError(f"no U-Net {_among(state)}: expected {UNET}…, or conv_in, down_blocks, up_blocks…")
    return unet


def any_vae(state: State) -> State:
    """Of a whole CompVis file, of a VAE-only file (its loss and EMA left out), or of diffusers keys, old or new."""
    vae = take(state, VAE) or {k: v for k, v in state.items() if not k.startswith(("loss.", "model_ema."))}
    if "encoder.conv_in.weight" not in vae:
        raise WeightsError(f"no VAE {_among(state)}: expected {VAE}…, or encoder…, decoder…")
    return vae_to_diffusers(vae)


def any_text(state: State) -> State:
    """Of a whole CompVis file (CLIP or OpenCLIP) or of a CLIPTextModel's keys, with or without `text_model.`."""
    tower = take(state, TEXT)
    if "model.token_embedding.weight" in tower:
        return openclip_to_diffusers(tower)
    text = text_from_module(clip_to_diffusers(tower) if tower else state)
    if "text_model.embeddings.token_embedding.weight" not in text:
        raise WeightsError(f"no text encoder {_among(state)}: expected {TEXT}…, or text_model…")
    return text


def any_control(state: State) -> State:
    """Of a diffusers file, of `control_model.*`, of the same keys bare, or of a whole v1.0 model."""
    control = take(state, CONTROL) or dict(state)
    control.pop(DIFFERENCE, None)
    if "input_hint_block.0.weight" in control:
        control = controlnet_to_diffusers(control)
    if "controlnet_cond_embedding.conv_in.weight" not in control:
        raise WeightsError(f"no ControlNet {_among(state)}: expected {CONTROL}…, input_hint_block…, or controlnet_…")
    return control


def add_base(control: State, unet: UNet) -> State:
    """Difference file + base: Θ_c = Θ + Δ where the U-Net has the key; hint encoder and zero convolutions are whole.

    Summed in float32, in the file's dtype at the end.
    """
    base = unet.state_dict()
    out = dict(control)
    for key in control.keys() & base.keys():
        delta, theta = control[key], base[key].detach().cpu()
        if delta.shape != theta.shape:
            raise WeightsError(
                f"the difference {key} is {list(delta.shape)}, the base's is {list(theta.shape)}: pass the U-Net of "
                "the family it was made from"
            )
        out[key] = (delta.to(torch.float32) + theta.to(torch.float32)).to(delta.dtype)
    return out


def leftovers(state: State) -> set[str]:
    """Top-level keys of a whole CompVis file that belong to no model, no schedule and no EMA copy."""
    ours = (UNET, VAE, TEXT, CONTROL, "model_ema.")
    return {key for key in state if not key.startswith(ours) and key not in SCHEDULE}


def _among(state: State) -> str:
    return f"among the {len(state)} keys ({', '.join(list(state)[:3])}, …)"
