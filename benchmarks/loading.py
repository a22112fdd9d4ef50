"""How long and how much memory a full Stable Diffusion 1.5 takes to load: minicc beside diffusers, each in its process.

    python benchmarks/loading.py [--folder DIR] [--repeat 3]

Writes random weights of the official shapes (10.7 GB; removed at the end: single files in fp32 and fp16 and a diffusers
folder). The first run of each warms the disk cache and does not count. Columns: seconds to load; seconds until every
number was read once (mapped files are read on first use, so loading alone flatters whoever reads nothing); the peak of
the process above what it held after its imports, as a multiple of the models' size, while loading and until all was
read. Within its loading minicc looks for NaN: at every number that it converts, at the first of each mapped tensor, and
with look=True at all; diffusers does not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTENDERS = {  # name: (library, what it opens, dtype)
    "minicc, CompVis .safetensors fp32": ("minicc", "fp32.safetensors", "float32"),
    "minicc, the same, look=True": ("looking", "fp32.safetensors", "float32"),
    "diffusers from_single_file fp32": ("single", "fp32.safetensors", "float32"),
    "minicc, diffusers folder fp32": ("minicc", "folder", "float32"),
    "diffusers from_pretrained fp32": ("folder", "folder", "float32"),
    "minicc, CompVis fp16 file → fp16": ("minicc", "fp16.safetensors", "float16"),
    "diffusers from_single_file fp16 → fp16": ("single", "fp16.safetensors", "float16"),
    "minicc, CompVis fp16 file → fp32": ("minicc", "fp16.safetensors", "float32"),
    "diffusers from_single_file fp16 → fp32": ("single", "fp16.safetensors", "float32"),
}


def write_models(folder: Path) -> None:
    """Random weights of SD 1.5's shapes as a CompVis file in fp32 and fp16, and as a diffusers folder."""
    import torch

    from minicc.models.text import text_encoder
    from minicc.models.unet import UNet
    from minicc.models.vae import VAE
    from minicc.weights.export import save_stable_diffusion
    from minicc.weights.load import Parts
    from minicc.weights.prediction import OFFICIAL

    parts = Parts(UNet(), VAE(), text_encoder(), "sd1", OFFICIAL | {"prediction_type": "epsilon"})
    assert sum(p.numel() for m in modules(parts) for p in m.parameters()) == 859_520_964 + 83_653_863 + 123_060_480
    save_stable_diffusion(parts, folder / "fp32.safetensors", layout="compvis")
    save_stable_diffusion(parts, folder / "fp16.safetensors", layout="compvis", dtype=torch.float16)
    save_stable_diffusion(parts, folder / "folder")


def modules(parts: Any) -> list[Any]:
    return [parts.unet, parts.vae, parts.text_encoder]


def opener(library: str, path: Path, dtype: Any) -> Callable[[], Any]:
    """What loads; the imports are done when this returns."""
    none = {"tokenizer": None, "safety_checker": None, "feature_extractor": None}
    if library in ("minicc", "looking"):
        from minicc.weights.load import load_stable_diffusion

        return lambda: load_stable_diffusion(path, dtype=dtype, look=library == "looking")
    from diffusers import StableDiffusionPipeline

    if library == "folder":
        return lambda: StableDiffusionPipeline.from_pretrained(path, torch_dtype=dtype, **none)
    config = str(path.parent / "folder")
    return lambda: StableDiffusionPipeline.from_single_file(str(path), config=config, torch_dtype=dtype, **none)


def resident(field: str) -> int:
    """Bytes: VmRSS, now, or VmHWM, at the peak (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def measure(library: str, path: Path, dtype: str) -> dict[str, float]:
    """In this process: seconds to load, seconds until all is touched, peak over the models' size."""
    import torch

    load = opener(library, path, getattr(torch, dtype))
    before, start = resident("VmRSS"), time.perf_counter()
    parts = load()
    loaded = time.perf_counter() - start
    peak = resident("VmHWM") - before
    tensors = [p.detach() for m in modules(parts) for p in m.parameters()]
    assert {t.dtype for t in tensors} == {getattr(torch, dtype)}
    start = time.perf_counter()
    for t in tensors:
        t.sum()
    ready = loaded + time.perf_counter() - start
    peak_ready = max(peak, resident("VmHWM") - before)
    size = sum(t.nbytes for t in tensors)
    return {"load": loaded, "ready": ready, "peak": peak / size, "peak_ready": peak_ready / size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to write the models; default: a temporary folder")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, the fastest counts")
    parser.add_argument("--one", nargs=3, metavar=("LIBRARY", "PATH", "DTYPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], Path(args.one[1]), args.one[2])))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_models(Path(folder))
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for _ in range(args.repeat + 1):  # in turn, so that what else the machine does hits all alike
            for name, (library, path, dtype) in CONTENDERS.items():
                command = [sys.executable, __file__, "--one", library, str(Path(folder) / path), dtype]
                run = subprocess.run(command, capture_output=True, text=True, check=True)
                runs[name].append(json.loads(run.stdout.splitlines()[-1]))
    print(f"{'':42}{'load s':>8}{'ready s':>9}{'peak':>7}{'ready':>7}   (peaks ÷ size of the models)")
    for name, (_, *warm) in runs.items():
        seconds = (min(run[key] for run in warm) for key in ("load", "ready"))
        peaks = (max(run[key] for run in warm) for key in ("peak", "peak_ready"))
        print(f"{name:42}" + "{:8.2f}{:9.2f}".format(*seconds) + "".join(f"{p:7.2f}" for p in peaks))


if __name__ == "__main__":
    main()
