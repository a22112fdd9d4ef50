"""Small random Stable Diffusions in the official layouts, made on the spot."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from minicc.models.controlnet import ControlNet
from minicc.models.text import TextConfig, text_encoder
from minicc.models.unet import UNet, UNetConfig
from minicc.models.vae import VAE, VAEConfig
from minicc.weights import load
from minicc.weights.export import write_safetensors
from minicc.weights.layouts import TEXT, UNET, State, put, unet_to_compvis
from minicc.weights.layouts import VAE as FIRST_STAGE
from minicc.weights.parts import clip_to_compvis, openclip_to_compvis, text_from_module, vae_to_compvis

HINT = (16, 32)  # a hint encoder of stride 2, as the small VAE's


def shake(module: nn.Module, seed: int) -> nn.Module:
    """Every parameter random: so that zero convolutions and fresh norms do not hide a weight that was not loaded."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.05 * torch.randn(p.shape, generator=generator))
    return module.eval()


@dataclass
class Small:
    """Three models, and the state dict of the CompVis file that holds them."""

    unet: UNet
    vae: VAE
    text: nn.Module
    state: State
    sd2: bool

    def save(self, path: Path, **changes: Tensor) -> Path:
        return write_safetensors(self.state | changes, path, {"format": "pt"})


def make(sd2: bool = False, in_channels: int = 4) -> Small:
    widths = (64, 128) if sd2 else (32, 64)
    hidden = 128 if sd2 else 64
    unet = UNet(
        UNetConfig(
            in_channels=in_channels,
            block_out_channels=widths,
            cross_attention_dim=hidden,
            heads=None if sd2 else 8,
            use_linear_projection=sd2,
        )
    )
    vae = VAE(VAEConfig(block_out_channels=(32, 64), layers_per_block=1))
    size = {
        "vocab_size": 99,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_attention_heads": hidden // 64,
    }
    config = TextConfig(**size, num_hidden_layers=3, hidden_act="gelu" if sd2 else "quick_gelu", eos_token_id=98)
    text = text_encoder(config)
    for seed, module in enumerate((unet, vae, text)):
        shake(module, seed)
    return Small(unet, vae, text, compvis_state(unet, vae, text, sd2), sd2)


def compvis_state(unet: UNet, vae: VAE, text: nn.Module, sd2: bool) -> State:
    """As an official file has it: with schedule buffers, position_ids (SD 1.x), the tower's unused end (SD 2.x)."""
    state = put(unet_to_compvis(unet.state_dict()), UNET) | put(vae_to_compvis(vae.state_dict()), FIRST_STAGE)
    folder = text_from_module(text.state_dict())
    tower = openclip_to_compvis(folder) if sd2 else clip_to_compvis(folder)
    if sd2:
        last = "model.transformer.resblocks.2."
        tower |= {key.replace(last, "model.transformer.resblocks.3."): v + 1 for key, v in tower.items() if last in key}
        tower |= {"model.text_projection": torch.ones(128, 128), "model.logit_scale": torch.tensor(4.6)}
    else:
        tower["transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return state | put(tower, TEXT) | {"betas": torch.linspace(0, 1, 1000), "logvar": torch.zeros(1000)}


@pytest.fixture(scope="session")
def sd1() -> Small:
    return make()


@pytest.fixture(scope="session")
def sd2() -> Small:
    return make(sd2=True)


@pytest.fixture(scope="session")
def inpaint() -> Small:
    return make(in_channels=9)


@pytest.fixture(params=["sd1", "sd2", "inpaint"])
def small(request) -> Small:
    """Each of the three."""
    return request.getfixturevalue(request.param)


def load_sd(path: Path, **kwargs) -> load.Parts:
    """Without the warnings that a test does not look for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load.load_stable_diffusion(path, **kwargs)


@pytest.fixture(scope="session")
def control(sd1: Small) -> ControlNet:
    return shake(ControlNet.from_unet(sd1.unet, HINT), 7)


def same(a: nn.Module | State, b: nn.Module | State) -> bool:
    """Equal bit for bit, dtype and shape too, key by key."""
    a, b = (x.state_dict() if isinstance(x, nn.Module) else x for x in (a, b))
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a
    )


@pytest.fixture(scope="session")
def equal() -> Callable[[nn.Module | State, nn.Module | State], bool]:
    return same
