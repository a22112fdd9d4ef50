"""What ships in minicc/pretrained: it opens, here and in diffusers, is as good as its card says, and not too large."""

from pathlib import Path

import diffusers
import pytest
import torch

from minicc.evaluation import base
from minicc.evaluation.base import FIRST, evaluate_reader, pictures
from minicc.evaluation.reader import load_reader
from minicc.evaluation.vae import evaluate_vae, reconstructed
from minicc.pipeline import SHIPPED
from minicc.weights.load import load_vae

VAE_FOLDER = SHIPPED / "tiny-vae"


@pytest.fixture(scope="module")
def vae():
    return load_vae(VAE_FOLDER, dtype=torch.float32).eval()


def test_every_shipped_model_has_a_card_with_the_command_that_made_it():
    folders = [path for path in SHIPPED.iterdir() if path.name.startswith("tiny")]
    assert folders
    for folder in folders:
        card = (folder / "README.md").read_text("utf-8")
        for word in ("minicc train", "--seed", "minicc evaluate", "steps", "hours"):
            assert word in card, f"{folder.name}: the card does not say {word!r}"


def test_all_shipped_weights_together_stay_below_70_megabytes_and_are_in_half_precision():
    files = list(Path(SHIPPED).rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) < 70e6
    for file in files:
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            kinds = {opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118 (not a dict)
        assert kinds <= {"F16"}, file


def test_the_vae_is_as_good_as_its_card_says(vae):
    figures = evaluate_vae(vae, n=16)
    assert figures["vae_psnr"] > 27.5
    assert figures["vae_ssim"] > 0.95


def test_the_vaes_latents_have_unit_variance(vae):
    with torch.no_grad():
        z = vae.encode(pictures(base.test_dolls(FIRST, 16))).mean
    assert (vae.config.scaling_factor * z).std().item() == pytest.approx(1, abs=0.1)


def test_diffusers_opens_the_vae_and_gives_the_same_pictures(vae):
    theirs = diffusers.AutoencoderKL.from_pretrained(VAE_FOLDER, torch_dtype=torch.float32).eval()
    x = pictures(base.test_dolls(FIRST, 2))
    with torch.no_grad():
        again = theirs.decode(theirs.encode(x).latent_dist.mean).sample.clamp(-1, 1)
    assert (again - reconstructed(vae, x)).abs().max() < 1e-3
    assert theirs.config.scaling_factor == vae.config.scaling_factor


def test_the_reader_is_as_good_as_its_card_says():
    figures = evaluate_reader(load_reader(), n=64)
    assert figures["reader_on_truth"] > 0.8
    assert min(figures["attributes"].values()) > 0.9
