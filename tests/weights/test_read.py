"""Files that are not what they seem, each with its own clear error; and files that are."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minicc.errors import Error, WeightsError
from minicc.weights.export import write_safetensors
from minicc.weights.read import DTYPES, read_metadata, read_state_dict
from minicc.weights.source import PRETRAINED, resolve

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 4265146304\n"


def all_dtypes() -> dict[str, torch.Tensor]:
    made = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES.values()}
    return made | {"scalar": torch.tensor(4.6), "empty": torch.zeros(0, 2)}


def test_safetensors_are_read_as_the_library_reads_them(tmp_path: Path, equal):
    save_file(all_dtypes(), tmp_path / "x.safetensors", metadata={"made": "by the library"})
    assert equal(read_state_dict(tmp_path / "x.safetensors"), all_dtypes())
    assert read_metadata(tmp_path / "x.safetensors") == {"made": "by the library"}


def test_safetensors_are_written_as_the_library_reads_them(tmp_path: Path, equal):
    write_safetensors(all_dtypes(), tmp_path / "x.safetensors", {"format": "pt"})
    assert equal(load_file(tmp_path / "x.safetensors"), all_dtypes())


def test_every_tensor_has_a_storage_of_its_own(tmp_path: Path):
    """So that torch.save of one parameter does not write the whole file again."""
    save_file({"a": torch.ones(1000), "b": torch.ones(2000)}, tmp_path / "x.safetensors")
    for value in read_state_dict(tmp_path / "x.safetensors").values():
        assert value.untyped_storage().nbytes() == value.nbytes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (LFS, "is a git-LFS pointer"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"\n <html lang=en>", "is a web page"),
        (b"not weights at all", r"is no safetensors file \(it begins b'not weigh'\): expected the length of a header"),
        (b"a note {of mine}", "is no safetensors file"),
        (b"text", "is no safetensors file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all.", "is no safetensors file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at all", "header is not JSON"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not all", "truncated"),
    ],
)
def test_what_a_failed_download_leaves_is_named(tmp_path: Path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as error:
        read_state_dict(path)
    assert "model.safetensors" in str(error.value)
    assert isinstance(error.value, Error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (LFS, "is a git-LFS pointer"),
        (b"<html>", "is a web page"),
        (b"RIFF1234WEBP", "neither safetensors"),
    ],
)
def test_the_same_under_the_name_of_a_ckpt(tmp_path: Path, content, message):
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_state_dict(tmp_path / "model.ckpt")


def test_the_content_decides_not_the_name(tmp_path: Path, equal):
    state = {"x": torch.ones(3)}
    torch.save(state, tmp_path / "really_a_pickle.safetensors")
    save_file(state, tmp_path / "really_safetensors.ckpt")
    assert equal(read_state_dict(tmp_path / "really_a_pickle.safetensors"), state)
    assert equal(read_state_dict(tmp_path / "really_safetensors.ckpt"), state)


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.0001])
def test_a_truncated_safetensors_file_is_named(tmp_path: Path, kept):
    save_file({"a": torch.ones(10_000), "b": torch.ones(10_000)}, tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(WeightsError, match=r"x\.safetensors is truncated.*[Dd]ownload it again"):
        read_state_dict(tmp_path / "x.safetensors")


@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "stream"])
def test_a_truncated_torch_file_is_named(tmp_path: Path, how):
    torch.save({"a": torch.ones(10_000), "b": torch.ones(10_000)}, tmp_path / "x.ckpt", **how)
    whole = (tmp_path / "x.ckpt").read_bytes()
    (tmp_path / "x.ckpt").write_bytes(whole[: int(0.9 * len(whole))])
    with pytest.raises(WeightsError, match=r"truncated.*Download it again"):
        read_state_dict(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    "info",
    [
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-3], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [3], "data_offsets": [-12, 0]},
        {"dtype": "F32", "shape": [3]},
        {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [0, 3]},
        "nothing",
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, info):
    header = json.dumps({"x": info}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    with pytest.raises(WeightsError, match=r"x\.safetensors.*(damaged|number format)"):
        read_state_dict(tmp_path / "x.safetensors")


@pytest.mark.parametrize("notes", [["a"], "words", 3, {"format": 1}])
def test_notes_in_a_header_that_are_no_words_are_refused(tmp_path: Path, notes):
    header = json.dumps({"__metadata__": notes}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match=r"x\.safetensors: its header's __metadata__ is .*expected words by name"):
        read_metadata(tmp_path / "x.safetensors")


def test_a_path_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"v1-5\.safetensors is not there"):
        read_state_dict(tmp_path / "v1-5.safetensors")


@pytest.mark.parametrize("content", [[torch.ones(2)], {"epoch": 3}, {"state_dict": {}}])
def test_a_torch_file_without_named_tensors_is_refused(tmp_path: Path, content):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(WeightsError, match=r"expected a state dict|holds no tensor by name"):
        read_state_dict(tmp_path / "x.ckpt")


def test_a_torchscript_program_is_refused_by_name(tmp_path: Path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        archive.writestr("x/constants.pkl", b"\x80\x02).")
    with pytest.raises(WeightsError, match="TorchScript"):
        read_state_dict(tmp_path / "x.pt")


def test_shards_come_together(tmp_path: Path, equal):
    state = {f"k{i}": torch.full((3,), float(i)) for i in range(4)}
    names = {key: f"model-0000{1 + i // 2}-of-00002.safetensors" for i, key in enumerate(state)}
    for name in set(names.values()):
        save_file({key: state[key] for key in state if names[key] == name}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert equal(read_state_dict(index), state)
    index.write_text(json.dumps({"weight_map": names | {"lost": names["k0"]}}))
    with pytest.raises(WeightsError, match=r"1 keys are not in their shards, e\.g\. lost"):
        read_state_dict(index)
    index.write_text(json.dumps({"weight_map": {"k0": "../elsewhere.safetensors"}}))
    with pytest.raises(WeightsError, match="outside its folder"):
        read_state_dict(index)
    for damaged in ("[]", "3", '{"weight_map": ["k0"]}', '{"weight_map": {"k0": 3}}', '{"weight_map": {"k0": ["x"]}}'):
        index.write_text(damaged)
        with pytest.raises(WeightsError, match=r"is not an index of shards|does not name a file for each key"):
            read_state_dict(index)
    (tmp_path / names["k0"]).unlink()
    index.write_text(json.dumps({"weight_map": names}))
    with pytest.raises(WeightsError, match=r"00001-of-00002\.safetensors is not there"):
        read_state_dict(index)


def test_a_shipped_name_comes_before_a_folder_that_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert resolve("tiny") == PRETRAINED / "tiny"
    assert resolve("./tiny").resolve() == tmp_path / "tiny"
