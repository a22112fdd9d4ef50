"""The shapes of the models: small frozen configs, to and from the official JSON files' words."""

from dataclasses import asdict, dataclass
from typing import Any

from minicc.errors import Error
from minicc.fields import checked

# What diffusers' U-Nets can be told and Stable Diffusion's never are: the same keys would compute something else.
FIXED: dict[str, Any] = {
    "act_fn": "silu", "norm_eps": 1e-5, "flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1,
    "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DCrossAttn", "only_cross_attention": False,
    "center_input_sample": False, "dual_cross_attention": False, "resnet_time_scale_shift": "default",
}  # fmt: skip


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a U-Net; the defaults are Stable Diffusion 1.5."""

    in_channels: int = 4  # 9 for inpainting models: x_t, mask, masked latent
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)  # one level each, half the side from one to the next
    layers_per_block: int = 2  # residual blocks a level; the decoder has one more
    cross_attention_dim: int = 768  # width of the text encoder; 1024 in SD 2.x
    heads: int | None = 8  # SD 1.x: 8 everywhere; None: 64 channels a head (SD 2.x)
    use_linear_projection: bool = False  # True in SD 2.x
    norm_num_groups: int = 32
    sample_size: int = 64  # side of the latents that it was trained on: for pictures of 512 pixels

    def __post_init__(self) -> None:
        check_shape(self)
        for width in self.block_out_channels:
            parts = self.heads_of(width)
            if parts < 1 or width % parts:
                heads = "heads of 64 channels" if self.heads is None else f"{parts} heads"
                raise Error(f"a level of {width} channels cannot be cut into {heads}: choose a multiple")

    def heads_of(self, channels: int) -> int:
        """Attention heads at a level of so many channels."""
        return channels // 64 if self.heads is None else self.heads

    @property
    def temb_channels(self) -> int:
        return 4 * self.block_out_channels[0]

    def to_config(self) -> dict[str, Any]:
        """The values of diffusers' UNet2DConditionModel config that describe this U-Net."""
        widths, inner = self.block_out_channels, len(self.block_out_channels) - 1
        values = asdict(self) | {
            "block_out_channels": list(widths),
            # diffusers' misnomer: it is the number of heads
            "attention_head_dim": [self.heads_of(width) for width in widths] if self.heads is None else self.heads,
            "down_block_types": ["CrossAttnDownBlock2D"] * inner + ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * inner,
        }
        del values["heads"]
        return values

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "UNetConfig":
        """From a diffusers config. Raises Error if it asks for what Stable Diffusion 1.x and 2.x do not have."""
        values = checked(cls, config, {"attention_heads": "heads"})
        widths = values.get("block_out_channels", cls.block_out_channels)
        heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
        made = cls(**values | {"heads": heads_from(heads, widths)})
        for key in ("down_block_types", "up_block_types"):
            if config.get(key) is not None and config[key] not in (made.to_config()[key], tuple(made.to_config()[key])):
                raise Error(f"{key}={config[key]} is not Stable Diffusion's: expected {made.to_config()[key]}")
        for key, value in FIXED.items():
            if config.get(key, value) != value:
                raise Error(f"{key}={config[key]!r} is not Stable Diffusion's: expected {value!r}")
        return made


def heads_from(value: Any, widths: tuple[int, ...]) -> int | None:
    """The number of heads that a config's attention_head_dim means: one number, or one a level."""
    each = list(value) if isinstance(value, (list, tuple)) else [value]
    if not each or not all(isinstance(heads, int) for heads in each):
        raise Error(f"config: attention_head_dim={value!r} is not a number of heads, nor one a level")
    if isinstance(value, (list, tuple)) and [64 * heads for heads in each] == list(widths):
        return None
    if len(set(each)) > 1:
        raise Error(f"config: attention_head_dim={value}: expected one number, or 64 channels a head at every level")
    return each[0]


@dataclass(frozen=True)
class VAEConfig:
    """The shape of a VAE; the defaults are Stable Diffusion's, 1.x and 2.x alike."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)  # one level each, half the side from one to the next
    layers_per_block: int = 2  # residual blocks a level; the decoder has one more
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215  # 1 / standard deviation of the latents

    def __post_init__(self) -> None:
        check_shape(self)

    def to_config(self) -> dict[str, Any]:
        """The values of diffusers' AutoencoderKL config that describe this VAE."""
        levels = len(self.block_out_channels)
        return asdict(self) | {
            "block_out_channels": list(self.block_out_channels),
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "VAEConfig":
        """From a diffusers config; what it does not say is Stable Diffusion's."""
        return cls(**checked(cls, config))


@dataclass(frozen=True)
class TextConfig:
    """The shape of a text encoder; the defaults are Stable Diffusion 1.x."""

    vocab_size: int = 49408
    hidden_size: int = 768  # 1024 in SD 2.x
    intermediate_size: int = 3072  # 4096
    num_hidden_layers: int = 12  # 23: the penultimate block is the last
    num_attention_heads: int = 12  # 16: always 64 channels a head
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"  # "gelu" in SD 2.x
    eos_token_id: int = 49407

    def to_config(self) -> dict[str, Any]:
        """The values of transformers' CLIPTextConfig that describe this encoder."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TextConfig":
        """From a transformers config; what it does not say is CLIP ViT-L/14's."""
        return cls(**checked(cls, config))


def check_shape(config: UNetConfig | VAEConfig) -> None:
    """Raise Error for numbers that no model can have."""
    for name, value in asdict(config).items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise Error(f"{name}={value}: expected 1 or more")
    if config.layers_per_block > 16:
        raise Error(f"layers_per_block={config.layers_per_block}: expected 1 to 16")
    groups = config.norm_num_groups
    for width in config.block_out_channels:
        if width < 1 or width % groups:
            raise Error(f"a level of {width} channels cannot be cut into {groups} norm groups: choose a multiple")
