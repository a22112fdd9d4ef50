"""Every stage of `minicc train` begins, shows its pictures, is measured and ends on the GPU, and resumes there."""

from pathlib import Path

from minicc.cli import main
from minicc.training.curves import columns

STAGES = {
    "vae": "--ema 0.9",
    "base": "--vae vae/vae --precision bf16",
    "phase1": "--sd base/sd",
    "detector": "--sd base/sd",
    "phase2": "--sd base/sd --control phase1/controlnet --supervise 0.01",
    "reader": "--vae vae/vae",
}


def test_every_stage_trains_from_the_command_line_and_resumes(gpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    usual = ["--device", str(gpu), "--dolls", "12", "--batch", "2", "--cache", "cache", "--sample-every", "1"]
    for stage, more in STAGES.items():
        for steps in ("2", "3"):
            assert main(["train", stage, *usual, "--steps", steps, "--out", stage, *more.split()]) == 0
        assert columns(Path(stage, "valid.csv"), "valid")[0] == [2, 3]  # begun anew, the first would be gone
