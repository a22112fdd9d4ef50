"""What we save, diffusers opens; with the same noise its pipelines paint the same picture."""

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from minicc.data.tensors import to_tensor
from minicc.diffusion.ddim import ddim_sample
from minicc.outfit.compose import make_hint
from minicc.pipeline import Hinted, load
from minicc.small import small_controlnet, small_stable_diffusion


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small Stable Diffusion and a ControlNet, as diffusers folders."""
    folder = tmp_path_factory.mktemp("saved")
    sd = small_stable_diffusion()
    sd.save(folder / "sd")
    small_controlnet(sd).save(folder / "control")
    return folder


@pytest.fixture(scope="module")
def ours(saved):
    return load(saved / "sd", device="cpu")


def noise(size: int = 8) -> torch.Tensor:
    return torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(0))


def test_diffusers_opens_our_folder_and_paints_the_same_picture(saved, ours):
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(saved / "sd", safety_checker=None)
    theirs.set_progress_bar_config(disable=True)
    reference = theirs("a red dress", num_inference_steps=10, latents=noise(), height=64, width=64).images[0]
    with torch.no_grad():
        model = ours.guided(ours.encode_text(["a red dress"]), ours.encode_text([""]), 7.5)
        picture = ours.decode_image(ddim_sample(model, noise(), ours.schedule, steps=10))
    difference = np.abs(np.asarray(picture).astype(int) - np.asarray(reference))
    assert difference.mean() <= 1
    assert difference.max() <= 2


def test_our_controlnet_in_diffusers_pipeline_paints_the_same_picture(saved, ours):
    from minicc.models.controlnet import ControlNet

    net = diffusers.ControlNetModel.from_pretrained(saved / "control")
    theirs = diffusers.StableDiffusionControlNetPipeline.from_pretrained(
        saved / "sd", controlnet=net, safety_checker=None
    )
    theirs.set_progress_bar_config(disable=True)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    hint = make_hint(to_tensor(Image.linear_gradient("L").resize((64, 64))), mask)
    options = {"num_inference_steps": 10, "latents": noise(), "height": 64, "width": 64}
    reference = theirs("a red dress", image=hint, **options).images[0]

    control = ControlNet.load(saved / "control")
    with torch.no_grad():
        prompt, empty = ours.encode_text(["a red dress"]), ours.encode_text([""])
        model = ours.guided(prompt, empty, 7.5, controls=[Hinted.of(control, hint)])
        picture = ours.decode_image(ddim_sample(model, noise(), ours.schedule, steps=10))
    difference = np.abs(np.asarray(picture).astype(int) - np.asarray(reference))
    assert difference.mean() <= 1
    assert difference.max() <= 2


def test_a_controlled_unet_predicts_the_same_noise_as_diffusers(saved, ours):
    from minicc.models.controlnet import ControlNet

    net = diffusers.ControlNetModel.from_pretrained(saved / "control")
    unet = diffusers.UNet2DConditionModel.from_pretrained(saved / "sd", subfolder="unet")
    x, t, context = noise(), torch.tensor([321]), ours.encode_text(["a red dress"])
    hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        skips, middle = net(x, t, context, hint, return_dict=False)
        reference = unet(
            x, t, context, down_block_additional_residuals=skips, mid_block_additional_residual=middle
        ).sample
        eps = ours.unet(x, t, context, control=ControlNet.load(saved / "control")(x, t, context, hint))
    torch.testing.assert_close(eps, reference, atol=1e-5, rtol=1e-5)


def test_a_compvis_file_comes_back_bit_for_bit_through_load_and_save(tmp_path):
    """Also what it holds beside the models, such as schedule buffers."""
    small_stable_diffusion().save(tmp_path / "models.safetensors", layout="compvis")
    state = load_file(tmp_path / "models.safetensors") | {"betas": torch.linspace(1e-4, 1e-2, 1000)}

    with safe_open(tmp_path / "models.safetensors", "pt") as file:
        save_file(state, tmp_path / "a.safetensors", metadata=file.metadata())
    load(tmp_path / "a.safetensors", device="cpu").save(tmp_path / "b.safetensors", layout="compvis")
    again = load_file(tmp_path / "b.safetensors")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[k], state[k]) for k in state)


@pytest.mark.parametrize("kind", ["StableDiffusionControlNetPipeline", "StableDiffusionControlNetInpaintPipeline"])
def test_in_every_step_of_diffusers_pipelines_our_controlnet_gives_the_epsilon_that_it_gives_here(saved, kind):
    """The hint is a masked character, −1 where masked, as in ControlNet 1.1 inpaint.

    In float64: a norm over the 1 × 1 level of 8 × 8 latents multiplies what two orders of summing differ by, in float32
    to 1e-4 for one noise in thirty, in float64 to 1e-12.
    """
    from minicc.models.controlnet import ControlNet

    net = diffusers.ControlNetModel.from_pretrained(saved / "control")
    pipe = getattr(diffusers, kind).from_pretrained(saved / "sd", controlnet=net, safety_checker=None)
    pipe.to(torch.float64).set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    asked = []
    pipe.unet.register_forward_hook(lambda _, args, kwargs, out: asked.append((args, kwargs, out)), with_kwargs=True)
    character, mask = Image.linear_gradient("L").resize((64, 64)).convert("RGB"), torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    hint = make_hint(to_tensor(character), mask)
    images = {"image": hint}
    if "Inpaint" in kind:
        images = {"image": character, "mask_image": Image.fromarray(mask[0, 0].byte().numpy() * 255)}
        images |= {"control_image": hint, "strength": 1.0}
    options = {"height": 64, "width": 64, "generator": torch.Generator().manual_seed(0)}
    pipe("a red dress", num_inference_steps=4, controlnet_conditioning_scale=1.0, **images, **options)

    ours = load(saved / "sd", device="cpu", dtype=torch.float64)
    control, context = ControlNet.load(saved / "control").double(), ours.encode_text(["", "a red dress"])
    hints = hint.double().expand(2, -1, -1, -1)
    assert len(asked) == 4
    for args, kwargs, out in asked:
        x, t = (kwargs.get(name, given) for name, given in zip(("sample", "timestep"), args, strict=True))
        with torch.no_grad():
            eps = ours.unet(x, t.expand(2), context, control(x, t.expand(2), context, hints))
            silent = ours.unet(x, t.expand(2), context)
        torch.testing.assert_close(eps, out[0], atol=1e-9, rtol=0)
        assert (eps - silent).abs().max() > 1e-2  # the hint and the copy do something
