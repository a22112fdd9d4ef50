"""minicc: character customization with Stable Diffusion and ControlNet, from scratch, to read and to run."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the public face, as a type checker and a reader see it
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

HOMES = {  # where each name lives: imported when it is first asked for, so that `minicc --help` need not wait for torch
    "minicc.diffusion.ddim": ("ddim_invert", "ddim_sample"),
    "minicc.diffusion.ddpm": ("ddpm_sample",),
    "minicc.diffusion.dpm_solver": ("dpm_solver_sample",),
    "minicc.diffusion.schedule": ("NoiseSchedule",),
    "minicc.errors": ("Error",),
    "minicc.models.controlnet": ("Control", "ControlNet"),
    "minicc.outfit.clothing": ("ClothingDetector",),
    "minicc.pipeline": ("StableDiffusion", "load"),
}


def __getattr__(name: str) -> Any:
    """A public name, from its home (PEP 562)."""
    if name in ("phase1", "phase2"):
        return import_module(f"minicc.outfit.{name}")
    for home, names in HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'minicc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
