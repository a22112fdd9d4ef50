"""CompVis ↔ diffusers names, for the U-Net and the ControlNet: pure functions on state dicts, both ways.

A CompVis U-Net numbers its blocks in one row; diffusers counts them by level. With n residual blocks a level:

    input_blocks:    0 = conv_in | level 0: 1 … n, downsampler n+1 | level 1: n+2 … 2n+1, downsampler 2n+2 | …
    output_blocks:   level 0: 0 … n | level 1: n+1 … 2n+1 | …     (the decoder has n + 1 a level; the upsampler
                                                                   sits in the level's last block)

So block i of the row is divmod(i, n + 1): the whole conversion is that division, for any depth and width.
A key that no rule knows keeps its name, so that the strict loading names it. The VAE and the text encoders: parts.py.
"""

from collections.abc import Callable, Iterable

from torch import Tensor

from minicc.errors import WeightsError

State = dict[str, Tensor]

UNET = "model.diffusion_model."  # prefixes of a CompVis single file
VAE = "first_stage_model."
TEXT = "cond_stage_model."
CONTROL = "control_model."

RESBLOCK = {  # CompVis name → diffusers name, inside a residual block
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
STEM = {  # … and outside all blocks
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "input_blocks.0.0": "conv_in",
    "middle_block_out.0": "controlnet_mid_block",
}
RESBLOCK_BACK = {new: old for old, new in RESBLOCK.items()}
STEM_BACK = {new: old for old, new in STEM.items()}


def take(state: State, prefix: str) -> State:
    """The keys under `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def put(state: State, prefix: str) -> State:
    """Every key with `prefix` before it."""
    return {prefix + key: value for key, value in state.items()}


def rename(state: State, name: Callable[[str], str]) -> State:
    """The same tensors under new names. Raises WeightsError if two keys would get the same name."""
    out: State = {}
    for key, value in state.items():
        new = _or_same(name, key)
        if new in out:
            raise WeightsError(f"two keys of the file both mean {new}: it mixes two layouts, take a clean copy")
        out[new] = value
    return out


def unet_to_diffusers(state: State) -> State:
    """CompVis U-Net (keys without `model.diffusion_model.`) → diffusers."""
    row = _row(state)
    return rename(state, lambda key: _block_name(key, row))


def unet_to_compvis(state: State) -> State:
    """diffusers U-Net → CompVis (keys without `model.diffusion_model.`)."""
    row = count(state, "down_blocks.0.resnets.") + 1
    attends = {key.split(".")[1] for key in state if key.startswith("up_blocks.") and ".attentions." in key}
    return rename(state, lambda key: _row_name(key, row, attends))


def unet_from_ema(state: State) -> State:
    """The EMA copy of a whole CompVis file under its U-Net's names.

    `model_ema.` keeps each name without its dots: `diffusion_modelinput_blocks00weight`; so the names come from the
    U-Net beside it.
    """
    names = {(UNET.removeprefix("model.") + key).replace(".", ""): key for key in take(state, UNET)}
    ema = take(state, "model_ema.")
    return {key: ema[dotless] for dotless, key in names.items() if dotless in ema}


def controlnet_to_diffusers(state: State) -> State:
    """ControlNet as its authors name it (keys without `control_model.`) → diffusers."""
    row, last = _row(state), 2 * (count(state, "input_hint_block.") - 1)

    def name(key: str) -> str:
        match key.split("."):
            case ["zero_convs", i, "0", leaf]:
                return f"controlnet_down_blocks.{i}.{leaf}"
            case ["input_hint_block", i, leaf]:  # every second one is a SiLU
                return f"controlnet_cond_embedding.{_hint_name(int(i), last)}.{leaf}"
        return _block_name(key, row)

    return rename(state, name)


def controlnet_to_compvis(state: State) -> State:
    """diffusers ControlNet → the authors' names (keys without `control_model.`)."""
    row = count(state, "down_blocks.0.resnets.") + 1
    last = 2 * (count(state, "controlnet_cond_embedding.blocks.") + 1)

    def name(key: str) -> str:
        match key.split("."):
            case ["controlnet_down_blocks", i, leaf]:
                return f"zero_convs.{i}.0.{leaf}"
            case ["controlnet_cond_embedding", "conv_in", leaf]:
                return f"input_hint_block.0.{leaf}"
            case ["controlnet_cond_embedding", "conv_out", leaf]:
                return f"input_hint_block.{last}.{leaf}"
            case ["controlnet_cond_embedding", "blocks", i, leaf]:
                return f"input_hint_block.{2 * int(i) + 2}.{leaf}"
        return _row_name(key, row, set())

    return rename(state, name)


def count(keys: Iterable[str], prefix: str) -> int:
    """How many different numbers follow `prefix` in the keys."""
    return len({key[len(prefix) :].split(".")[0] for key in keys if key.startswith(prefix)})


def _row(state: State) -> int:
    """n + 1: where the first downsampler stands in input_blocks, or, with one level only, the length of the row."""
    downs = [
        int(key.split(".")[1]) for key in state if key.startswith("input_blocks.") and key.endswith(".0.op.weight")
    ]
    return min(downs, default=count(state, "input_blocks.")) or 1


def _block_name(key: str, row: int) -> str:
    """CompVis → diffusers, one key of the U-Net."""
    module, _, leaf = key.rpartition(".")
    if module in STEM:
        return f"{STEM[module]}.{leaf}"
    match key.split("."):
        case ["input_blocks", i, _, *rest]:
            level, j = divmod(int(i) - 1, row)
            return _inside(f"down_blocks.{level}", j, rest)
        case ["middle_block", i, *rest]:  # 0, 1, 2: residual block, transformer, residual block
            return _inside("mid_block", int(i) // 2, rest)
        case ["output_blocks", i, _, *rest]:
            level, j = divmod(int(i), row)
            return _inside(f"up_blocks.{level}", j, rest)
    return key


def _inside(block: str, j: int, rest: list[str]) -> str:
    """What stands in block j of a level is told by its own names; KeyError: no rule."""
    if rest[0] == "op":
        return f"{block}.downsamplers.0.conv.{rest[1]}"
    if rest[0] == "conv":
        return f"{block}.upsamplers.0.conv.{rest[1]}"
    if rest[0] in ("norm", "proj_in", "proj_out", "transformer_blocks"):
        return f"{block}.attentions.{j}.{'.'.join(rest)}"
    return f"{block}.resnets.{j}.{RESBLOCK['.'.join(rest[:-1])]}.{rest[-1]}"


def _row_name(key: str, row: int, attends: set[str]) -> str:
    """diffusers → CompVis, one key of the U-Net. attends: the decoder's levels that have transformers."""
    module, _, leaf = key.rpartition(".")
    if module in STEM_BACK:
        return f"{STEM_BACK[module]}.{leaf}"
    match key.split("."):
        case ["down_blocks", level, "downsamplers", "0", "conv", leaf]:
            return f"input_blocks.{(int(level) + 1) * row}.0.op.{leaf}"
        case ["up_blocks", level, "upsamplers", "0", "conv", leaf]:  # after the transformer, if there is one
            return f"output_blocks.{(int(level) + 1) * row - 1}.{2 if level in attends else 1}.conv.{leaf}"
        case ["mid_block", kind, j, *rest]:
            return f"middle_block.{1 if kind == 'attentions' else 2 * int(j)}.{_resblock_back(kind, rest)}"
        case ["down_blocks", level, kind, j, *rest]:
            return f"input_blocks.{1 + int(level) * row + int(j)}.{_sub(kind)}.{_resblock_back(kind, rest)}"
        case ["up_blocks", level, kind, j, *rest]:
            return f"output_blocks.{int(level) * row + int(j)}.{_sub(kind)}.{_resblock_back(kind, rest)}"
    return key


def _sub(kind: str) -> int:
    return {"resnets": 0, "attentions": 1}[kind]


def _resblock_back(kind: str, rest: list[str]) -> str:
    if kind == "attentions":
        return ".".join(rest)
    return f"{RESBLOCK_BACK['.'.join(rest[:-1])]}.{rest[-1]}"


def _hint_name(i: int, last: int) -> str:
    return "conv_in" if i == 0 else "conv_out" if i == last else f"blocks.{i // 2 - 1}"


def _or_same(name: Callable[[str], str], key: str) -> str:
    try:
        return name(key)
    except (KeyError, ValueError, IndexError):  # a foreign key among ours: keep it, so that the loader names it
        return key
