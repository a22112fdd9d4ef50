"""The official sizes: parameter counts, and every key and shape against the tables of the published files."""

from pathlib import Path

import pytest
import torch

from minicc.models.configs import TextConfig, UNetConfig, VAEConfig
from minicc.models.controlnet import ControlNet
from minicc.models.text import text_encoder
from minicc.models.unet import UNet
from minicc.models.vae import VAE

TABLES = Path(__file__).parents[1] / "data" / "layouts"
SD21 = UNetConfig(cross_attention_dim=1024, heads=None, use_linear_projection=True)
SD21_TEXT = TextConfig(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu"
)
MODELS = {
    "sd15_diffusers_unet": (lambda: UNet(), 859_520_964),
    "sd15_inpaint_diffusers_unet": (lambda: UNet(UNetConfig(in_channels=9)), 859_535_364),
    "sd21_diffusers_unet": (lambda: UNet(SD21), 865_910_724),
    "sd15_diffusers_vae_new": (lambda: VAE(VAEConfig()), 83_653_863),
    "controlnet_sd15_diffusers": (lambda: ControlNet(), 361_279_120),
    "controlnet_sd21_diffusers": (lambda: ControlNet(SD21), 364_228_240),
    "sd15_diffusers_text_encoder": (lambda: text_encoder(), 123_060_480),
    "sd21_diffusers_text_encoder": (lambda: text_encoder(SD21_TEXT), 340_387_840),
}


def table(name: str) -> dict[str, tuple[int, ...]]:
    """Key → shape of an official file; buffers that are not loaded left out."""
    rows = [line.split("\t") for line in (TABLES / f"{name}.tsv").read_text().splitlines()]
    return {
        key.removeprefix("text_model."): tuple(int(n) for n in shape.strip("[]()").replace(",", " ").split())
        for key, shape, _, kind in rows
        if kind == "param"
    }


@pytest.mark.parametrize("name", MODELS)
def test_the_official_size_has_the_official_number_of_parameters(name):
    make, count = MODELS[name]
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == count


@pytest.mark.parametrize("name", MODELS)
def test_every_official_key_is_there_with_its_shape_and_no_other(name):
    make, _ = MODELS[name]
    with torch.device("meta"):
        ours = {key.removeprefix("text_model."): tuple(p.shape) for key, p in make().named_parameters()}
    assert ours == table(name)
