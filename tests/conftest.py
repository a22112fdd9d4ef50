"""Fixtures for all tests: the workshop's shared data, present only on some machines, and one seeded generator."""

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
