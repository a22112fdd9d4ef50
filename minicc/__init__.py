"""minicc: character customization with Stable Diffusion and ControlNet, from scratch, to read and to run."""

from minicc.diffusion.ddim import ddim_invert, ddim_sample
from minicc.diffusion.ddpm import ddpm_sample
from minicc.diffusion.dpm_solver import dpm_solver_sample
from minicc.diffusion.schedule import NoiseSchedule
from minicc.errors import Error
from minicc.models.controlnet import Control, ControlNet
from minicc.outfit import phase1, phase2
from minicc.outfit.clothing import ClothingDetector
from minicc.pipeline import StableDiffusion, load

__all__ = [
    "ClothingDetector",
    "Control",
    "ControlNet",
    "Error",
    "NoiseSchedule",
    "StableDiffusion",
    "ddim_invert",
    "ddim_sample",
    "ddpm_sample",
    "dpm_solver_sample",
    "load",
    "phase1",
    "phase2",
]
