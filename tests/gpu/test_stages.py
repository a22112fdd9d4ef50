"""Every stage of `minicc train` begins, shows its pictures, is measured and ends on the GPU, and resumes there."""

from pathlib import Path

import pytest

from minicc.cli import main

STAGES = {
    "vae": "--ema 0.9",
    "base": "--vae vae/vae --precision bf16",
    "phase1": "--sd base/sd",
    "detector": "--sd base/sd",
    "phase2": "--sd base/sd --control phase1/controlnet --supervise 0.01",
    "reader": "--vae vae/vae",
}


@pytest.mark.parametrize("first", [2, 3])
def test_every_stage_trains_from_the_command_line(gpu, tmp_path, monkeypatch, first):
    """first: steps after which it is begun again, and goes on to the third."""
    monkeypatch.chdir(tmp_path)
    every_stage(str(gpu), first)
    assert {path.parent.name for path in Path().glob("*/curves.csv")} == set(STAGES)


def every_stage(device: str, first: int) -> None:
    usual = ["--device", device, "--dolls", "12", "--batch", "2", "--cache", "cache", "--sample-every", "1"]
    for stage, more in STAGES.items():
        for steps in {first, 3}:
            options = [*usual, "--steps", str(steps), "--out", stage, *more.split()]
            assert main(["train", stage, *options]) == 0
