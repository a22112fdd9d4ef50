"""ControlNet files: four forms, differences to a base, and bases that they do not fit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minicc.errors import Error, WeightsError
from minicc.models.controlnet import ControlNet
from minicc.models.unet import UNet, UNetConfig
from minicc.weights import load
from minicc.weights.layouts import State, controlnet_to_compvis, put, unet_to_compvis
from tests.weights.conftest import HINT, Small, shake


def control_forms(control: ControlNet, sd1: Small) -> dict[str, State]:
    """Trap 7: the four forms, and the difference to the base."""
    bare = controlnet_to_compvis(control.state_dict())
    base = unet_to_compvis(sd1.unet.state_dict())
    difference = {key: value - base[key] if key in base else value for key, value in bare.items()}
    return {
        "diffusers": control.state_dict(),
        "prefixed": put(bare, "control_model."),
        "bare": bare,
        "whole": sd1.state | put(bare, "control_model."),
        "difference": put(difference, "control_model.") | {"difference": torch.tensor([])},
    }


@pytest.mark.parametrize("form", ["diffusers", "prefixed", "bare", "whole"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_controlnet_loads_from_each_of_its_forms(
    tmp_path: Path, sd1: Small, control: ControlNet, form, suffix, equal
):
    state, path = control_forms(control, sd1)[form], tmp_path / f"control{suffix}"
    torch.save(state, path) if suffix == ".pth" else save_file({k: v.contiguous() for k, v in state.items()}, path)
    loaded = load.load_controlnet(path)
    assert equal(loaded, control)
    assert loaded.hint_channels == control.hint_channels


@pytest.mark.parametrize("marked", [True, False])
def test_a_difference_file_is_added_to_its_base(tmp_path: Path, sd1: Small, control: ControlNet, marked):
    state = control_forms(control, sd1)["difference"]
    if not marked:
        del state["difference"]
    torch.save(state, tmp_path / "d.pth")
    loaded = load.load_controlnet(tmp_path / "d.pth", unet=sd1.unet, difference=None if marked else True)
    for key, value in control.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=1e-7)
    zero = "controlnet_down_blocks.0.weight"  # not in the base: whole in the file
    assert torch.equal(loaded.state_dict()[zero], control.state_dict()[zero])


def test_a_difference_file_without_its_base_says_so(tmp_path: Path, sd1: Small, control: ControlNet):
    torch.save(control_forms(control, sd1)["difference"], tmp_path / "d.pth")
    with pytest.raises(WeightsError, match="only the difference to a base model: pass unet="):
        load.load_controlnet(tmp_path / "d.pth")
    other = shake(UNet(UNetConfig(block_out_channels=(32, 64), cross_attention_dim=96)), 3)
    with pytest.raises(WeightsError, match="pass the U-Net of the family"):
        load.load_controlnet(tmp_path / "d.pth", unet=other)


def test_beside_a_unet_a_control_comes_in_its_type_unless_another_is_named(tmp_path: Path, sd1: Small, control):
    half = control.save(tmp_path / "half.safetensors", layout="compvis", dtype=torch.float16)
    assert load.load_controlnet(half).conv_in.weight.dtype == torch.float16
    assert load.load_controlnet(half, unet=sd1.unet).conv_in.weight.dtype == torch.float32
    assert load.load_controlnet(half, dtype=torch.bfloat16, unet=sd1.unet).conv_in.weight.dtype == torch.bfloat16


def test_a_controlnet_of_another_family_is_refused_when_the_base_is_given(tmp_path: Path, sd1: Small, sd2: Small):
    path = ControlNet.from_unet(sd2.unet, HINT).save(tmp_path / "c.safetensors", layout="compvis")
    assert ControlNet.load(path, unet=sd2.unet).config == sd2.unet.config
    with pytest.raises(Error, match=r"made for another base.*Take a ControlNet of the checkpoint's family"):
        ControlNet.load(path, unet=sd1.unet)
