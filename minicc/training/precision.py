"""Where bfloat16 is slower than what it is to speed up."""

import torch


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether PyTorch multiplies bfloat16 matrices there without instructions for it, and so slower than float32.

    True of CPUs without AVX-512 (or Arm's bf16), as most laptops' are; the check is the one by which PyTorch chooses.
    """
    if device.type != "cpu":
        return False
    return not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
