"""What is installed is all that is needed: the wheel, in an empty folder, without this checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = """
import minicc
from minicc.reader import load_reader
from minicc.painter import MaskPainter
sd = minicc.load("tiny", device="cpu")
for name in ("tiny-phase1", "tiny-phase2"):
    minicc.ControlNet.load(name, unet=sd.unet)
minicc.ClothingDetector.load("tiny")
load_reader()
print(minicc.__file__, sd.encode_text(["a red hoodie"]).shape)
"""


def test_the_shipped_models_load_from_an_installed_wheel_in_an_empty_folder(tmp_path):
    source, empty, target = (tmp_path / name for name in ("source", "empty", "target"))
    empty.mkdir()
    shutil.copytree(ROOT / "minicc", source / "minicc", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("minicc-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    environment = os.environ | {"PYTHONPATH": str(target)}
    run = subprocess.run([sys.executable, "-c", SCRIPT], cwd=empty, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    file, shape = run.stdout.split(maxsplit=1)
    assert Path(file).is_relative_to(target)
    assert shape.strip() == "torch.Size([1, 77, 128])"
