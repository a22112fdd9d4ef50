"""Muon against the exact orthogonal factor, and its AdamW against torch's."""

import copy

import pytest
import torch
from torch import nn

from minicc.models.vae import VAE
from minicc.small import VAE_
from minicc.training import checkpoint, muon
from minicc.training.loop import train
from minicc.training.muon import Muon, hidden_matrices, orthogonal
from tests.training.runs import assert_same_run
from tests.training.toy import Rows, ToyStage, toy_config


@pytest.mark.parametrize("emulated", [True, False])
@pytest.mark.parametrize("shape", [(32, 64), (64, 32), (48, 48)])
def test_orthogonal_is_nearly_the_orthogonal_factor(shape, emulated, generator, monkeypatch):
    """The same singular vectors as G, all singular values near 1, in float32 and in bfloat16."""
    monkeypatch.setattr(muon, "emulates_bfloat16", lambda device: emulated)
    G = torch.randn(shape, generator=generator)
    U, _, V = torch.linalg.svd(G, full_matrices=False)
    found = U.T @ orthogonal(G) @ V.T  # diagonal, if the singular vectors are the same
    assert 0.5 < found.diag().min() <= found.diag().max() < 1.3
    assert (found - found.diag().diag()).abs().max() < 0.1


def test_a_gradient_of_zero_moves_nothing():
    assert torch.equal(orthogonal(torch.zeros(4, 3)), torch.zeros(4, 3))


def test_an_update_is_as_large_as_adamws_usual_one(generator):
    """Root mean square 0.2 · lr, whatever the shape (Liu et al. 2025, section 2.2)."""
    for layer in (nn.Linear(64, 16, bias=False), nn.Conv2d(8, 32, 3, bias=False)):
        before = layer.weight.detach().clone()
        layer.weight.grad = torch.randn(layer.weight.shape, generator=generator)
        Muon(layer, lr=0.1, weight_decay=0).step()
        assert (layer.weight - before).square().mean().sqrt().item() == pytest.approx(0.2 * 0.1, rel=0.3)


def test_matrices_but_the_outer_ones_are_muons_and_everything_else_is_adamws():
    vae = VAE(VAE_)
    names = {id(p): name for name, p in vae.named_parameters()}
    found = {names[id(p)] for p in hidden_matrices(vae)}
    assert {"encoder.mid_block.attentions.0.to_q.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"} <= found
    assert not {"encoder.conv_in.weight", "decoder.conv_out.weight", "quant_conv.weight"} & found
    assert all(vae.get_parameter(name).ndim >= 2 for name in found)
    groups = Muon(vae).param_groups
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_vectors_take_adamws_steps_to_the_last_digit(generator):
    ours = nn.LayerNorm(5).double()
    theirs = copy.deepcopy(ours)
    optimizers = Muon(ours, lr=0.1, weight_decay=0.03), torch.optim.AdamW(theirs.parameters(), 0.1, weight_decay=0.03)
    for _ in range(5):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


def test_locked_weights_are_left_alone():
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    layers[0].requires_grad_(False)
    before = layers[0].weight.clone()
    optimizer = Muon(layers)
    layers(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(layers[0].weight, before)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_a_run_that_lost_its_last_checkpoint_and_is_resumed_ends_bit_identical(tmp_path):
    for name in ("whole", "cut"):
        train(ToyStage(), Rows(), toy_config(tmp_path / name, optimizer="muon"))
    checkpoint.checkpoints(tmp_path / "cut")[-1].unlink()
    train(ToyStage(), Rows(), toy_config(tmp_path / "cut", optimizer="muon"))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
