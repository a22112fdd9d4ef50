"""CLIP's text encoder (Radford et al. 2021, arXiv 2103.00020), through transformers: token ids → context.

SD 1.x uses CLIP ViT-L/14's tower; SD 2.x OpenCLIP ViT-H's without its last block, the final LayerNorm kept.
In both the context is the output after that LayerNorm.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel


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
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TextConfig":
        """From a transformers config; what it does not say is CLIP ViT-L/14's."""
        return cls(**{f.name: config[f.name] for f in fields(cls) if config.get(f.name) is not None})


def text_encoder(config: TextConfig = TextConfig()) -> CLIPTextModel:
    """A CLIP text model of this shape, weights random, in evaluation mode."""
    special = {
        "bos_token_id": config.eos_token_id - 1,
        "pad_token_id": 1,
        "projection_dim": config.hidden_size,
    }
    return CLIPTextModel(CLIPTextConfig(**config.to_config(), **special)).eval()


def encode_text(model: CLIPTextModel, ids: Tensor) -> Tensor:
    """ids: (B, 77) long. Returns the context, (B, 77, hidden_size). Padding is attended to, as officially."""
    return model(input_ids=ids.to(model.device)).last_hidden_state


def config_of(model: CLIPTextModel) -> TextConfig:
    """The shape of a given text encoder."""
    return TextConfig.from_config(model.config.to_dict())


def parameter_count(module: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())
