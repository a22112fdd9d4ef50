"""The estimate against what autograd holds in a real step, and against arithmetic."""

import torch
from torch import nn

from minicc.models.blocks import Attention
from minicc.models.controlnet import ControlNet
from minicc.small import small_stable_diffusion
from minicc.training.draws import Draws
from minicc.training.memory import available, estimate, ghost_of, saved_for_backward
from minicc.training.stages import Phase1Stage
from tests.training.toy import Rows, ToyStage


def toy_batch(rows: int) -> dict:
    return {"x": torch.stack([Rows()[i, i]["x"] for i in range(rows)])}


def test_a_toys_memory_is_what_arithmetic_says():
    stage, rows = ToyStage(), 10
    weights = 4 * (8 * 16 + 16 + 16 * 8 + 8)
    found = estimate(stage, toy_batch(rows), ema=True)
    assert (found.weights, found.gradients, found.optimizer, found.average) == (weights, weights, 2 * weights, weights)
    assert estimate(stage, toy_batch(rows), eight_bit=True).optimizer == 2 * weights // 4
    # kept: the first layer's input (8), SiLU's input and the second layer's (16 + 16), the difference to square (8)
    assert found.activations == 4 * rows * (8 + 16 + 16 + 8)


def phase1_batch(batch: int, size: int) -> dict:
    zeros, latents = torch.zeros(batch, 3, size, size), torch.zeros(batch, 4, size // 8, size // 8)
    return {"image": zeros, "mask": zeros[:, :1], "latents": latents, "context": torch.zeros(batch, 77, 64)}


def kept_in_a_real_step(stage: nn.Module, batch: dict) -> int:
    """Bytes of distinct storages that autograd holds, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in stage.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = stage(batch, Draws.at(0, 0))
    assert loss.isfinite()
    return sum(size for pointer, size in kept.items() if pointer not in weights)


def test_the_estimate_of_phase_1_is_never_too_little_and_at_most_a_twentieth_too_much():
    sd = small_stable_diffusion()
    stage, batch = Phase1Stage(sd, ControlNet.from_unet(sd.unet)), phase1_batch(2, 64)
    assert 1 <= estimate(stage, batch).activations / kept_in_a_real_step(stage, batch) < 1.05


def test_mixed_precision_keeps_half_of_the_activations_and_copies_of_the_weights():
    """Against a real step under autocast on this CPU, which keeps some operations' numbers in four bytes."""
    sd = small_stable_diffusion()
    stage, batch = Phase1Stage(sd, ControlNet.from_unet(sd.unet)), phase1_batch(2, 128)
    whole, half = estimate(stage, batch), estimate(stage, batch, half=True)
    with torch.autocast("cpu", torch.bfloat16):
        real = kept_in_a_real_step(stage, batch)
    assert 0.95 < (half.activations + half.copies) / real < 1.05
    assert half.activations == whole.activations // 2
    assert half.copies > whole.copies == 0
    assert (half.weights, half.optimizer) == (whole.weights, whole.optimizer)


def test_recomputing_activations_needs_less_memory_by_the_estimate_too():
    sd = small_stable_diffusion()
    stage, batch = Phase1Stage(sd, ControlNet.from_unet(sd.unet)), phase1_batch(2, 64)
    plain = estimate(stage, batch).activations
    sd.unet.recompute = stage.control.recompute = True
    found = {estimate(stage, batch).activations for _ in range(5)}
    assert len(found) == 1
    assert found.pop() < 0.6 * plain


def test_the_estimate_says_what_it_consists_of():
    assert str(estimate(ToyStage(), toy_batch(2))).startswith("needs about 0.0 GB (weights 0.00, gradients 0.00")


def test_attention_is_counted_as_its_kernels_keep_it_without_the_matrix():
    """2 heads, N = 64: kept are q, k, v and the output, each (2, N, 8), and a row's log-sum, (2, N); not 2 N²."""
    attention, batch = Attention(16, 2), {"x": torch.zeros(1, 64, 16)}
    found, _ = saved_for_backward(OneCall(attention), batch)
    linear = 2 * 64 * 16  # what the layers before and behind it take
    assert found == 4 * (linear + 4 * 2 * 64 * 8 + 2 * 64)


class OneCall(nn.Module):
    """A module as a stage whose loss is the sum of what it returns."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, batch: dict, draws: Draws) -> torch.Tensor:
        return self.module(batch["x"]).sum()


def test_the_estimate_copies_no_model_and_the_stage_stays_as_it_was():
    sd = small_stable_diffusion()
    stage = Phase1Stage(sd, ControlNet.from_unet(sd.unet))
    ghost = ghost_of(stage)
    for module in (ghost.unet, ghost.control, ghost.sd.vae, ghost.sd.text_encoder):
        assert {p.device.type for p in module.parameters()} == {"meta"}
    assert {p.device.type for module in (stage, sd.vae) for p in module.parameters()} == {"cpu"}


def test_what_pytorch_keeps_on_a_gpu_for_later_is_free(monkeypatch):
    numbers = {"mem_get_info": (100, 1000), "memory_reserved": 50, "memory_allocated": 20}
    for name, value in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert available(torch.device("cuda")) == 130


def test_locked_models_in_half_precision_weigh_half_and_keep_as_much():
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        sd = small_stable_diffusion()
        control = ControlNet.from_unet(sd.unet)
        stage = Phase1Stage(sd.to(dtype=dtype), control)
        found.append((sum(p.nbytes for p in sd.unet.parameters()), estimate(stage, phase1_batch(2, 64))))
    (whole, a), (half, b) = found
    assert whole == 2 * half == 2 * (a.weights - b.weights)
    assert (a.activations, a.optimizer) == (b.activations, b.optimizer)
