"""Writing weights where others read them: diffusers folders, and CompVis single files for A1111 and ComfyUI.

Every file is written beside its place and then renamed: a broken run leaves the old file, never half a new one. CompVis
files carry minicc's config in their header (a note that other programs ignore), so that a small model's heads and norm
groups, which shapes cannot tell, come back.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from minicc.atomic import replacing
from minicc.errors import WeightsError
from minicc.models.controlnet import ControlNet
from minicc.models.text import config_of
from minicc.models.tokenizer import find_tokenizer, load_tokenizer
from minicc.models.unet import UNet
from minicc.models.vae import VAE
from minicc.weights.infer import family_of
from minicc.weights.layouts import CONTROL, TEXT, UNET, State, controlnet_to_compvis, put, unet_to_compvis
from minicc.weights.layouts import VAE as VAE_PREFIX
from minicc.weights.parts import clip_to_compvis, openclip_to_compvis, text_from_module, vae_to_compvis
from minicc.weights.read import DTYPES

if TYPE_CHECKING:
    from minicc.weights.load import Parts

DIFFUSERS_VERSION = "0.35.0"  # the oldest that these folders are tested for
PIPELINE = {
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
}
Dtype = torch.dtype | None


def save_unet(unet: UNet, path: str | Path, layout: str = "diffusers", dtype: Dtype = None) -> Path:
    """To a diffusers folder, or (layout="compvis") to a single file whose keys are `model.diffusion_model.…`.

    dtype: to convert to while writing, e.g. torch.float16; None: as it is. Returns the path written.
    """
    config = {"_class_name": "UNet2DConditionModel", "sample_size": 64} | unet.config.to_config()
    if layout == "diffusers":
        return _save_folder(unet.state_dict(), config, path, dtype)
    return _save_single(put(unet_to_compvis(unet.state_dict()), UNET), {"unet": config}, path, layout, dtype)


def save_vae(vae: VAE, path: str | Path, layout: str = "diffusers", dtype: Dtype = None) -> Path:
    """To a diffusers folder, or (layout="compvis") to a VAE file: bare keys, as A1111 and ComfyUI read them."""
    config = {"_class_name": "AutoencoderKL", "sample_size": 512} | vae.config.to_config()
    if layout == "diffusers":
        return _save_folder(vae.state_dict(), config, path, dtype)
    return _save_single(vae_to_compvis(vae.state_dict()), {"vae": config}, path, layout, dtype)


def save_controlnet(control: ControlNet, path: str | Path, layout: str = "diffusers", dtype: Dtype = None) -> Path:
    """To a diffusers folder, or (layout="compvis") to the file that A1111 and ComfyUI read: keys `control_model.…`."""
    config = {"_class_name": "ControlNetModel"} | control.to_config()
    if layout == "diffusers":
        return _save_folder(control.state_dict(), config, path, dtype)
    state = put(controlnet_to_compvis(control.state_dict()), CONTROL)
    return _save_single(state, {"controlnet": config}, path, layout, dtype)


def save_text_encoder(model: nn.Module, path: str | Path, dtype: Dtype = None) -> Path:
    """To a diffusers folder: CLIPTextModel with the official `text_model.` keys, which every transformers reads."""
    config = model.config.to_dict() | {"architectures": ["CLIPTextModel"]}  # type: ignore[union-attr, operator]
    return _save_folder(text_from_module(model.state_dict()), config, path, dtype, stem="model")


def save_stable_diffusion(
    sd: "Parts",
    path: str | Path,
    layout: str = "diffusers",
    dtype: Dtype = None,
    tokenizer: str | Path | None = None,
) -> Path:
    """A whole Stable Diffusion: to a diffusers folder that StableDiffusionPipeline opens, or to a CompVis single file.

    A single file gets back what it held beside the models (`sd.extra`: schedule buffers, the end of the OpenCLIP
    tower), but no EMA copy: after training it would be stale. tokenizer: the folder of the tokenizer to copy, if `sd`
    did not come with one.
    """
    if layout == "diffusers":
        return _save_pipeline(sd, Path(path), dtype, tokenizer)
    sd2 = family_of(sd.unet.config).startswith("sd2")
    text = text_from_module(sd.text_encoder.state_dict())
    state = put(unet_to_compvis(sd.unet.state_dict()), UNET) | put(vae_to_compvis(sd.vae.state_dict()), VAE_PREFIX)
    state |= put(openclip_to_compvis(text) if sd2 else clip_to_compvis(text), TEXT)
    configs = {
        "unet": sd.unet.config.to_config(),
        "vae": sd.vae.config.to_config(),
        "text_encoder": config_of(sd.text_encoder).to_config(),
        "scheduler": _schedule(sd),
    }
    return _save_single(state, configs, path, layout, dtype, sd.extra)


def _save_pipeline(sd: "Parts", folder: Path, dtype: Dtype, tokenizer: str | Path | None) -> Path:
    """The folders first, model_index.json last: a folder that has it is whole."""
    kind, schedule = family_of(sd.unet.config), _schedule(sd)
    save_unet(sd.unet, folder / "unet", dtype=dtype)
    save_vae(sd.vae, folder / "vae", dtype=dtype)
    save_text_encoder(sd.text_encoder, folder / "text_encoder", dtype=dtype)
    write_json(schedule, folder / "scheduler" / "scheduler_config.json")
    index: dict[str, Any] = {"_diffusers_version": DIFFUSERS_VERSION, "requires_safety_checker": False} | PIPELINE
    index["_class_name"] = f"StableDiffusion{'Inpaint' if kind.endswith('-inpaint') else ''}Pipeline"
    index["scheduler"] = ["diffusers", schedule["_class_name"]]
    if not _save_tokenizer(sd, folder / "tokenizer", tokenizer):
        index["tokenizer"] = [None, None]
    write_json(index, folder / "model_index.json")
    return folder


def _schedule(sd: "Parts") -> dict[str, Any]:
    """In diffusers' words; DDIM, if nothing names a sampler."""
    return {"_class_name": "DDIMScheduler"} | sd.scheduler_config


def _save_tokenizer(sd: "Parts", folder: Path, given: str | Path | None) -> bool:
    """Copy the folder that the tokenizer came from, or write CLIP's own if the text encoder has its whole vocabulary.

    False if there is none that fits. SD 1.x pads with the end of text, SD 2.x with 0.
    """
    source = given or sd.tokenizer_source
    if source is not None:
        for file in sorted(file for file in find_tokenizer(Path(source)).iterdir() if file.is_file()):
            _replace(folder / file.name, partial(shutil.copyfile, file))
        if sd.tokenizer is not None:  # its length and padding, which the vocabulary lacks
            _save_files(sd.tokenizer, folder)
        return True
    tokenizer = load_tokenizer(pad_id=0 if sd.family.startswith("sd2") else None)
    fits = len(tokenizer) == config_of(sd.text_encoder).vocab_size
    if fits:
        _save_files(tokenizer, folder)
    return fits


def _save_files(tokenizer: Any, folder: Path) -> None:
    """What transformers writes of a tokenizer, each file whole or not at all."""
    with TemporaryDirectory() as draft:
        tokenizer.save_pretrained(draft)
        for file in sorted(Path(draft).iterdir()):
            _replace(folder / file.name, partial(shutil.copyfile, file))


def _save_folder(
    state: State, config: dict[str, Any], path: str | Path, dtype: Dtype, stem: str = "diffusion_pytorch_model"
) -> Path:
    folder = Path(path)
    write_safetensors(state, folder / f"{stem}.safetensors", {"format": "pt"}, dtype)
    write_json({"_diffusers_version": DIFFUSERS_VERSION} | config, folder / "config.json")
    return folder


def _save_single(
    state: State, configs: dict[str, Any], path: str | Path, layout: str, dtype: Dtype, extra: State | None = None
) -> Path:
    if layout != "compvis":
        raise WeightsError(f"layout={layout!r}: expected 'diffusers' or 'compvis'")
    if Path(path).suffix != ".safetensors":
        raise WeightsError(f"{path}: a single file is written as .safetensors, give it that ending")
    words = {f"minicc.{key}": value if isinstance(value, str) else json.dumps(value) for key, value in configs.items()}
    return write_safetensors(state, Path(path), {"format": "pt"} | words, dtype, extra)


def write_safetensors(
    state: State, path: Path, metadata: dict[str, str], dtype: Dtype = None, extra: State | None = None
) -> Path:
    """The format in full: 8 bytes, the length of a JSON header, the header, the tensors' bytes, one tensor at a time.

    Wide numbers first, so that each lies at a multiple of its size. dtype: of the floats of `state`; `extra` stays.
    """
    kinds = {kind: name for name, kind in DTYPES.items()}
    kind_of = {key: value.dtype for key, value in (extra or {}).items()}
    kind_of |= {key: dtype if dtype and value.is_floating_point() else value.dtype for key, value in state.items()}
    tensors = (extra or {}) | state
    order = sorted(tensors, key=lambda key: (-kind_of[key].itemsize, key))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for key in order:
        start, end = end, end + tensors[key].numel() * kind_of[key].itemsize
        header[key] = {"dtype": kinds[kind_of[key]], "shape": list(tensors[key].shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for key in order:
                value = tensors[key].detach().to("cpu", kind_of[key]).contiguous()
                file.write(value.reshape(-1).view(torch.uint8).numpy().data)

    return _replace(path, write)


def write_json(content: dict[str, Any], path: Path) -> Path:
    """Sorted and indented, as the libraries write it."""
    return _replace(path, lambda temporary: temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n"))


def _replace(path: Path, write: Callable[[Path], Any]) -> Path:
    """What `write` puts into the file that it is given, at `path`. Raises WeightsError if nothing can be written."""
    try:
        with replacing(path) as draft:
            write(draft)
    except OSError as problem:
        raise WeightsError(
            f"{path} could not be written ({problem}): free disk space or choose another place"
        ) from problem
    return path
