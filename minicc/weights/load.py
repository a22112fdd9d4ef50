"""Loading official weights, each model alone or a whole Stable Diffusion: a file, a diffusers folder, or a hub id.

The steps are the same for all: open_weights reads (source.py), any_… gives the form diffusers' names (forms.py), a
config is found or inferred (infer.py), build makes the module without memory and fills it (fill.py).
"""

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minicc.errors import WeightsError
from minicc.models.controlnet import ControlNet
from minicc.models.garment_ways import from_config as control_from_config
from minicc.models.text import TextConfig, text_encoder
from minicc.models.unet import UNet, UNetConfig
from minicc.models.vae import VAE, VAEConfig
from minicc.weights.fill import build
from minicc.weights.forms import (
    DIFFERENCE,
    SCHEDULE,
    add_base,
    any_control,
    any_text,
    any_unet,
    any_vae,
    leftovers,
)
from minicc.weights.infer import (
    family,
    infer_controlnet_config,
    infer_text_config,
    infer_unet_config,
    infer_vae_config,
    is_openclip,
    refuse_pipeline,
    refuse_strangers,
)
from minicc.weights.layouts import CONTROL, TEXT, State, take, unet_from_ema
from minicc.weights.parts import openclip_unused, text_to_module
from minicc.weights.prediction import find_prediction, scheduler_config
from minicc.weights.source import PARTS, Weights, noted, open_weights, read_json, resolve

Device = torch.device | str | None
Dtype = torch.dtype | None
Source = str | Path


@dataclass
class Parts:
    """A Stable Diffusion, in pieces."""

    unet: UNet
    vae: VAE
    text_encoder: nn.Module
    family: str  # "sd1", "sd1-inpaint", "sd2", "sd2-inpaint"
    scheduler_config: dict[str, Any]  # diffusers' words; prediction_type is in it
    tokenizer_source: Path | None = None  # the folder of a tokenizer; None: take the official vocabulary
    notes: list[str] = field(default_factory=list)  # what was assumed or left out, one sentence each
    extra: State = field(default_factory=dict)  # what the CompVis file holds beside the models, for a faithful export
    tokenizer: Any = None  # one to save with them: transformers'


def load_unet(source: Source, device: Device = None, dtype: Dtype = None, *, ema: bool = False) -> UNet:
    """A U-Net from a diffusers folder or file, from CompVis keys alone, or out of a whole CompVis file.

    device: None is the CPU. dtype: None is the file's. ema: take the averaged copy, if the file has one.
    Raises WeightsError: see read_state_dict, build, refuse_strangers.
    """
    return unet_from(open_weights(source, "unet", dtype == torch.float16), device, dtype, ema)


def load_vae(source: Source, device: Device = None, dtype: Dtype = None, *, look: bool = False) -> VAE:
    """A VAE from a diffusers folder or file (old or new attention names), a CompVis VAE or whole CompVis file.

    look: see `load_stable_diffusion`.
    """
    return vae_from(replace(open_weights(source, "vae", dtype == torch.float16), look=look), device, dtype)


def load_text_encoder(source: Source, device: Device = None, dtype: Dtype = None) -> nn.Module:
    """A CLIPTextModel from a diffusers folder or file, or out of a whole CompVis file (CLIP or OpenCLIP)."""
    return text_from(open_weights(source, "text_encoder", dtype == torch.float16), device, dtype)


def load_controlnet(
    source: Source,
    device: Device = None,
    dtype: Dtype = None,
    *,
    unet: UNet | None = None,
    difference: bool | None = None,
    look: bool = False,
) -> ControlNet:
    """A ControlNet: diffusers folder or file, `control_model.*`, the same keys bare, or a whole v1.0 model.

    A difference file needs `unet`, the base it is added to; any other must fit it, if it is given, and comes to the
    U-Net's device and in its dtype, unless others are named. difference: None: it is one if it has the key
    "difference", by which the tools that write such files mark them; True for a file that lacks the mark. look: see
    `load_stable_diffusion`.
    """
    weights = open_weights(source, "controlnet", dtype == torch.float16)
    refuse_strangers(weights.state)
    state = any_control(weights.state)
    if DIFFERENCE in weights.state if difference is None else difference:
        if unet is None:
            raise WeightsError(
                f"{weights.name} holds only the difference to a base model: pass unet=, the U-Net it is to control"
            )
        state = add_base(state, unet)

    def make() -> ControlNet:
        made = noted(weights, "controlnet", control_from_config)
        return made or ControlNet(*infer_controlnet_config(state))

    if unet is not None:
        device, dtype = device or unet.conv_in.weight.device, dtype or unet.conv_in.weight.dtype
    control = build(make, state, weights.name, device, dtype, weights.release, look)
    if unet is not None:
        control.check_fits(unet)
    return control


def load_stable_diffusion(
    source: Source,
    device: Device = None,
    dtype: Dtype = None,
    prediction: str | None = None,
    *,
    vae: Source | VAE | None = None,
    text_encoder: Source | nn.Module | None = None,
    ema: bool = False,
    look: bool = False,
) -> Parts:
    """U-Net, VAE, text encoder and schedule of SD 1.x or 2.x, from a CompVis file, a diffusers folder or a hub id.

    prediction: "epsilon" or "v_prediction"; None: as the scheduler's config or a yaml beside the file says; if neither
    does, an SD 2.x is assumed to be what its name says, and `notes` and a warning say so.
    vae, text_encoder: to use instead of the source's own, or where it has none: a module, or a path.
    ema: take the U-Net's averaged copy, if the file has one. look: at every number for NaN; else only at the first of
    each tensor that stays mapped, see `fill.build`.
    Raises WeightsError: what is missing, damaged, unsafe or of another family.
    """
    path = resolve(source, PARTS, dtype == torch.float16)
    given = {"vae": vae, "text_encoder": text_encoder}
    opened = _open_folder(path, given, dtype == torch.float16) if path.is_dir() else _open_file(path, given)
    opened = {part: replace(weights, look=look) for part, weights in opened.items()}
    unet = unet_from(opened["unet"], device, dtype, ema)
    dtype = dtype or unet.conv_in.weight.dtype  # one for all: a VAE may be stored in another
    kind = family(opened["unet"].state)
    sd2 = kind.startswith("sd2")
    schedule, notes = _schedule(path, kind, prediction)
    if sd2 and schedule["prediction_type"] == "v_prediction" and noted(opened["unet"], "unet", dict) is None:
        unet.config = replace(unet.config, sample_size=96)  # the official 768-v models; no shape tells
    extra, more = _account(opened["unet"].state, ema) if path.is_file() else ({}, [])
    return Parts(
        unet=unet,
        vae=vae if isinstance(vae, VAE) else vae_from(opened["vae"], device, dtype),
        text_encoder=text_encoder
        if isinstance(text_encoder, nn.Module)
        else text_from(opened["text_encoder"], device, dtype, sd2),
        family=kind,
        scheduler_config=schedule,
        tokenizer_source=path / "tokenizer" if [*path.glob("tokenizer/*.json")] else None,
        notes=notes + more,
        extra=extra,
    )


def unet_from(weights: Weights, device: Device, dtype: Dtype, ema: bool = False) -> UNet:
    refuse_strangers(weights.state)
    state = any_unet(_averaged(weights) if ema else weights.state)
    config = noted(weights, "unet", UNetConfig.from_config) or infer_unet_config(state)
    return build(lambda: UNet(config), state, f"{weights.name} (U-Net)", device, dtype, weights.release, weights.look)


def vae_from(weights: Weights, device: Device, dtype: Dtype) -> VAE:
    state = any_vae(weights.state)
    config = noted(weights, "vae", VAEConfig.from_config) or infer_vae_config(state)
    return build(lambda: VAE(config), state, f"{weights.name} (VAE)", device, dtype, weights.release, weights.look)


def text_from(weights: Weights, device: Device, dtype: Dtype, sd2: bool | None = None) -> nn.Module:
    """transformers 5's CLIPTextModel: its keys are the folder's less `text_model.`, and build proves none is left."""
    state = any_text(weights.state)
    sd2 = is_openclip(weights.state) or sd2
    config = noted(weights, "text_encoder", TextConfig.from_config) or infer_text_config(state, sd2)
    name = f"{weights.name} (text encoder)"
    return build(
        lambda: text_encoder(config), text_to_module(state), name, device, dtype, weights.release, weights.look
    )


def _averaged(weights: Weights) -> State:
    average = unet_from_ema(weights.state)
    if not average:
        raise WeightsError(f"{weights.name} has no EMA copy (model_ema.…): load it with ema=False")
    return average


def _open_file(path: Path, given: dict[str, Any]) -> dict[str, Weights]:
    """A whole CompVis file gives all three; each part that was given as a path is opened from there instead."""
    whole = open_weights(path, "unet")
    refuse_strangers(whole.state)
    opened = {"unet": whole}
    for part, form, prefix in (
        ("vae", any_vae, "first_stage_model.…"),
        ("text_encoder", any_text, "cond_stage_model.…"),
    ):
        if given[part] is not None:
            opened |= _open_given(part, given[part])
            continue
        try:
            form(whole.state)
        except WeightsError:
            raise WeightsError(f"{path.name} has no {part} ({prefix}): pass {part}=, a module or a path") from None
        opened[part] = whole
    return opened


def _open_folder(folder: Path, given: dict[str, Any], half: bool) -> dict[str, Weights]:
    """A diffusers folder: unet/, vae/, text_encoder/, each with its config.json."""
    refuse_pipeline((read_json(folder / "model_index.json") or {}).get("_class_name", ""))
    opened: dict[str, Weights] = {}
    for part in PARTS:
        if given.get(part) is not None:
            opened |= _open_given(part, given[part])
        elif (folder / part).is_dir():
            opened[part] = open_weights(folder / part, part, half)
        else:
            there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
            also = "" if part == "unet" else f", or pass {part}="
            raise WeightsError(f"{folder} has no {part}/ (it has {there}): give a whole diffusers folder{also}")
    return opened


def _open_given(part: str, value: Any) -> dict[str, Weights]:
    return {} if isinstance(value, nn.Module) else {part: open_weights(value, part)}


def _schedule(path: Path, kind: str, prediction: str | None) -> tuple[dict[str, Any], list[str]]:
    """The schedule in diffusers' words, and what had to be assumed about the prediction, if anything: warned about."""
    found, assumed = find_prediction(path, kind, prediction)
    if assumed:
        warnings.warn(assumed, stacklevel=3)
    return scheduler_config(path, found), [assumed] if assumed else []


def _account(state: State, ema: bool) -> tuple[State, list[str]]:
    """What a CompVis file holds beside the models, and a note on what of it is not kept."""
    strange = leftovers(state)
    kept = SCHEDULE | strange | {TEXT + key for key in openclip_unused(take(state, TEXT))}
    kept |= {key for key in state if key.endswith(".position_ids")}
    notes = []
    if strange:
        notes.append(f"{len(strange)} keys of the file belong to no model and were not used, e.g. {min(strange)}")
    if any(key.startswith(CONTROL) for key in state):
        notes.append("the file also holds a ControlNet, not used here (load_controlnet reads it)")
    if any(key.startswith("model_ema.diffusion") for key in state) and not ema:
        notes.append("the file also holds an EMA copy of the U-Net, not used (ema=True loads it instead)")
    return {key: state[key] for key in state if key in kept}, notes
