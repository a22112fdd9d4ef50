"""The GPU computes what the CPU computes: models, training, whole pictures."""

import copy

import numpy as np
import pytest
import torch

from minicc.data import dolls
from minicc.evaluation.base import pictures
from minicc.evaluation.detector import parts_of
from minicc.models.controlnet import ControlNet
from minicc.models.garment_ways import in_way
from minicc.outfit import phase1, phase2
from minicc.outfit.clothing import looking
from minicc.pipeline import StableDiffusion, load
from minicc.small import small_controlnet, small_stable_diffusion
from minicc.training import checkpoint
from minicc.training.detector_stage import fit
from minicc.training.loop import train
from tests.outfit.test_compose import picture, square
from tests.training.runs import assert_same_run, losses
from tests.training.toy import Rows, ToyStage, toy_config


@pytest.fixture
def both(gpu) -> tuple[StableDiffusion, StableDiffusion]:
    """The same model on the CPU and on the GPU."""
    return small_stable_diffusion(), small_stable_diffusion().to(gpu)


def controlled(sd: StableDiffusion, control: ControlNet) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 16, 16, generator=generator).to(sd.device, sd.dtype)
    hint = torch.rand(2, 3, 128, 128, generator=generator).to(sd.device, sd.dtype)
    t, context = torch.tensor([10, 900], device=sd.device), sd.encode_text(["a red dress", ""])
    with torch.no_grad():
        return sd.unet(x, t, context, control(x, t, context, hint)).float().cpu()


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2), (torch.float16, 1e-2)])
def test_unet_controlnet_and_text_encoder_agree_with_the_cpu(both, gpu, dtype, close):
    here, there = both
    control = small_controlnet(here)
    expected = controlled(here, control)
    found = controlled(there.to(dtype=dtype), copy.deepcopy(control).to(gpu, dtype))
    assert (found - expected).abs().max() < close * expected.abs().max()


def test_latents_and_pictures_agree_with_the_cpu(both):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z, z_there = (sd.encode_image(image) for sd in both)
    torch.testing.assert_close(z_there.cpu(), z, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(both[1].decode_latents(z).cpu(), both[0].decode_latents(z), atol=1e-3, rtol=1e-3)


def test_a_seed_gives_the_same_redressed_character_on_both(both):
    """To two levels of 255: sums are taken in another order. Outside the mask not one level."""
    character, mask = picture((70, 50), "RGBA"), square((70, 50), (20, 10, 40, 40))
    made = [
        np.asarray(phase1.generate(sd, small_controlnet(sd), character, mask, "a red dress", steps=4).image).astype(int)
        for sd in both
    ]
    assert np.abs(made[0] - made[1]).max() <= 2
    assert np.array_equal(made[1][~mask], np.asarray(character)[~mask])


@pytest.mark.parametrize("way", ["joint", "decoder"])
def test_a_garment_is_worn_alike_on_both(both, way):
    character, mask = picture((70, 50), "RGB"), square((70, 50), (20, 10, 40, 40))
    garment, made = dolls.draw(0).flat("top" if "top" in dolls.draw(0).slots else "onepiece"), []
    for sd in both:
        control = in_way(small_controlnet(sd), way)
        generator = torch.Generator().manual_seed(0)
        for name, p in control.named_parameters() if way == "decoder" else ():
            if name.startswith("added.") and ".to_out." in name:  # they begin at zero
                p.data.copy_(0.1 * torch.randn(p.shape, generator=generator))
        made.append(phase2.generate(sd, control, character, garment, mask=mask, steps=4).image)
    here, there = (np.asarray(image).astype(int) for image in made)
    assert np.abs(here - there).max() <= 2
    assert np.array_equal(there[~mask], np.asarray(character)[~mask])


def test_clothes_are_found_alike_on_both(both):
    """Heads that learned on the CPU read the GPU's features."""
    two = [dolls.draw(i) for i in range(2)]
    detector = fit(looking(both[0]), pictures(two), parts_of(two), seed=0, steps=100)
    here, there = (detector.find(sd, two[0].image) for sd in both)
    assert np.abs(here.probabilities - there.probabilities).max() < 0.02
    assert (here.index == there.index).mean() > 0.99


def test_every_entry_point_takes_device_and_dtype(both, gpu, tmp_path):
    folder = both[0].save(tmp_path / "sd")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        sd = load(folder, device="cuda", dtype=dtype)
        assert (sd.device.type, sd.dtype) == ("cuda", dtype)
    assert load(folder).device.type == "cuda"
    assert load(folder, device="cpu").device.type == "cpu"


def test_training_on_the_gpu_has_the_losses_of_the_cpu(gpu, tmp_path):
    for device in ("cpu", None):
        train(ToyStage(), Rows(), toy_config(tmp_path / str(device), device=device))
    assert losses(tmp_path / "None") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)


def test_fp16_resumes_exactly_with_its_loss_scale(gpu, tmp_path):
    options = {"device": None, "precision": "fp16"}
    train(ToyStage(), Rows(), toy_config(tmp_path / "one", **options))
    train(ToyStage(), Rows(), toy_config(tmp_path / "two", **options))
    for newest in checkpoint.checkpoints(tmp_path / "two")[-1:]:
        newest.unlink()  # as if the run had been killed before it
    train(ToyStage(), Rows(), toy_config(tmp_path / "two", **options))
    assert checkpoint.latest(tmp_path / "one")[2]["scaler"]["scale"] > 0
    assert_same_run(tmp_path / "one", tmp_path / "two")
