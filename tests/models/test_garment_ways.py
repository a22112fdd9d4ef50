"""Every way to see a garment starts as the locked U-Net, without one is phase 1, learns to see it, and is kept."""

import pytest
import torch

from minicc.errors import Error
from minicc.models.attention_maps import finest, joint_probabilities, mass_on_truth, true_cells
from minicc.models.blocks import Recording, keys_values
from minicc.models.controlnet import ControlNet, completed, positions, trainable, widened
from minicc.models.garment import see, together
from minicc.models.garment_ways import WAYS, in_way, look
from minicc.models.unet import UNet, UNetConfig
from minicc.pipeline import Hinted
from minicc.small import small_controlnet, small_stable_diffusion

ALL = ("joint", *WAYS)


@pytest.fixture(scope="module")
def sd():
    sd = small_stable_diffusion()
    config = UNetConfig(block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=64, sample_size=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sd.unet = UNet(config).eval().requires_grad_(False)
    return sd


@pytest.fixture
def inputs(sd, generator):
    x, garment = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    hint, picture = (torch.rand(2, 3, 64, 64, generator=generator) for _ in range(2))
    return x, torch.tensor([500, 20]), sd.encode_text(["a dress", "a hat"]), hint, garment, picture


def predict(sd, control, inputs, garment=True):
    x, t, context, hint, latents, picture = inputs
    seen = look(control, latents, picture, hint, sd.encode_text([""]), sd.unet) if garment else {}
    features = control.controlnet_cond_embedding(hint)
    residuals = control.control(x, t, keys_values(control, context) | seen, features)
    return sd.unet(x, t, keys_values(sd.unet, context) | seen, residuals)


@pytest.mark.parametrize("with_positions", [False, True])
@pytest.mark.parametrize("way", ALL)
def test_every_way_is_exactly_the_locked_unet_before_the_first_step(sd, inputs, way, with_positions):
    control = in_way(ControlNet.from_unet(sd.unet), way, with_positions)
    x, t, context, *_ = inputs
    with torch.no_grad():
        assert torch.equal(predict(sd, control, inputs), sd.unet(x, t, context))


@pytest.mark.parametrize("way", ALL)
def test_begun_from_phase_1_every_way_is_phase_1_without_a_garment(sd, inputs, way):
    phase1 = small_controlnet(sd)
    x, t, context, hint, *_ = inputs
    with torch.no_grad():
        bare = predict(sd, in_way(phase1, way, True), inputs, garment=False)
        torch.testing.assert_close(bare, sd.unet(x, t, context, phase1(x, t, context, hint)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("way", ALL)
def test_after_some_steps_every_way_sees_the_garment_and_the_locked_weights_are_what_they_were(sd, inputs, way):
    control, locked = (
        in_way(small_controlnet(sd), way),
        {k: v.clone() for k, v in sd.unet.state_dict().items()},
    )
    optimizer = torch.optim.Adam(trainable(sd.unet, control), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        predict(sd, control, inputs).square().mean().backward()
        optimizer.step()
    *rest, garment, picture = inputs
    with torch.no_grad():
        one, other = (predict(sd, control, (*rest, s * garment, p)) for s, p in ((1, picture), (-1, 1 - picture)))
    assert (one - other).abs().max() > 1e-6
    assert all(torch.equal(v, locked[k]) for k, v in sd.unet.state_dict().items())
    assert not [name for name, p in control.named_parameters() if p.grad is None and "added" in name]


@pytest.mark.parametrize("way", ALL)
def test_a_way_is_the_same_after_saving(sd, inputs, way, tmp_path):
    control = in_way(small_controlnet(sd), way, True)
    with torch.no_grad():
        for p in control.parameters():
            p.add_(0.01)
        again = ControlNet.load(control.save(tmp_path / way), unet=sd.unet)
        assert type(again) is type(control)
        torch.testing.assert_close(predict(sd, again, inputs), predict(sd, control, inputs))


@torch.no_grad()
@pytest.mark.parametrize("way", ALL)
def test_guidance_moves_from_without_a_garment_towards_it(sd, inputs, way):
    control, (x, t, context, hint, garment, picture) = in_way(small_controlnet(sd), way), inputs
    opened(control)
    control.controlnet_cond_embedding.conv_in.weight.add_(0.1)  # as after training: the plain hint's begin at zero
    seen = look(control, garment, picture, hint, sd.encode_text([""]), sd.unet)
    guided = sd.guided(context, context, 3.0, controls=[Hinted.of(control, hint, garment=seen)])(x, t)
    bare, worn = (predict(sd, control, inputs, garment=g) for g in (False, True))
    torch.testing.assert_close(guided, bare + 3.0 * (worn - bare), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(bare, worn, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("way", ALL)
def test_two_controlnets_of_half_strength_are_one_of_whole(sd, inputs, way):
    control, (x, t, context, hint, garment, picture) = in_way(small_controlnet(sd), way), inputs
    opened(control)
    seen = look(control, garment, picture, hint, sd.encode_text([""]), sd.unet)
    half, whole = (Hinted.of(control, hint, strength, seen) for strength in (0.5, 1.0))
    two, one = (sd.guided(context, context, 3.0, controls=controls)(x, t) for controls in ([half, half], [whole]))
    torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_canvas_fits_odd_sides_and_garments_of_another_size(sd, generator):
    control = in_way(small_controlnet(sd), "canvas")
    x, garment = torch.randn(1, 4, 7, 5, generator=generator), torch.randn(1, 4, 8, 8, generator=generator)
    t, context, hint = torch.tensor([7]), sd.encode_text([""]), torch.rand(1, 3, 56, 40, generator=generator)
    residuals = control(x, t, keys_values(control, context) | {control.conv_in: garment}, hint)
    assert sd.unet(x, t, context, residuals).shape == x.shape


def test_a_wider_hint_adds_positions_and_leaves_the_garment_out():
    hint = torch.rand(1, 3, 4, 8)
    assert completed(hint, 3) is hint
    five, eight = completed(hint, 5), completed(hint, 8)
    assert torch.equal(five[:, 3:], positions(hint))
    assert torch.equal(eight[:, :5], five)
    assert not eight[:, 5:].any()
    assert positions(hint)[0, :, 0, 0].tolist() == pytest.approx([1 / 16, 1 / 8])
    assert positions(hint)[0, :, -1, -1].tolist() == pytest.approx([15 / 16, 7 / 8])


def test_what_cannot_be_is_refused_in_words(sd):
    with pytest.raises(Error, match="there is no way 'magic'"):
        in_way(small_controlnet(sd), "magic")
    with pytest.raises(Error, match="5 channels cannot begin one of 8"):
        in_way(widened(small_controlnet(sd), 5), "plain")
    with pytest.raises(Error, match="one at a time"):
        together(*[{sd.unet.conv_in: 0}] * 2)
    with pytest.raises(Error, match="'canvas' and learns no other: not 'words'"):
        in_way(in_way(small_controlnet(sd), "canvas"), "words")
    assert in_way(canvas := in_way(small_controlnet(sd), "canvas")) is canvas
    with pytest.raises(Error, match="the hint has 3 channels, this ControlNet's 4"):
        completed(torch.zeros(1, 3, 8, 8), 4)


def test_a_controlnet_that_knows_positions_goes_on_knowing_them(sd):
    placed = in_way(small_controlnet(sd), "decoder", with_positions=True)
    assert in_way(placed) is placed
    assert in_way(placed, "decoder") is placed


def test_files_of_other_tools_have_no_place_for_a_way_and_a_way_must_be_known(sd, tmp_path):
    control = in_way(small_controlnet(sd), "decoder")
    with pytest.raises(Error, match="other tools do not know the way 'decoder'"):
        control.save(tmp_path / "one.safetensors", layout="compvis")
    folder = control.save(tmp_path / "decoder")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"decoder"', '"magic"'))
    with pytest.raises(Error, match="'magic', expected one of plain, canvas, decoder, words"):
        ControlNet.load(folder, unet=sd.unet)


@torch.no_grad()
@pytest.mark.parametrize("way", ["joint", "decoder"])
def test_a_whole_outfit_is_seen_in_any_order(sd, inputs, way):
    control, (x, t, context, hint, garment, picture) = opened(in_way(small_controlnet(sd), way)), inputs
    a, b = (
        look(control, g[None], p[None], hint, sd.encode_text([""]), sd.unet)
        for g, p in zip(garment, picture, strict=True)
    )

    def drawn(seen):
        residuals = control(x, t, keys_values(control, context) | seen, hint)
        return sd.unet(x, t, keys_values(sd.unet, context) | seen, residuals)

    forth, back, only = drawn(together(a, b)), drawn(together(b, a)), drawn(a)
    torch.testing.assert_close(forth, back, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(forth, only, atol=1e-4)


@torch.no_grad()
def test_at_strength_0_nothing_of_a_garment_reaches_the_locked_unet(sd, inputs):
    control, (x, t, context, hint, garment, picture) = opened(in_way(small_controlnet(sd), "decoder")), inputs
    seen = look(control, garment, picture, hint, sd.encode_text([""]), sd.unet)
    drawn = [
        sd.guided(context, context, 1.0, controls=[Hinted.of(control, hint, strength, seen)])(x, t)
        for strength in (0.0, 0.5, [0.5] * (len(control.controlnet_down_blocks) + 1))
    ]
    assert torch.equal(drawn[0], sd.unet(x, t, context))
    torch.testing.assert_close(drawn[1], drawn[2])
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-4)


def opened(control):
    """The same ControlNet, its added layers as after training: they begin at zero."""
    for layer in getattr(control, "added", []):
        layer.to_out[0].weight.data.copy_(torch.eye(len(layer.to_out[0].weight)))
    return control


@torch.no_grad()
def test_explicit_probabilities_are_those_the_attention_uses(sd, inputs):
    control, (x, t, context, hint, garment, _) = small_controlnet(sd), inputs
    seen = see(control, garment, sd.encode_text([""]))
    recording = Recording(keys_values(control, context) | seen)
    control(x, t, recording, hint)
    (attention,) = finest(control)
    tokens = recording.tokens[attention]
    p = joint_probabilities(attention, tokens, seen[attention])
    v = torch.cat([attention.split_heads(attention.to_v(tokens)), seen[attention][1]], dim=2)
    by_hand = attention.to_out((p @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(by_hand, attention(tokens, beside=seen[attention]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(p.sum(-1), torch.ones_like(p[..., 0]))


def test_true_cells_are_those_within_one_cell_of_the_point_and_none_where_it_is_hidden():
    where = torch.full((1, 1, 2, 2), float("nan"))
    where[0, 0, 0] = torch.tensor([0.5, 0.125])  # between the columns 1 and 2 of four; the middle of row 0
    near = true_cells(where, 4, 4).view(2, 4, 4)
    assert near[0].nonzero().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert not near[1].any()


@torch.no_grad()
def test_attention_that_looks_at_the_truth_has_all_its_mass_there_and_even_attention_its_share(sd, inputs):
    control, (x, t, context, hint, garment, _) = ControlNet.from_unet(sd.unet), inputs
    seen = see(control, garment, sd.encode_text([""]))
    recording = Recording(keys_values(control, context) | seen)
    control(x, t, recording, hint)
    where = torch.full((2, 8, 8, 2), 0.5)  # every cell shows the middle, which touches four cells
    (attention,) = finest(control)
    attention.to_q.weight.zero_()
    mass, known = mass_on_truth(control, recording, seen, where)
    torch.testing.assert_close(mass, torch.full_like(mass, 4 / 128))
    assert known.all()
    ones = torch.ones_like(recording.tokens[attention])
    attention.to_q.weight.fill_(1.0)
    sharp = {attention: (torch.zeros_like(seen[attention][0]), seen[attention][1])}
    recording.tokens[attention] = ones
    attention.to_k.weight.fill_(-1.0)  # own keys: far below the garment's zeros
    sharp[attention][0][:, :, 27] = 100.0  # row 3, column 3: one of the four
    mass, _ = mass_on_truth(control, recording, sharp, where)
    torch.testing.assert_close(mass, torch.ones_like(mass))
