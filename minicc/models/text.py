"""CLIP's text encoder (Radford et al. 2021, arXiv 2103.00020), through transformers: token ids → context.

SD 1.x uses CLIP ViT-L/14's tower; SD 2.x OpenCLIP ViT-H's without its last block, the final LayerNorm kept.
In both the context is the output after that LayerNorm.
"""

from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from minicc.models.configs import TextConfig


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
