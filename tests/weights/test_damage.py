"""Whatever a damaged file holds, reading it gives tensors or a WeightsError: no other exception, and nothing runs."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from minicc.errors import WeightsError
from minicc.weights.read import read_state_dict


def torch_file(**how) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(3, 2), "b": torch.arange(4)}, "x": {1: "y"}}, buffer, **how)
    return buffer.getvalue()


FILES = {
    "safetensors": save({"a": torch.ones(3, 2), "b": torch.arange(4)}),
    "zip": torch_file(),
    "stream": torch_file(_use_new_zipfile_serialization=False),
}


def survives(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    try:
        state = read_state_dict(path)
    except WeightsError:
        return
    assert all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items())


@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_anywhere_is_survived(tmp_path: Path, kind):
    whole = FILES[kind]
    for end in np.linspace(0, len(whole) - 1, 150, dtype=int):
        survives(whole[:end], tmp_path / "x.ckpt")


@pytest.mark.parametrize("kind", FILES)
def test_a_file_with_broken_bytes_is_survived(tmp_path: Path, kind):
    generator = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(FILES[kind])
        for at in generator.integers(0, min(len(broken), 1500), size=generator.integers(1, 4)):
            broken[at] = generator.integers(0, 256)
        survives(bytes(broken), tmp_path / "x.ckpt")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
tensor_info = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BOOL", "F8_E4M3"]) | json_values,
        "shape": st.lists(st.integers(-3, 4), max_size=3) | json_values,
        "data_offsets": st.tuples(st.integers(-9, 40), st.integers(-9, 40)) | json_values,
    }
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(header=json_values | st.dictionaries(st.text(max_size=3), tensor_info | json_values, max_size=3))
def test_a_safetensors_header_of_any_json_is_survived(tmp_path: Path, header):
    text = json.dumps(header).encode()
    survives(len(text).to_bytes(8, "little") + text + bytes(32), tmp_path / "x.safetensors")
