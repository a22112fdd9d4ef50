"""StableDiffusion as one object: pictures to latents and back, text to context, guidance with controls."""

import warnings
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from PIL import Image

import minicc
from minicc.cli import main
from minicc.diffusion.guidance import classifier_free_guidance
from minicc.errors import Error
from minicc.models.controlnet import ControlNet
from minicc.models.unet import UNet, UNetConfig
from minicc.pipeline import Hinted, StableDiffusion, default_device
from minicc.small import UNET, small_controlnet, small_stable_diffusion


@pytest.fixture
def inputs(sd, generator):
    """x, t, the context of a prompt and of none, a hint."""
    x, hint = torch.randn(2, 4, 8, 8, generator=generator), torch.rand(1, 3, 64, 64, generator=generator)
    return x, torch.tensor([321, 321]), *(sd.encode_text([p, p]) for p in ("a red dress", "")), hint


@pytest.mark.parametrize(("cuda", "mps", "device"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_device_is_cuda_if_there_else_mps_else_the_cpu(monkeypatch, cuda, mps, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert default_device().type == device


@pytest.mark.parametrize("command", ["phase1", "phase2", "detect", "train", "evaluate", "generate", "demo", "bench"])
def test_every_command_that_runs_models_takes_a_device_and_a_dtype(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert {"--device", "--dtype"} <= set(capsys.readouterr().out.replace("[", " ").split())


def test_one_sentence_in_no_list_and_odd_sides_are_refused(sd):
    for ask in (sd.encode_text, sd.generate):
        with pytest.raises(Error, match=r"put it in brackets, \['a red hat'\]"):
            ask("a red hat")
    with pytest.raises(Error, match="picture is 100×64: pad or crop both sides to multiples of 8"):
        sd.generate(["a red hat"], size=(100, 64))


@pytest.mark.parametrize("size", [0, -8, (0, 64), (64, -64)])
def test_a_picture_has_a_size(sd, size):
    with pytest.raises(Error, match="pad or crop both sides to multiples of 8"):
        sd.generate(["a red hat"], size=size)


def test_a_tokenizer_of_another_model_is_an_error_and_no_crash(sd, monkeypatch):
    monkeypatch.setattr(sd.text_encoder.config, "vocab_size", 100)
    with pytest.raises(Error, match="its text encoder knows 100 tokens, the tokenizer is another's"):
        sd.encode_text(["a red hat"])


@pytest.mark.parametrize("rescale", [0.0, 0.7])
@torch.no_grad()
def test_guidance_at_the_sampler_is_its_equation_with_rescale_as_an_option(sd, inputs, rescale):
    sd = replace(sd, unet=deepcopy(sd.unet).double())
    x, t, context, empty = (i.double() if i.is_floating_point() else i for i in inputs[:4])
    expected = classifier_free_guidance(sd.unet(x, t, context), sd.unet(x, t, empty), 5.0, rescale)
    torch.testing.assert_close(sd.guided(context, empty, 5.0, rescale=rescale)(x, t), expected, rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_several_controlnets_each_with_a_strength_for_every_residual(sd, inputs):
    sd = replace(sd, unet=deepcopy(sd.unet).double())
    x, t, context, _, hint = (i.double() if i.is_floating_point() else i for i in inputs)
    a, b = (small_controlnet(sd, seed=seed).double() for seed in (1, 2))
    count = len(a.controlnet_down_blocks) + 1
    weak, middle = [i / count for i in range(count)], [0.0] * (count - 1) + [1.0]
    controls = [Hinted.of(a, hint, weak), Hinted.of(b, 1 - hint, middle)]
    hints = hint.expand(2, -1, -1, -1)
    by_hand = a(x, t, context, hints) * weak + b(x, t, context, 1 - hints).only_mid()
    got = sd.guided(context, context, 1.0, controls=controls)(x, t)
    torch.testing.assert_close(got, sd.unet(x, t, context, control=by_hand), rtol=1e-8, atol=1e-8)


def test_a_controlnet_of_another_base_is_refused_before_a_step_is_made(sd, inputs):
    *_, context, _, hint = inputs
    other = ControlNet.from_unet(UNet(replace(UNET, cross_attention_dim=128)))
    with pytest.raises(Error, match="its cross_attention_dim is 128, the U-Net's is 64"):
        sd.guided(context, context, 1.0, controls=[Hinted.of(other, hint)])


def test_a_controlnet_in_another_precision_is_refused_with_advice_and_works_under_autocast(sd, inputs):
    x, t, context, _, hint = inputs
    half = small_controlnet(sd).bfloat16()
    with pytest.raises(Error, match=r"is bfloat16 on cpu, the model float32 on cpu: load it with .*unet=sd\.unet"):
        sd.guided(context, context, 2.0, controls=[Hinted.of(half, hint)])
    with torch.autocast("cpu"):
        model = sd.guided(context, context, 2.0, controls=[Hinted.of(half, hint)])
        assert model(x, t).isfinite().all()


def test_latents_are_the_mean_or_with_a_generator_a_sample(sd, generator):
    picture = Image.linear_gradient("L").convert("RGB").resize((32, 16))
    mean = sd.encode_image(picture)
    assert mean.shape == (1, 4, 2, 4)
    a, b = (sd.encode_image(picture, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, mean)
    assert sd.decode_image(mean).size == (32, 16)
    with pytest.raises(Error, match=r"picture is 30×16: pad or crop both sides to multiples of 8"):
        sd.encode_image(picture.resize((30, 16)))


def test_text_to_pictures_of_any_size_by_one_seed(sd):
    a, b = sd.generate(["a hat", "a hat"], size=(32, 16), steps=2, seed=3)
    assert a.size == (32, 16)
    assert a.tobytes() != b.tobytes()
    assert a.tobytes() == sd.generate(["a hat", "a hat"], size=(32, 16), steps=2, seed=3)[0].tobytes()


@pytest.fixture(scope="module")
def sd2(sd) -> StableDiffusion:
    """A Stable Diffusion 2 that predicts v."""
    unet = UNet(
        UNetConfig(block_out_channels=(64, 64), cross_attention_dim=64, heads=None, use_linear_projection=True)
    ).eval()
    return replace(sd, unet=unet, family="sd2", schedule=replace(sd.schedule, prediction="v_prediction"))


def test_an_sd2_file_pads_with_0_and_predicts_what_its_header_says(sd2, tmp_path):
    path = sd2.save(tmp_path / "sd2.safetensors", layout="compvis")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = minicc.load(path, device="cpu")
    assert loaded.family == "sd2"
    assert loaded.tokenizer.pad_token_id == 0
    assert loaded.schedule == sd2.schedule
    assert loaded.generate(["a hat"], size=16, steps=2)[0].size == (16, 16)


@pytest.mark.parametrize("device", ["gpu", "cuda:77"])
def test_a_device_that_is_not_there_is_an_error_of_ours(device):
    with pytest.raises(Error, match=f"device='{device}' is not on this machine"):
        minicc.load("tiny", device=device)


def test_the_public_face_is_there():
    for name in minicc.__all__:
        assert hasattr(minicc, name)


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_model_is_one_graph_and_predicts_the_same(backend):
    """One graph each for the U-Net and the ControlNet, no break; "eager" traces them and leaves the kernels alone."""
    sd = small_stable_diffusion()
    control = small_controlnet(sd)
    context, x = sd.encode_text(["a red dress"]), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def predicted() -> torch.Tensor:
        model = sd.guided(context, sd.encode_text([""]), 7.5, controls=[Hinted.of(control, hint)])
        return model(x, torch.tensor([500]))

    expected = predicted()
    assert sd.compile(control, backend=backend, fullgraph=True) is sd
    torch.testing.assert_close(predicted(), expected, atol=1e-4, rtol=1e-4)


def test_a_model_of_few_words_is_pushed_less_unless_told(monkeypatch):
    tiny, small = minicc.load("tiny", device="cpu"), small_stable_diffusion()
    assert (tiny.usual_guidance, small.usual_guidance) == (2.5, 7.5)
    pictures = [tiny.generate(["a red dress"], steps=2, **given)[0].tobytes() for given in ({}, {"guidance": 2.5})]
    assert pictures[0] == pictures[1] != tiny.generate(["a red dress"], steps=2, guidance=7.5)[0].tobytes()
