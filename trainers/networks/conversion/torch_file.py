"""Read the tensors of a PyTorch file (.pth, .pt, .bin) without PyTorch and without running what its pickle says.

Unpickling calls whatever the file names. Here it may name only what a state dict consists of: ordered dictionaries,
tensors and their storages, none of which is created before the pickle has ended. Both formats of ``torch.save`` are
read: the zip archive (PyTorch 1.6 and newer) and the pickles in sequence before it.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

ZIP = b"PK\x03\x04"
MAX_UNPACKED = 20
"""Maximum size of a file of an archive over its compressed size; weights shrink by a tenth, and PyTorch stores them."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
STORAGES = {
    **{"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "bf16"},
    **{"LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1"},
    **{"ByteStorage": "u1", "BoolStorage": "?"},
}
"""PyTorch's class of a storage -> numpy's name of its values; bfloat16, which numpy lacks, is the upper half of f4."""
UNREADABLE = (
    *(pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, MemoryError, UnicodeError),
    *(RecursionError, ImportError),
)
"""Errors of pickle, zipfile and numpy for a file that is damaged, cut short or of another format."""


class Refused(ValueError):
    """A pickle names something else than parts of a state dict."""


class Storage(NamedTuple):
    """A block of values in the file: its ``key``, the numpy name of their type (see STORAGES), how many there are."""

    key: str
    kind: str
    size: int


class TensorView(NamedTuple):
    """A tensor: ``shape`` and ``strides``, in values, of a view that begins ``offset`` values into ``storage``."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """What a file holds: nested containers with a ``TensorView`` per tensor, and ``values`` of any storage."""

    root: Any
    values: Callable[[Storage], np.ndarray]

    def array(self, view: TensorView) -> np.ndarray:
        """Copy a tensor's values; bfloat16 becomes float32. Raises ValueError if it reaches beyond its storage."""
        count = math.prod(view.shape)
        last = view.offset + sum((n - 1) * step for n, step in zip(view.shape, view.strides, strict=True))
        inside = view.offset >= 0 and min((*view.shape, *view.strides, 0)) >= 0
        if not inside or count > view.storage.size or (count and last >= view.storage.size):
            raise ValueError(f"a tensor of shape {view.shape} reaches beyond its storage of {view.storage.size} values")
        values = self.values(view.storage)
        steps = tuple(step * values.itemsize for step in view.strides)
        return np.lib.stride_tricks.as_strided(values[view.offset :], view.shape, steps, writeable=False).copy()


def read_torch_file(source: Path) -> Contents:
    """Read ``source``. Raises one of UNREADABLE for a damaged file, and Refused for one that is no plain state dict."""
    with source.open("rb") as stream:
        start = stream.read(len(ZIP))
        stream.seek(0)
        return _read_zip(source) if start == ZIP else _read_legacy(stream)


class _Restricted(pickle.Unpickler):
    """Builds containers, ``TensorView`` and ``Storage``; refuses every other name. ``storages``: those seen, by key."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        found = _REBUILDERS.get((module, name))
        if found is None:
            raise Refused(f"its pickle names {module}.{name}, which is no part of a state dict")
        return found

    def persistent_load(self, pid: Any) -> Storage:
        word, kind, key, _, size, *view = pid
        is_named = isinstance(key, str | int)
        if word != "storage" or not is_named or kind not in STORAGES.values() or any(p is not None for p in view):
            raise Refused("its pickle holds something else than tensors")
        return self.storages.setdefault(str(key), Storage(str(key), kind, int(size)))


class _Tensor:
    """Stands for ``torch._utils._rebuild_tensor_v2``. Without attributes, like its siblings: a pickle can set none."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorView:
        if not isinstance(storage, Storage):
            raise Refused("its pickle holds a tensor without a storage")
        return TensorView(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _Parameter:
    """Stands for ``torch._utils._rebuild_parameter``: the parameter's tensor."""

    __slots__ = ()

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


class _Size:
    """Stands for ``torch.Size``."""

    __slots__ = ()

    def __call__(self, values: Any) -> tuple[int, ...]:
        return tuple(values)


_REBUILDERS = {
    ("torch._utils", "_rebuild_tensor"): _Tensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor(),
    ("torch._utils", "_rebuild_parameter"): _Parameter(),
    ("torch._utils", "_rebuild_parameter_with_state"): _Parameter(),
    ("torch", "Size"): _Size(),
}


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a file of ``archive``. Raises Refused if it would unpack to MAX_UNPACKED times its size."""
    about = archive.getinfo(name)
    if about.file_size > MAX_UNPACKED * about.compress_size + 2**16:
        raise Refused(f"its {name} would unpack to {about.file_size:,} bytes from {about.compress_size:,}")
    return archive.read(name)


def _values(raw: bytes, storage: Storage, order: str) -> np.ndarray:
    """The values in ``raw`` in native byte order; ``order``: "<" or ">". Raises ValueError if they are too few."""
    if storage.kind == "bf16":
        upper = np.frombuffer(raw, f"{order}u2", storage.size).astype(np.uint32)
        return (upper << 16).view(np.float32)
    values = np.frombuffer(raw, np.dtype(f"{order}{storage.kind}"), storage.size)
    return values.astype(values.dtype.newbyteorder("="))


def _read_zip(source: Path) -> Contents:
    """Read an archive with NAME/data.pkl and NAME/data/KEY for each storage."""
    with zipfile.ZipFile(source) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl") and name.count("/") <= 1]
        if len(pickles) != 1:
            raise ValueError("it is a zip archive without the data.pkl of torch.save")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in archive.namelist():
            raise Refused("it is a TorchScript archive, a program, and no state dict")
        big = f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder").strip() == b"big"
        root = _Restricted(io.BytesIO(read_member(archive, pickles[0]))).load()

    def values(storage: Storage) -> np.ndarray:
        with zipfile.ZipFile(source) as archive:
            return _values(read_member(archive, f"{folder}data/{storage.key}"), storage, ">" if big else "<")

    return Contents(root, values)


def _read_legacy(stream: IO[bytes]) -> Contents:
    """Read magic number, protocol, byte order, the object, the storages' keys, then each storage: count and values."""

    def load() -> Any:
        return _Restricted(stream).load()

    try:
        is_torch = load() == LEGACY_MAGIC
    except UNREADABLE as error:
        raise ValueError("it is no file of torch.save") from error
    if not is_torch or load() != LEGACY_PROTOCOL:
        raise ValueError("it is no file of torch.save")
    order = "<" if load()["little_endian"] else ">"
    unpickler = _Restricted(stream)
    root, keys = unpickler.load(), load()
    blocks: dict[str, np.ndarray] = {}
    for key in keys:
        count = int.from_bytes(_exactly(stream, 8), "little" if order == "<" else "big")
        storage = unpickler.storages.get(str(key))
        if storage is None or storage.size != count:
            raise ValueError(f"its storage {key} is not the one that its tensors name")
        width = 2 if storage.kind == "bf16" else np.dtype(storage.kind).itemsize
        blocks[storage.key] = _values(_exactly(stream, count * width), storage, order)
    return Contents(root, lambda storage: blocks[storage.key])


def _exactly(stream: IO[bytes], count: int) -> bytes:
    found = stream.read(count)
    if len(found) != count:
        raise EOFError("it is cut short")
    return found
