"""What a state dict is (its family, or a stranger's name), and the config of each model, read from keys and shapes.

Shapes tell widths, depths and the context's width. What they cannot tell follows the official rule: 8 heads in SD 1.x,
64 channels a head in SD 2.x and in the text encoders, quick_gelu in SD 1.x's text encoder and gelu in SD 2.x's, 32 norm
groups. A config.json beside the weights, or the note that minicc leaves in its own files, wins over all of it.
"""

from collections.abc import Iterable

from minicc.errors import Error, WeightsError
from minicc.models.text import TextConfig
from minicc.models.unet import UNetConfig
from minicc.models.vae import VAEConfig
from minicc.weights.forms import any_unet
from minicc.weights.layouts import TEXT, State, count

KNOWN = "minicc reads Stable Diffusion 1.x and 2.x"
STRANGERS = {  # a piece of a key that gives the family away → its name. The order counts: the rarer piece first
    "joint_blocks.": "Stable Diffusion 3",
    "single_transformer_blocks.": "Flux",
    "double_blocks.": "Flux",
    "conditioner.embedders.": "Stable Diffusion XL",
    "add_embedding.": "Stable Diffusion XL",
    "add_q_proj": "Stable Diffusion 3",
    "down_blocks.0.motion_modules.": "AnimateDiff",
    "time_stack.": "Stable Video Diffusion",
    "lora_controlnet": "a Control-LoRA",
    "lora_unet_": "a LoRA",
    "lora_te_": "a LoRA",
    ".lora_A.": "a LoRA",
    ".lora.down": "a LoRA",
    "string_to_param": "a textual inversion",
    "adapter.body.": "a T2I-Adapter",
}
PIPELINES = {
    "StableDiffusionXL": "Stable Diffusion XL",
    "StableDiffusion3": "Stable Diffusion 3",
    "Flux": "Flux",
    "StableVideo": "Stable Video Diffusion",
    "Kandinsky": "Kandinsky",
    "PixArt": "PixArt",
}


def family(state: State) -> str:
    """'sd1', 'sd1-inpaint', 'sd2' or 'sd2-inpaint', of a whole CompVis file or of a U-Net in either layout.

    SD 2.x is told by its linear projections. Base and 768-v look the same: prediction.py tells them apart.
    Raises WeightsError naming SDXL, SD 3, Flux or another stranger.
    """
    refuse_strangers(state)
    return family_of(infer_unet_config(any_unet(state)))


def family_of(config: UNetConfig) -> str:
    """The same by a U-Net's config."""
    return ("sd2" if config.use_linear_projection else "sd1") + ("-inpaint" if config.in_channels == 9 else "")


def refuse_strangers(keys: Iterable[str]) -> None:
    """Raise WeightsError if the keys are of a family that is not Stable Diffusion 1.x or 2.x, naming it."""
    keys = list(keys)
    for piece, name in STRANGERS.items():
        found = next((key for key in keys if piece in key), None)
        if found:
            raise WeightsError(f"this is {name} (key {found}): {KNOWN}")
    deep = next((key for key in keys if ".transformer_blocks.1." in key), None)
    if deep:
        raise WeightsError(f"this is Stable Diffusion XL (several transformers in a row, key {deep}): {KNOWN}")
    label = next((key for key in keys if "label_emb." in key or key.startswith("class_embedding.")), None)
    if label:
        raise WeightsError(f"this U-Net also takes a class, as unCLIP and upscaler models (key {label}): {KNOWN}")


def refuse_pipeline(class_name: object) -> None:
    """The same by the `_class_name` in a diffusers folder's model_index.json."""
    for start, name in PIPELINES.items():
        if str(class_name).startswith(start):
            raise WeightsError(f"this folder is {name} ({class_name}): {KNOWN}")


def infer_unet_config(state: State) -> UNetConfig:
    """The config of a U-Net, or of a ControlNet's copy, from its state dict in diffusers' names."""
    levels = range(count(state, "down_blocks."))
    widths = tuple(_size(state, f"down_blocks.{i}.resnets.0.conv1.weight", 0) for i in levels)
    block = "mid_block.attentions.0."
    linear = _dims(state, block + "proj_in.weight") == 2
    return _checked(
        UNetConfig,
        in_channels=_size(state, "conv_in.weight", 1),
        out_channels=_size(state, "conv_out.weight", 0) if "conv_out.weight" in state else 4,
        block_out_channels=widths,
        layers_per_block=count(state, "down_blocks.0.resnets."),
        cross_attention_dim=_size(state, block + "transformer_blocks.0.attn2.to_k.weight", 1),
        heads=None if linear else 8,
        use_linear_projection=linear,
    )


def infer_vae_config(state: State) -> VAEConfig:
    """The config of a VAE from its state dict in diffusers' names. All SD 1.x and 2.x scale latents by 0.18215."""
    levels = range(count(state, "encoder.down_blocks."))
    return VAEConfig(
        in_channels=_size(state, "encoder.conv_in.weight", 1),
        out_channels=_size(state, "decoder.conv_out.weight", 0),
        latent_channels=_size(state, "decoder.conv_in.weight", 1),
        block_out_channels=tuple(_size(state, f"encoder.down_blocks.{i}.resnets.0.conv1.weight", 0) for i in levels),
        layers_per_block=count(state, "encoder.down_blocks.0.resnets."),
    )


def infer_text_config(state: State, sd2: bool | None = None) -> TextConfig:
    """The config of a text encoder from its state dict in a diffusers folder's names (`text_model.…`).

    sd2: whether it is SD 2.x's (gelu) or SD 1.x's (quick_gelu); None: SD 2.x's if it is 1024 wide.
    """
    embeddings, layer = "text_model.embeddings.", "text_model.encoder.layers."
    vocabulary = _size(state, embeddings + "token_embedding.weight", 0)
    hidden = _size(state, embeddings + "token_embedding.weight", 1)
    return TextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=_size(state, layer + "0.mlp.fc1.weight", 0),
        num_hidden_layers=count(state, layer),
        num_attention_heads=max(1, hidden // 64),
        max_position_embeddings=_size(state, embeddings + "position_embedding.weight", 0),
        hidden_act="gelu" if (hidden == 1024 if sd2 is None else sd2) else "quick_gelu",
        eos_token_id=vocabulary - 1,  # CLIP's end of text is its last token
    )


def infer_controlnet_config(state: State) -> tuple[UNetConfig, tuple[int, ...], int]:
    """(config of the copy, channels of the hint encoder, channels of the hint) from diffusers' names."""
    hint = "controlnet_cond_embedding."
    wides = range(1, count(state, hint + "blocks."), 2)  # every second convolution widens
    channels = [_size(state, hint + "conv_in.weight", 0), *(_size(state, f"{hint}blocks.{i}.weight", 0) for i in wides)]
    return infer_unet_config(state), tuple(channels), _size(state, hint + "conv_in.weight", 1)


def is_openclip(state: State) -> bool:
    """Whether a whole CompVis file's text encoder is SD 2.x's OpenCLIP tower."""
    return TEXT + "model.token_embedding.weight" in state


def _size(state: State, key: str, axis: int) -> int:
    _dims(state, key)
    return state[key].shape[axis]


def _dims(state: State, key: str) -> int:
    if key not in state:
        raise WeightsError(f"{key} is missing: the file is incomplete, or not of Stable Diffusion 1.x or 2.x")
    return state[key].dim()


def _checked(config: type[UNetConfig], **values: object) -> UNetConfig:
    """UNetConfig refuses what its rules cannot cut into heads: say that a config file would settle it."""
    try:
        return config(**values)  # type: ignore[arg-type]
    except Error as error:
        raise WeightsError(f"{error}. These are the official rule's; put a config.json beside the weights") from None
