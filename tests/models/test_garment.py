"""A garment reaches the character by self-attention inside the trainable copy, and by nothing else."""

import pytest
import torch

from minicc.errors import Error
from minicc.models.blocks import keys_values
from minicc.models.controlnet import ControlNet
from minicc.models.garment import see, together
from minicc.pipeline import Hinted


@pytest.fixture
def inputs(sd, generator):
    x, garment = (torch.randn(2, 4, 16, 16, generator=generator) for _ in range(2))
    hint = torch.rand(2, 3, 128, 128, generator=generator)
    return x, torch.tensor([500, 20]), sd.encode_text(["a dress", "a hat"]), hint, garment, sd.encode_text([""])


def test_with_fresh_zero_convolutions_the_output_is_exactly_the_locked_unets(sd, inputs):
    x, t, context, hint, garment, empty = inputs
    fresh = ControlNet.from_unet(sd.unet)
    with torch.no_grad():
        worn = keys_values(fresh, context) | see(fresh, garment, empty)
        assert torch.equal(sd.unet(x, t, context, fresh(x, t, worn, hint)), sd.unet(x, t, context))


@torch.no_grad()
def test_the_garment_changes_every_residual_below_the_first_attention(control, inputs):
    x, t, context, hint, garment, empty = inputs
    plain = control(x, t, context, hint)
    worn = control(x, t, keys_values(control, context) | see(control, garment, empty), hint)
    assert torch.equal(plain.skips[0], worn.skips[0])  # the first convolution is before any attention
    for a, b in zip((*plain.skips[1:], plain.middle), (*worn.skips[1:], worn.middle), strict=True):
        assert not torch.allclose(a, b, atol=1e-4)


@torch.no_grad()
def test_convolutions_and_norms_never_mix_two_garments(control, inputs):
    """What is seen of a garment does not depend on the other one in the batch, nor does a character's residual."""
    x, t, context, hint, garment, empty = inputs
    other = torch.stack([garment[0], -garment[1]])
    first, second = (keys_values(control, context) | see(control, g, empty) for g in (garment, other))
    a, b = (control(x, t, kv, hint).middle for kv in (first, second))
    torch.testing.assert_close(a[0], b[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(a[1], b[1], atol=1e-4)


@torch.no_grad()
def test_a_garment_seen_is_what_its_own_pass_attends_to(control, inputs):
    """The keys at the first self-attention, by hand from the blocks before it."""
    *_, garment, empty = inputs
    seen = see(control, garment, empty)
    block, transformer = control.down_blocks[0], control.down_blocks[0].attentions[0]
    temb = control.embed_time(torch.zeros(2, dtype=torch.long))
    h = transformer.proj_in(transformer.norm(block.resnets[0](control.conv_in(garment), temb)))
    attention = transformer.transformer_blocks[0].attn1
    k = attention.to_k(transformer.transformer_blocks[0].norm1(h.flatten(2).transpose(1, 2)))
    torch.testing.assert_close(seen[attention][0], attention.split_heads(k), atol=1e-4, rtol=1e-4)


def test_gradients_reach_the_garments_own_pass(control, inputs):
    x, t, context, hint, garment, empty = inputs
    garment = garment.clone().requires_grad_(True)
    control(x, t, keys_values(control, context) | see(control, garment, empty), hint).middle.square().sum().backward()
    assert garment.grad.abs().max() > 0


@torch.no_grad()
def test_one_garment_is_worn_by_a_whole_batch(control, inputs):
    x, t, context, hint, garment, empty = inputs
    text = keys_values(control, context)
    one = control(x, t, text | see(control, garment[:1], empty), hint).middle
    twice = control(x, t, text | see(control, garment[:1].expand(2, -1, -1, -1), empty), hint).middle
    torch.testing.assert_close(one, twice, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_two_garments_together_are_seen_in_any_order(control, inputs):
    x, t, context, hint, garment, empty = inputs
    a, b = (see(control, g[None], empty) for g in garment)
    text = keys_values(control, context)
    forth, back, only = (control(x, t, text | kv, hint).middle for kv in (together(a, b), together(b, a), a))
    torch.testing.assert_close(forth, back, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(forth, only, atol=1e-4)
    with pytest.raises(Error, match="the same ControlNet"):
        together(a, {})


@torch.no_grad()
def test_under_guidance_only_the_branch_with_the_prompt_sees_the_garment(sd, control, inputs):
    x, t, context, hint, garment, empty = inputs
    hinted = Hinted.of(control, hint, garment=see(control, garment, empty))
    negative = empty.expand(2, -1, -1)
    guided = sd.guided(context, negative, 3.0, controls=[hinted])(x, t)
    without = sd.unet(x, t, negative, control(x, t, negative, hint))
    worn = sd.unet(x, t, context, control(x, t, keys_values(control, context) | hinted.garment, hint))
    torch.testing.assert_close(guided, without + 3.0 * (worn - without), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_without_a_garment_everything_is_as_in_phase_1(sd, control, inputs):
    x, t, context, hint, _, empty = inputs
    a = sd.guided(context, empty.expand(2, -1, -1), 3.0, controls=[Hinted.of(control, hint)])(x, t)
    b = sd.guided(context, empty.expand(2, -1, -1), 3.0, controls=[Hinted.of(control, hint, garment={})])(x, t)
    assert torch.equal(a, b)
