"""Reading torch's .ckpt / .pth / .bin files without running them.

A pickle is a program: one of its instructions calls any function by name. Here no name is ever looked up. Every global
becomes an inert `Name`; a call is a look-up of that Name in CALLS, a short table of *our* functions, and whatever is
not in the table is refused by name before anything happens. So a class that is merely mentioned (as Lightning's in
official v1 files) costs nothing, and a file can build tensors and containers, nothing else.

Tensors are views of the memory-mapped file: nothing is read before it is used. Formats: the zip of torch ≥ 1.6 and the
stream of torch ≥ 0.4 ("legacy").
"""

import io
import mmap
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from minicc.errors import WeightsError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py; the first pickle of a legacy file
DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Name:
    """A global that the pickle mentions, not looked up: `module.name`, and nothing behind it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Ignored:
    """What stands for values that no weight needs: NumPy scalars of a training run, say."""

    def __init__(self, *_: Any):
        pass


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """torch._utils._rebuild_tensor_v2; as_strided refuses to reach outside the storage."""
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _first(value: Any, *_: Any) -> Any:
    """A Parameter is its data."""
    return value


CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.Size": tuple,
    "torch.device": Ignored,
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": lambda *_: {},
    "builtins.set": set,
    "__builtin__.set": set,
    "_codecs.encode": Ignored,  # bytes, in protocol 2
    "builtins.bytes": Ignored,
    "__builtin__.bytes": Ignored,
    "numpy.dtype": Ignored,
    "numpy.core.multiarray.scalar": Ignored,
    "numpy._core.multiarray.scalar": Ignored,
    "numpy.core.multiarray._reconstruct": Ignored,
    "numpy._core.multiarray._reconstruct": Ignored,
}


Base: Any = pickle._Unpickler  # the one in Python: its instructions can be replaced


class SafeUnpickler(Base):
    """pickle.Unpickler whose calls go through CALLS, and which sets no state on anything."""

    dispatch: ClassVar[dict[int, Any]] = dict(Base.dispatch)

    def __init__(self, file: io.BytesIO | mmap.mmap, storage: Callable[[tuple[Any, ...]], Tensor]):
        super().__init__(file, encoding="utf-8", errors="replace")
        self.persistent_load = storage

    def find_class(self, module: str, name: str) -> Name:
        return Name(module, name)

    def call(self, function: Any, args: Any) -> Any:
        known = CALLS.get(str(function)) if isinstance(function, Name) else None
        if known is None:
            raise WeightsError(
                f"the file's pickle calls {function}, which is neither a tensor nor a container: refused, nothing was "
                "run. Do not trust this file; take a .safetensors version of it"
            )
        return known(*args)

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], args)

    def load_newobj(self) -> None:
        self.load_reduce()

    def load_newobj_ex(self) -> None:
        kwargs = self.stack.pop()
        self.load_reduce()
        if kwargs:
            raise WeightsError("the file's pickle builds an object with keyword arguments: refused, nothing was run")

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        self.append(self.call(Name(module, name), self.pop_mark()))

    def load_obj(self) -> None:
        function, *args = self.pop_mark()
        self.append(self.call(function, args))

    def load_build(self) -> None:
        self.stack.pop()  # an object's attributes, e.g. the metadata of an OrderedDict: no weight is there

    def load_extension(self) -> None:
        raise WeightsError("the file's pickle uses extension codes: refused, nothing was run")


for _code, _method in {
    pickle.REDUCE: SafeUnpickler.load_reduce,
    pickle.NEWOBJ: SafeUnpickler.load_newobj,
    pickle.NEWOBJ_EX: SafeUnpickler.load_newobj_ex,
    pickle.INST: SafeUnpickler.load_inst,
    pickle.OBJ: SafeUnpickler.load_obj,
    pickle.BUILD: SafeUnpickler.load_build,
    pickle.EXT1: SafeUnpickler.load_extension,
    pickle.EXT2: SafeUnpickler.load_extension,
    pickle.EXT4: SafeUnpickler.load_extension,
}.items():
    SafeUnpickler.dispatch[_code[0]] = _method


def read_torch(path: Path) -> tuple[Any, mmap.mmap]:
    """What torch.save wrote to `path`, and the mapping its tensors are views of.

    Raises WeightsError: damaged, truncated, of another format, or a pickle that calls code.
    """
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # private: writing never reaches the file
    try:
        return (_read_zip(path, data) if data[:2] == b"PK" else _read_legacy(data)), data
    except WeightsError as error:
        raise WeightsError(f"{path.name}: {error}") from None
    except zipfile.BadZipFile as error:
        raise WeightsError(
            f"{path.name} begins as a torch zip file but has no end ({error}): it is truncated at {len(data):,} bytes. "
            "Download it again"
        ) from None
    except Exception as error:  # a broken pickle can fail in any way; nothing in it was run
        raise WeightsError(
            f"{path.name} is not a readable torch file ({type(error).__name__}: {error}): damaged, or of another "
            "format. Download it again"
        ) from None


def _read_zip(path: Path, data: mmap.mmap) -> Any:
    """archive/data.pkl, and one member archive/data/<key> for each storage, stored without compression."""
    with zipfile.ZipFile(path) as archive:
        root = next((n[: -len("data.pkl")] for n in archive.namelist() if n.split("/")[1:] == ["data.pkl"]), None)
        if root is None:
            raise WeightsError(
                "a zip file, but not one that torch.save wrote (no data.pkl). Take the weights out of it"
            )
        if root + "constants.pkl" in archive.namelist():
            raise WeightsError("a TorchScript program, not weights: save its state_dict() and load that")
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise WeightsError("written on a big-endian machine: take a .safetensors version of it")

        def storage(pid: tuple[Any, ...]) -> Tensor:
            _, kind, key, _, numel = pid[:5]
            member = archive.getinfo(f"{root}data/{key}")
            if member.compress_type == zipfile.ZIP_STORED:
                return view(data, _dtype(kind), numel, _start(data, member.header_offset))
            return view(bytearray(archive.read(member)), _dtype(kind), numel, 0)

        return SafeUnpickler(io.BytesIO(archive.read(root + "data.pkl")), once(storage)).load()


def _read_legacy(data: mmap.mmap) -> Any:
    """Pickles in a row: magic, version, system, object, storage keys; then each storage: its length (int64), its bytes.

    The storages come after the object that is made of them: it is unpickled twice, first only to learn their types.
    """
    refuse = once(lambda pid: torch.empty(0))
    if SafeUnpickler(data, refuse).load() != LEGACY_MAGIC:
        raise WeightsError("neither a zip nor a stream of torch.save (torch < 0.4 wrote tar files): save it anew")
    version, _system = SafeUnpickler(data, refuse).load(), SafeUnpickler(data, refuse).load()
    if version != 1001:
        raise WeightsError(f"protocol version {version} of torch.save, expected 1001: save it with a newer torch")
    start, kinds = data.tell(), {}

    def kind_only(pid: tuple[Any, ...]) -> Tensor:
        kinds[pid[2]] = _dtype(pid[1])
        return torch.empty(pid[4], dtype=kinds[pid[2]], device="meta")

    SafeUnpickler(data, once(kind_only)).load()
    views = {}
    for key in SafeUnpickler(data, refuse).load():
        numel = int.from_bytes(data.read(8), "little")
        views[key] = view(data, kinds[key], numel, data.tell())
        data.seek(numel * kinds[key].itemsize, io.SEEK_CUR)
    data.seek(start)
    return SafeUnpickler(data, lambda pid: views[pid[2]]).load()


def view(data: mmap.mmap | bytearray, dtype: torch.dtype, numel: int, start: int) -> Tensor:
    """`numel` values from byte `start` of a mapped file as a tensor (numel,): no copy, unless they are not aligned."""
    end = start + numel * dtype.itemsize
    if end > len(data):
        raise WeightsError(f"truncated: {end:,} bytes promised, {len(data):,} there. Download it again")
    if numel == 0:
        return torch.empty(0, dtype=dtype)
    if start % dtype.itemsize:
        data, start = bytearray(data[start:end]), 0
    return torch.frombuffer(data, dtype=dtype, count=numel, offset=start)


def once(storage: Callable[[tuple[Any, ...]], Tensor]) -> Callable[[tuple[Any, ...]], Tensor]:
    """Each storage is made once, so that tensors which share one still do."""
    made: dict[Any, Tensor] = {}

    def get(pid: tuple[Any, ...]) -> Tensor:
        if pid[0] != "storage":
            raise WeightsError(f"the file refers to an outside object {pid[0]!r}: only storages are known")
        if pid[2] not in made:
            made[pid[2]] = storage(pid)
        return made[pid[2]]

    return get


def _dtype(kind: Any) -> torch.dtype:
    """A storage's type: `torch.FloatStorage` and its like."""
    if not isinstance(kind, Name) or kind.name not in DTYPES:
        raise WeightsError(f"a tensor of type {kind}: expected one of {', '.join(DTYPES)}")
    return DTYPES[kind.name]


def _start(data: mmap.mmap, header: int) -> int:
    """Where a zip member's bytes begin: after its local header, whose name and extra field may be of any length."""
    name, extra = (int.from_bytes(data[header + i : header + i + 2], "little") for i in (26, 28))
    return header + 30 + name + extra
