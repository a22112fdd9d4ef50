"""Torch files are read without running them."""

import collections
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from minicc.errors import WeightsError
from minicc.weights.read import read_state_dict

ZIP, STREAM = {}, {"_use_new_zipfile_serialization": False}
formats = pytest.mark.parametrize("how", [ZIP, STREAM], ids=["zip", "stream"])


class ModelCheckpoint:
    """Stands for Lightning's class, by which official v1 files key their callbacks."""


class Payload:
    """What an attacker writes: unpickling it runs a command."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Loads:
    """The same by a call that hides among torch's own."""

    def __reduce__(self):
        return torch.storage._load_from_bytes, (b"",)


class Plain:
    """An instance of a class: it would be made by calling it."""


def tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(10.0)
    return {
        "float": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "half": torch.linspace(0, 1, 5).half(),
        "bfloat": torch.linspace(0, 1, 7).bfloat16(),
        "long": torch.arange(6),
        "int": torch.arange(3, dtype=torch.int32),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(4.6),
        "empty": torch.zeros(0, 3),
        "transposed": torch.arange(12.0).reshape(3, 4).t(),
        "slice": base[2:5],
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


@formats
@pytest.mark.parametrize("protocol", [2, 4])
def test_every_tensor_comes_back_bit_for_bit(tmp_path: Path, how, protocol, equal):
    torch.save(tensors(), tmp_path / "x.pth", pickle_protocol=protocol, **how)
    assert equal(read_state_dict(tmp_path / "x.pth"), {k: v.detach() for k, v in tensors().items()})


@formats
def test_a_lightning_checkpoint_that_names_a_class_loads(tmp_path: Path, how, equal):
    """Trap 1: official v1 files; torch's own weights_only refuses them."""
    checkpoint = {
        "state_dict": tensors(),
        "epoch": 3,
        "global_step": 470_000,
        "callbacks": {ModelCheckpoint: {"monitor": "val/loss", "best": np.float64(0.5), "scores": np.arange(3)}},
        "optimizer_states": [collections.defaultdict(dict, a=1), {1, 2}],
        "module": torch.nn.Linear(2, 2).state_dict(),  # an OrderedDict with attributes
    }
    torch.save(checkpoint, tmp_path / "v1.ckpt", **how)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "v1.ckpt", weights_only=True)
    assert equal(read_state_dict(tmp_path / "v1.ckpt"), {k: v.detach() for k, v in tensors().items()})


@formats
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_pickle_is_refused_by_its_name_and_never_runs(tmp_path: Path, how, protocol):
    ran = tmp_path / "ran"
    torch.save(
        {"state_dict": tensors(), "x": Payload(f"touch {ran}")}, tmp_path / "bad.ckpt", pickle_protocol=protocol, **how
    )
    with pytest.raises(WeightsError, match=rf"bad\.ckpt: the file's pickle calls {os.name}\.system.*nothing was run"):
        read_state_dict(tmp_path / "bad.ckpt")
    assert not ran.exists()


def test_the_payload_of_these_tests_is_a_real_one(tmp_path: Path):
    """Unpickled the usual way, it does create the file: so the test above can fail."""
    pickle.loads(pickle.dumps(Payload(f"touch {tmp_path / 'ran'}")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_pickle_runs_nothing_in_any_protocol(tmp_path: Path, protocol):
    """Old protocols write other instructions (and other first bytes); all of them are refused."""
    (tmp_path / "bad.ckpt").write_bytes(pickle.dumps(Payload(f"touch {tmp_path / 'ran'}"), protocol=protocol))
    with pytest.raises(WeightsError):
        read_state_dict(tmp_path / "bad.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"(cos\nsystem\nX\x00\x00\x00\x00o.",  # OBJ
        b"(X\x00\x00\x00\x00ios\nsystem\n.",  # INST
        b"cos\nsystem\n)\x81.",  # NEWOBJ
        b"cos\nsystem\n)}\x92.",  # NEWOBJ_EX
        b"cos\nsystem\n(X\x00\x00\x00\x00tR.",  # REDUCE
        b"cbuiltins\ngetattr\n(cos\nsystem\nX\x01\x00\x00\x00xtR.",
        b"ctorch.storage\n_load_from_bytes\n(C\x00tR.",
    ],
)
def test_every_instruction_that_calls_is_guarded(tmp_path: Path, program):
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + program)
    with pytest.raises(WeightsError, match=r"calls (os\.system|builtins\.getattr|torch\.storage\._load_from_bytes)"):
        read_state_dict(tmp_path / "bad.pth")


@pytest.mark.parametrize("program", [b"\x82\x01.", b"\x83\x01\x00.", b"\x84\x01\x00\x00\x00."])
def test_extension_codes_are_refused(tmp_path: Path, program):
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + program)
    with pytest.raises(WeightsError, match="extension codes"):
        read_state_dict(tmp_path / "bad.pth")


@pytest.mark.parametrize("thing", [Plain(), Loads()])
def test_an_instance_of_an_unknown_class_is_refused_by_name(tmp_path: Path, thing):
    torch.save({"x": thing}, tmp_path / "bad.ckpt")
    with pytest.raises(WeightsError, match=r"calls .*(Plain|_load_from_bytes)"):
        read_state_dict(tmp_path / "bad.ckpt")


def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path: Path):
    torch.save({"x": torch.ones(4)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pkl = next(name for name in members if name.endswith("data.pkl"))
    program = members[pkl].replace(b"K\x04\x85", b"K\x7f\x85")  # shape (4,) → (127,)
    assert program != members[pkl]
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, program if name == pkl else content)
    with pytest.raises(WeightsError, match=r"bad\.pth is not a readable torch file"):
        read_state_dict(tmp_path / "bad.pth")


def test_a_compressed_member_is_read_too(tmp_path: Path, equal):
    torch.save({"x": torch.arange(100.0)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive, zipfile.ZipFile(tmp_path / "y.pth", "w") as smaller:
        for name in archive.namelist():
            smaller.writestr(name, archive.read(name), compress_type=zipfile.ZIP_DEFLATED)
    assert equal(read_state_dict(tmp_path / "y.pth"), {"x": torch.arange(100.0)})


def test_writing_into_a_loaded_tensor_never_reaches_the_file(tmp_path: Path):
    torch.save({"x": torch.zeros(1000)}, tmp_path / "x.pth")
    before = (tmp_path / "x.pth").read_bytes()
    read_state_dict(tmp_path / "x.pth")["x"].fill_(1)
    assert (tmp_path / "x.pth").read_bytes() == before
