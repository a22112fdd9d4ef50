"""Attention as it is asked of a CPU: equal to the plain formula, forward and backward, in every way it takes."""

import math

import pytest
import torch
import torch.nn.functional as F

from minicc.models import attend as module
from minicc.models.attend import attend


def plain(q, k, v):
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1) @ v


def heads(generator, n, m, d, dtype=torch.float64):
    return [torch.randn(2, 3, tokens, d, generator=generator, dtype=dtype).requires_grad_() for tokens in (n, m, m)]


@pytest.mark.parametrize(("n", "m"), [(64, 77), (64, 80), (100, 1), (9, 77), (9, 9)])
def test_it_is_the_formula_forward_and_backward(generator, n, m):
    inputs = heads(generator, n, m, 12)
    results = []
    for run in (attend, plain):
        y = run(*inputs)
        results.append([y, *torch.autograd.grad(y.cos().sum(), inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def seen(monkeypatch):
    """(dtype, keys, masked) of every call of PyTorch's kernel."""
    calls, real = [], F.scaled_dot_product_attention

    def noted(q, k, v, attn_mask=None):
        calls.append((q.dtype, k.shape[2], attn_mask is not None))
        return real(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(module.F, "scaled_dot_product_attention", noted)
    return calls


def test_keys_come_in_sixteens_where_queries_are_many(generator, monkeypatch):
    calls = seen(monkeypatch)
    for n, m in ((64, 77), (63, 77), (64, 64)):
        attend(*heads(generator, n, m, 12, torch.float32))
    assert calls == [(torch.float32, 80, True), (torch.float32, 77, False), (torch.float32, 64, False)]


@pytest.mark.parametrize("d", [12, 40])
def test_narrow_heads_that_learn_in_half_precision_do_so_in_float32(generator, monkeypatch, d):
    calls, inputs = seen(monkeypatch), heads(generator, 16, 16, d, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = attend(*inputs)
        with torch.no_grad():
            attend(*inputs)
    assert y.dtype == torch.bfloat16
    assert [dtype for dtype, *_ in calls] == [torch.float32 if d == 12 else torch.bfloat16, torch.bfloat16]
    if d == 12:  # the backward pass computes it again
        calls.clear()
    assert all(g.dtype == torch.bfloat16 for g in torch.autograd.grad(y.float().sum(), inputs))
    assert [dtype for dtype, *_ in calls][:1] == [torch.float32 if d == 12 else torch.bfloat16]
    torch.testing.assert_close(y.float(), plain(*(x.float() for x in inputs)), rtol=0.02, atol=0.02)


def test_learning_in_float32_keeps_what_came_and_no_more(generator):
    inputs, kept = heads(generator, 16, 16, 12, torch.bfloat16), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        attend(*inputs)
    assert all(x.dtype == torch.bfloat16 for x in kept)
    assert len(kept) <= len(inputs)
