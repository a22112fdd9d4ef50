"""Phase 1, from the picture to the picture, on small random models."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from minicc.data.tensors import mask_tensor, to_tensor
from minicc.errors import Error
from minicc.models.controlnet import ControlNet
from minicc.models.unet import UNet
from minicc.outfit import phase1
from minicc.outfit.compose import make_hint, seamless
from minicc.pipeline import Hinted
from minicc.small import UNET, small_controlnet
from tests.outfit.test_compose import picture, square


def assert_only_the_mask_changed(result, character):
    outside = np.asarray(result.mask) == 0
    before, after = np.asarray(character), np.asarray(result.image)
    assert result.image.mode == character.mode
    assert np.array_equal(before[outside], after[outside])
    assert (before[~outside] != after[~outside]).any()


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 64), (97, 50), (300, 210)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_only_the_mask_changes_at_any_size(sd, control, size, mode):
    character = picture(size, mode)
    mask = square(size, (size[0] // 4, size[1] // 4, size[0] // 2 + 1, size[1] // 2 + 1))
    assert_only_the_mask_changed(phase1.generate(sd, control, character, mask, "a red dress", steps=2), character)


@pytest.mark.filterwarnings("ignore:.*scaled up")
def test_a_large_picture_is_redressed_in_place(sd, control):
    character = picture((1600, 1200))
    mask = square((1600, 1200), (700, 500, 760, 580))
    result = phase1.generate(sd, control, character, mask, "a red dress", steps=2)
    assert_only_the_mask_changed(result, character)
    assert "neighbourhood" in result.notes[0]


def test_real_characters_are_redressed_and_nothing_else_changes(sd, control, shared):
    from minicc.data.folder import read_folder
    from minicc.data.pictures import open_mask, open_picture

    for name in ("lpc/val", "anime"):
        sample = read_folder(shared / "characters" / name)[0][0]
        character = open_picture(sample.image)
        result = phase1.generate(sd, control, character, open_mask(sample.mask), "a red dress", steps=2, feather=1)
        assert_only_the_mask_changed(result, character)


def test_known_pixels_leave_as_they_came_and_the_seam_is_closed_unless_all_is_drawn_anew(sd, control):
    image = to_tensor(picture((64, 64)))
    mask = mask_tensor(square((64, 64), (20, 20, 50, 50)))
    hinted = [Hinted.of(control, make_hint(image, mask))]
    drawn = {}
    for name in ("closed", "raw"):
        with pytest.MonkeyPatch.context() as patched:
            if name == "raw":
                patched.setattr(phase1, "seamless", lambda generated, *_: generated)
            drawn[name] = phase1.fill(sd, image, mask, ["a hat"], [0], hinted, steps=2, again=0)
    assert torch.equal(drawn["closed"], seamless(drawn["raw"], image, mask))
    assert torch.equal(drawn["closed"] * (1 - mask), image * (1 - mask))
    free = phase1.fill(sd, image, mask, ["a hat"], [0], hinted, steps=2, put_back=False)
    assert not torch.allclose(free * (1 - mask), image * (1 - mask), atol=0.1)


def test_feather_is_shown_as_part_of_the_mask(sd, control):
    mask = square((64, 64), (20, 20, 40, 40))
    result = phase1.generate(sd, control, picture((64, 64)), mask, "a red dress", steps=2, feather=3)
    assert np.array_equal(np.asarray(result.mask) > 0, square((64, 64), (17, 17, 43, 43)))


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(sd, control):
    mask = square((64, 64), (20, 20, 40, 40))
    a, b, c = (
        phase1.generate(sd, control, picture((64, 64)), mask, "a red dress", steps=3, seed=seed, eta=0.5)
        for seed in (1, 1, 2)
    )
    assert a.image.tobytes() == b.image.tobytes()
    assert a.image.tobytes() != c.image.tobytes()


def test_the_noise_of_the_steps_is_not_that_from_which_the_picture_begins(sd, control, monkeypatch):
    drawn, step = [], phase1.draw
    monkeypatch.setattr(phase1, "draw", lambda *args: drawn.append(step(*args)) or drawn[-1])
    mask = square((64, 64), (20, 20, 40, 40))
    phase1.generate(sd, control, picture((64, 64)), mask, "a red dress", steps=3, seed=1, eta=1.0)
    start = torch.randn((1, *drawn[0].shape), generator=torch.Generator().manual_seed(1))[0]
    noises = [start, *drawn]
    assert len(noises) == 4
    assert all(not torch.equal(a, b) for i, a in enumerate(noises) for b in noises[:i])


def test_a_variant_in_a_batch_is_the_picture_of_its_seed_alone(sd, control):
    """To one grey level: a batch of two may round otherwise than a batch of one."""
    mask = square((64, 64), (20, 20, 40, 40))
    arguments = (sd, control, picture((64, 64)), mask, "a red dress")
    both = phase1.variants(*arguments, seeds=[3, 4], steps=3)
    alone = phase1.generate(*arguments, seed=4, steps=3)
    assert np.abs(np.asarray(both[1].image).astype(int) - np.asarray(alone.image)).max() <= 1


def test_a_fresh_controlnet_changes_nothing_through_the_whole_sampler(sd):
    """Before the first step every zero convolution returns zeros: bit for bit the locked model's picture."""
    mask = square((64, 64), (20, 20, 40, 40))
    fresh, silent = ControlNet.from_unet(sd.unet), small_controlnet(sd)
    arguments = (picture((64, 64)), mask, "a red dress")
    with_copy = phase1.generate(sd, fresh, *arguments, steps=10)
    without = phase1.generate(sd, silent, *arguments, steps=10, strength=0.0)
    awake = phase1.generate(sd, silent, *arguments, steps=10)
    assert with_copy.image.tobytes() == without.image.tobytes()
    assert awake.image.tobytes() != without.image.tobytes()


def test_after_every_step_the_known_latents_lie_at_that_steps_noise_level(sd):
    generator = torch.Generator().manual_seed(0)
    noise, known = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    inside = torch.zeros(1, 1, 8, 8)
    inside[..., 2:5, 3:6] = 1
    steps = list(phase1.blended_steps(lambda x, t: 0.1 * x, noise, known, inside, sd.schedule, steps=5))
    outside = (inside == 0).expand_as(known)
    for step in steps[:-1]:
        expected = sd.schedule.add_noise(known, noise, step.s)
        assert torch.equal(step.x[outside], expected[outside])
    assert torch.equal(steps[-1].x[outside], known[outside])
    assert not torch.equal(steps[-1].x[~outside], known[~outside])


def test_the_known_part_is_encoded_anew_around_what_is_drawn_and_stands_there_from_then_on(sd):
    noise, known = (torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2))
    inside, guesses = torch.zeros(1, 1, 8, 8), []
    inside[..., 2:5, 3:6] = 1
    smaller = inside.clone()
    smaller[..., 2, :] = 0

    def anew(x_0, i):
        guesses.append(x_0)
        return known + len(guesses), smaller if i == 5 else inside

    steps = list(
        phase1.blended_steps(lambda x, t: 0.1 * x, noise, known, inside, sd.schedule, 8, anew=anew, moments=[2, 5])
    )
    assert [torch.equal(x_0, steps[i].x_0) for x_0, i in zip(guesses, (2, 5), strict=True)] == [True, True]
    outside = (inside == 0).expand_as(known)
    for step, times in zip(steps[:-1], [0, 0, 1, 1, 1, 2, 2], strict=True):
        assert torch.equal(step.x[outside], sd.schedule.add_noise(known + times, noise, step.s)[outside])
    assert torch.equal(steps[-1].x[outside], (known + 2)[outside])
    given_back = ((inside == 1) & (smaller == 0)).expand_as(known)
    for step in steps[5:-1]:  # m is smaller from then on
        assert torch.equal(step.x[given_back], sd.schedule.add_noise(known + 2, noise, step.s)[given_back])
    assert not torch.equal(steps[4].x[given_back], sd.schedule.add_noise(known + 1, noise, steps[4].s)[given_back])


def test_encoding_anew_sees_the_character_around_the_guess_and_never_what_the_mask_hides(sd, control, monkeypatch):
    mask = square((64, 64), (16, 16, 48, 48))
    seen = []
    encode = sd.encode_image
    monkeypatch.setattr(sd, "encode_image", lambda x, *rest: seen.append(x) or encode(x, *rest))
    character = picture((64, 64))
    hidden = character.copy()
    hidden.paste((0, 255, 0), (16, 16, 48, 48))
    pictures = [phase1.generate(sd, control, c, mask, "a red dress", steps=8).image for c in (character, hidden)]
    assert len(seen) == 8  # the blank, and three times anew, for both
    kept = torch.from_numpy(~mask).expand_as(seen[0])
    for x in seen:
        torch.testing.assert_close(x[kept], to_tensor(character)[kept], rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(seen[:4], seen[4:], strict=True))
    inside = [np.asarray(p)[mask] for p in pictures]
    assert np.array_equal(*inside)


def test_the_prompt_the_hint_and_the_guidance_each_matter(sd, control):
    mask = square((64, 64), (16, 16, 48, 48))
    plain = {"character": picture((64, 64)), "prompt": "a red dress", "guidance": 3.0}
    changes = [{"prompt": "blue armour"}, {"character": picture((64, 64), seed=5)}, {"guidance": 1.0}]
    inside = {str(c): generated(sd, control, mask, **(plain | c))[mask] for c in [{}, *changes]}
    for name, pixels in inside.items():
        assert name == "{}" or not np.array_equal(pixels, inside["{}"]), name


def generated(sd, control, mask, character, prompt, guidance) -> np.ndarray:
    return np.asarray(phase1.generate(sd, control, character, mask, prompt, guidance=guidance, steps=3).image)


def test_guess_mode_leaves_the_branch_without_prompt_alone(sd, control):
    sd, control = deepcopy(sd).to(dtype=torch.float64), deepcopy(control).double()
    hint = make_hint(to_tensor(picture((64, 64))), torch.ones(1, 1, 64, 64)).double()
    x, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([500])
    cond, uncond = sd.encode_text(["a red dress"]), sd.encode_text([""])

    options = {"controls": [Hinted.of(control, hint)], "guess_mode": True}
    with torch.no_grad():
        eps = sd.guided(cond, uncond, 0.0, **options)(x, t)  # scale 0: without prompt only
        torch.testing.assert_close(eps, sd.unet(x, t, uncond), atol=1e-6, rtol=1e-6)
        guessed = sd.unet(x, t, cond, control=control(x, t, cond, hint).guess())
        for scale in (1.0, 1.0 + 1e-9):  # with it only; in one branch, and as the second of two
            eps = sd.guided(cond, uncond, scale, **options)(x, t)
            torch.testing.assert_close(eps, guessed, atol=1e-6, rtol=1e-6)


def test_two_controlnets_add_up_in_the_sampler(sd, control):
    other, hint = small_controlnet(sd, seed=9), make_hint(to_tensor(picture((64, 64))), torch.ones(1, 1, 64, 64))
    x, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    context = sd.encode_text(["a red dress"])
    with torch.no_grad():
        eps = sd.guided(context, context, 1.0, controls=[Hinted.of(control, hint), Hinted.of(other, 1 + hint, 0.5)])(
            x, t
        )
        both = control(x, t, context, hint) + 0.5 * other(x, t, context, 1 + hint)
        torch.testing.assert_close(eps, sd.unet(x, t, context, control=both), atol=1e-5, rtol=1e-4)


def test_a_picture_of_20000_pixels_is_refused_by_its_size(sd, control):
    with pytest.raises(ValueError, match="20000×1: sides up to"):
        phase1.generate(sd, control, Image.new("RGB", (20_000, 1)), np.ones((1, 20_000), bool), "a red dress")


def test_an_inpainting_model_is_refused_with_advice(sd, control):
    wide = replace(sd, unet=UNet(replace(UNET, in_channels=9)))
    with pytest.raises(Error, match=r"expects 9 channels.*take the family.s plain model"):
        phase1.generate(wide, control, picture((64, 64), "RGB"), square((64, 64), (16, 16, 48, 48)), "a hat", steps=1)


def test_a_model_that_predicts_v_paints_the_same_as_one_that_predicts_the_same_noise(sd, control):
    """The v model's output is computed from the ε model's, v = √ᾱ ε − √(1−ᾱ) x₀: all samples must agree."""
    v = replace(sd, schedule=replace(sd.schedule, prediction="v_prediction"))

    def as_v(x, t, context, control=None):
        alpha_bar = sd.schedule.alpha_bar(int(t[0]), x)
        epsilon = sd.unet(x, t, context, control=control)
        x_0 = (x - (1 - alpha_bar).sqrt() * epsilon) / alpha_bar.sqrt()
        return alpha_bar.sqrt() * epsilon - (1 - alpha_bar).sqrt() * x_0

    g = torch.Generator().manual_seed(0)
    x, context = torch.randn((1, 4, 8, 8), generator=g), sd.encode_text(["a red dress"])
    for t in (1, 501, 981):
        at = torch.tensor([t])
        x_0 = v.schedule.x_0_from(as_v(x, at, context), x, t)
        assert torch.allclose(x_0, sd.schedule.x_0_from(sd.unet(x, at, context), x, t), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_an_eta_that_is_none_is_refused(sd, control, eta):
    with pytest.raises(Error, match=r"expected 0 \(deterministic\) … 1"):
        phase1.generate(sd, control, picture((32, 32)), square((32, 32), (8, 8, 24, 24)), "a hat", steps=2, eta=eta)
