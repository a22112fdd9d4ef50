"""Fixtures for all tests: shared data, present only on some machines, one seeded generator, small random models."""

import os
from pathlib import Path

import pytest
import torch

SHARED = Path(os.environ.get("MINICC_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture
def shared() -> Path:
    """Real characters and official tables beside the project; tests that need them are skipped without them."""
    if not SHARED.is_dir():
        pytest.skip("needs the shared folder of real characters (set MINICC_SHARED to its path)")
    return SHARED


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh generator, seed 0."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def sd():
    """A small, random Stable Diffusion; each file of tests has its own."""
    from minicc.small import small_stable_diffusion

    return small_stable_diffusion()


@pytest.fixture(scope="module")
def control(sd):
    """A ControlNet for it, whose zero convolutions are random: as if it had learned something."""
    from minicc.small import small_controlnet

    return small_controlnet(sd)
