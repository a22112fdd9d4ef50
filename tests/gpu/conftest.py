"""What needs a GPU: skipped where there is none."""

import gc

import pytest
import torch


@pytest.fixture
def gpu() -> torch.device:
    """CUDA, computing float32 in float32."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    gc.collect()  # a model of the test before may be part of a circle
    torch.cuda.empty_cache()
    return torch.device("cuda")
