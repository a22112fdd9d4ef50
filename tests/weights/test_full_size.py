"""A full SD 1.5 file, loaded in a process of its own: benchmarks/loading.py's promise about memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "loading.py"


@pytest.mark.slow
def test_loading_a_full_sd15_file_peaks_below_1_3_times_the_models(tmp_path: Path):
    """fp32 as it is; and converted either way, where file and models would be 1.5 or 3 times together."""
    sys.path.insert(0, str(BENCHMARK.parent))
    from loading import write_models

    write_models(tmp_path)
    for file, dtype in (("fp32", "float32"), ("fp16", "float32"), ("fp32", "float16")):
        path = tmp_path / f"{file}.safetensors"
        command = [sys.executable, str(BENCHMARK), "--one", "minicc", str(path), dtype]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        measured = json.loads(run.stdout.splitlines()[-1])
        assert measured["peak_ready"] < 1.3, (file, dtype, measured)
