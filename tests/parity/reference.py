"""The reference models of diffusers, built from our configs and given our weights."""

from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from minicc.models.controlnet import ControlNet
from minicc.models.unet import UNet, UNetConfig
from minicc.models.vae import VAE

diffusers.utils.logging.set_verbosity_error()

SD1 = UNetConfig(block_out_channels=(32, 64, 64), cross_attention_dim=24, heads=8, norm_num_groups=8)
SD1_INPAINT = UNetConfig(in_channels=9, block_out_channels=(32, 64, 64), cross_attention_dim=24, norm_num_groups=8)
SD2 = UNetConfig(
    block_out_channels=(64, 128), cross_attention_dim=24, heads=None, use_linear_projection=True, norm_num_groups=8
)
SMALL = {"SD 1.x": SD1, "SD 1.x inpainting": SD1_INPAINT, "SD 2.x": SD2}


def randomize(module: nn.Module, seed: int = 0, scale: float = 0.05) -> nn.Module:
    """Add noise to every parameter, so that no zero, one or symmetry hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return module


def reference_of(ours: nn.Module, share: bool = False) -> nn.Module:
    """diffusers' model with our config and, strictly, our weights; share=True: in the same memory, without a copy."""
    classes = {
        UNet: diffusers.UNet2DConditionModel,
        VAE: diffusers.AutoencoderKL,
        ControlNet: diffusers.ControlNetModel,
    }
    config = (ours if isinstance(ours, ControlNet) else ours.config).to_config()
    with torch.device("meta" if share else "cpu"):
        theirs = classes[type(ours)](**config).to(next(ours.parameters()).dtype)
    theirs.load_state_dict(ours.state_dict(), strict=True, assign=share)
    return theirs.requires_grad_(True)


def unet_inputs(
    config: UNetConfig, size: int = 8, dtype: torch.dtype = torch.float64, batch: int = 2
) -> dict[str, Any]:
    """x, t, context for a U-Net, from a fixed seed."""
    generator = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(batch, config.in_channels, size, size, generator=generator, dtype=dtype),
        "t": torch.tensor([999, 7])[:batch],
        "context": torch.randn(batch, 77, config.cross_attention_dim, generator=generator, dtype=dtype),
    }


def largest_relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """∂loss/∂parameter by name."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> float:
    """Every parameter's gradient agrees, relative to the largest gradient; returns the worst difference."""
    assert ours.keys() == theirs.keys()
    scale = max(g.abs().max().item() for g in theirs.values())
    assert scale > 0
    errors = {name: (ours[name] - theirs[name]).abs().max().item() / scale for name in ours}
    worst = max(errors, key=lambda name: errors[name])
    assert errors[worst] <= tolerance, f"∂L/∂{worst} is off by {errors[worst]:.1e} of the largest gradient"
    return errors[worst]
