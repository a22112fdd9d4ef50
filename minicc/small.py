"""Small random models in the official shape: for tests, for notebooks, and for trying the ways of files."""

import torch

from minicc.diffusion.schedule import NoiseSchedule
from minicc.models.controlnet import ControlNet
from minicc.models.text import TextConfig, text_encoder
from minicc.models.tokenizer import load_tokenizer
from minicc.models.unet import UNet, UNetConfig
from minicc.models.vae import VAE, VAEConfig
from minicc.models.zero_conv import lock
from minicc.pipeline import StableDiffusion

UNET = UNetConfig(block_out_channels=(32, 64, 64, 64), layers_per_block=1, cross_attention_dim=64, sample_size=16)
VAE_ = VAEConfig(block_out_channels=(32, 32, 64, 64), layers_per_block=1)
TEXT = TextConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=1)


def small_stable_diffusion(seed: int = 0) -> StableDiffusion:
    """A Stable Diffusion 1.x of a few million weights, random: it runs, and paints nothing but noise."""
    with torch.random.fork_rng(devices=[]):
        # Modules draw their first weights from the CPU's global generator; here it is put back.
        torch.default_generator.manual_seed(seed)
        unet, vae, text = UNet(UNET), VAE(VAE_), text_encoder(TEXT)
    return StableDiffusion(lock(unet), lock(vae), lock(text), load_tokenizer(), NoiseSchedule(), "small and random")


def small_controlnet(sd: StableDiffusion, seed: int = 0) -> ControlNet:
    """A ControlNet for it whose zero convolutions are not zero any more, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the hint encoder
        control = ControlNet.from_unet(sd.unet)
    with torch.no_grad():
        zeros = [*control.controlnet_down_blocks, control.controlnet_mid_block]
        for zero in [*zeros, control.controlnet_cond_embedding.conv_out]:
            zero.weight.copy_(0.1 * torch.randn(zero.weight.shape, generator=generator))
    return lock(control)
