"""Load weights from a file into a network, or name the layers that do not fit.

Three formats, recognised by content and not by name: Keras 3 (``.weights.h5``), the whole model of Keras 3
(``.keras``), and the older ``.h5`` of Keras' downloads, whose layers are matched by order.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras

from trainers.errors import TrainerError

Shapes = tuple[tuple[int, ...], ...]

SHOWN = 4
"""Maximum number of layers that a message names."""
HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
INSIDE_KERAS = "model.weights.h5"
KINDS = ((b"<", "a web page"), (b"version https://git-lfs", "a Git LFS pointer, not the file itself"))
"""(first bytes, description) of files that a failed download leaves instead of weights."""
UNREADABLE = (
    *(OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError),
    *(zipfile.BadZipFile, zlib.error),
)
"""Errors of zipfile, h5py and Keras for a file that is damaged, encrypted or of another format."""
TOPS = ("predictions", "fc", "logits", "dense", "probs", "classifier")
"""Prefixes of the names of classifier layers."""


@dataclass(frozen=True)
class _LayerShapes:
    """A layer of a file or a network: its ``name`` and the shapes of its arrays, in order."""

    name: str
    shapes: Shapes


def load_weights(model: keras.Model, file: Path, name: str) -> None:
    """Load the weights in ``file`` into ``model``; ``name``: the backbone's, for messages.

    Compares all layers before changing any, so a failure leaves ``model`` unchanged. Raises TrainerError with the file
    and, for each layer that does not fit, the shapes in the file and in the network.
    """
    with _errors_about(file, name):
        kind = _kind(file)
        with _open(file, kind) as h5:
            legacy = _legacy_group(h5)
            problems = _compare_legacy(legacy, model) if legacy is not None else _compare_keras3(h5, model)
        if problems:
            more = f"; {len(problems) - SHOWN} more do not fit" if len(problems) > SHOWN else ""
            raise ValueError("; ".join(problems[:SHOWN]) + more)
        suffix = ".keras" if kind == "keras" else ".h5" if legacy is not None else ".weights.h5"
        with _named(file, suffix) as readable:
            model.load_weights(readable)


@contextlib.contextmanager
def _errors_about(file: Path, name: str) -> Iterator[None]:
    """Turn errors raised inside into a TrainerError about ``file`` and ``name``."""
    try:
        yield
    except UNREADABLE as error:
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise TrainerError(f"the weights in {file} do not fit {name}: {text}.") from error


def _kind(file: Path) -> str:
    """Return "h5" or "keras". Raises ValueError with what the file is instead."""
    if not file.is_file():
        raise ValueError("there is no such file")
    if file.suffix in (".pth", ".pt", ".bin", ".safetensors"):
        raise ValueError(f"{file.suffix} is PyTorch's format; convert it with `orch weights convert`")
    with file.open("rb") as stream:
        start = stream.read(64)
    if start.startswith(HDF5):
        return "h5"
    if start.startswith(ZIP):
        with zipfile.ZipFile(file) as archive:
            if INSIDE_KERAS in archive.namelist():
                return "keras"
        raise ValueError(f"it is a zip archive without a {INSIDE_KERAS}; unpack it and name the weight file inside")
    if not start:
        raise ValueError("the file is empty; download it again")
    for sign, what in KINDS:
        if start.lstrip().startswith(sign):
            raise ValueError(f"it is {what}; download the weights again")
    raise ValueError("it is neither an HDF5 file (.h5) nor a .keras file")


@contextlib.contextmanager
def _open(file: Path, kind: str) -> Iterator[h5py.File]:
    """Open the HDF5 file of the weights. Raises ValueError if it is damaged."""
    try:
        if kind == "keras":
            with zipfile.ZipFile(file) as archive, h5py.File(io.BytesIO(archive.read(INSIDE_KERAS)), "r") as h5:
                yield h5
        else:
            with h5py.File(file, "r") as h5:
                yield h5
    except (OSError, RuntimeError, zlib.error) as error:
        raise ValueError(f"it is damaged or cut short ({error}); download it again") from error


@contextlib.contextmanager
def _named(file: Path, suffix: str) -> Iterator[Path]:
    """Yield ``file``, or a temporary link to it, under a name from which Keras infers its format."""
    if file.name.endswith(suffix) and (suffix != ".h5" or not file.name.endswith(".weights.h5")):
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{suffix}"
        link.symlink_to(file.resolve())
        yield link


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _legacy_group(h5: h5py.File) -> h5py.Group | None:
    """The group with the layers of the older format; None for a file of Keras 3."""
    group = h5.get("model_weights", h5)
    return group if "layer_names" in group.attrs or "layer_names0" in group.attrs else None


def _attribute(group: h5py.Group, name: str) -> list[str]:
    """Read a list of names; one too long for an attribute is stored in numbered parts."""
    if name in group.attrs:
        return [_text(value) for value in group.attrs[name]]
    parts: list[str] = []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(f"{name}{len(parts)}")
    return [_text(value) for part in parts for value in group.attrs[part]]


def _compare_legacy(group: h5py.Group, model: keras.Model) -> list[str]:
    """Describe each layer that does not fit. Layers with weights are matched by order."""
    held = []
    for layer in _attribute(group, "layer_names"):
        weights = _attribute(group[layer], "weight_names")
        if weights:
            held.append(_LayerShapes(layer, tuple(tuple(group[layer][weight].shape) for weight in weights)))
    needed = [_needed(layer) for layer in model.layers if layer.weights]
    if len(held) != len(needed):
        return [f"the file holds {len(held)} layers with weights, the network {len(needed)}{_top(held, needed)}"]
    return [
        f"layer {needs.name}: {_difference(holds.shapes, needs.shapes)}"
        for holds, needs in zip(held, needed, strict=True)
        if holds.shapes != needs.shapes
    ]


def _compare_keras3(h5: h5py.File, model: keras.Model) -> list[str]:
    """Describe each layer that does not fit. A layer's place in the file is its class and a counter.

    Nested layers are not compared; Keras' own error names them.
    """
    group = h5["layers"] if "layers" in h5 else h5.get("_layer_checkpoint_dependencies")
    if group is None:
        raise ValueError("it holds no layers; save it with model.save_weights")
    problems, places = [], set()
    needed = []
    for place, layer in _places(model):
        places.add(place)
        if layer._layers:
            continue
        needs, holds = _needed(layer), _shapes(group, place)
        needed.append(needs)
        if holds != needs.shapes:
            problems.append(f"layer {needs.name}: {_difference(holds, needs.shapes)}")
    surplus = [_LayerShapes(_name(group, place), _shapes(group, place)) for place in group if place not in places]
    surplus = [layer for layer in surplus if layer.shapes]
    if surplus:
        names = ", ".join(layer.name for layer in surplus[:SHOWN])
        problems.append(f"the file holds {len(surplus)} layers too many ({names}){_top(surplus, needed)}")
    return problems


def _places(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """Yield (place in a file of Keras 3, layer): conv2d, conv2d_1, ..., counted per class."""
    counts: dict[str, int] = {}
    for layer in model.layers:
        place = _snake(type(layer).__name__)
        count = counts.get(place, 0)
        counts[place] = count + 1
        yield (f"{place}_{count}" if count else place), layer


def _snake(name: str) -> str:
    """BatchNormalization -> batch_normalization, as Keras writes the name of a class."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _shapes(group: h5py.Group, place: str) -> Shapes:
    """The shapes of a layer's own arrays, in order; () if the file has no such layer."""
    arrays = group[place].get("vars", {}) if place in group else {}
    return tuple(tuple(arrays[key].shape) for key in sorted(arrays, key=int))


def _name(group: h5py.Group, place: str) -> str:
    return _text(group[place]["vars"].attrs.get("name", place)) if "vars" in group[place] else place


def _needed(layer: Any) -> _LayerShapes:
    return _LayerShapes(layer.name, tuple(tuple(weight.shape) for weight in layer.weights))


def _difference(held: Shapes, needed: Shapes) -> str:
    """Describe the first array that differs, or the numbers of arrays if those differ."""
    if not held:
        return f"the file holds nothing, the network needs {size_text(needed[0])}"
    if len(held) != len(needed):
        return f"the file holds {len(held)} arrays, the network needs {len(needed)}"
    pairs = [(a, b) for a, b in zip(held, needed, strict=True) if a != b]
    return f"the file holds {size_text(pairs[0][0])}, the network needs {size_text(pairs[0][1])}"


def size_text(shape: tuple[int, ...]) -> str:
    """Return an array's shape as in 3x3x64."""
    return "x".join(map(str, shape)) or "one number"


def _top(held: list[_LayerShapes], needed: list[_LayerShapes]) -> str:
    """A hint if the file also holds a classifier, else ""."""
    known = {layer.name for layer in needed}
    tops = [layer.name for layer in held if layer.name not in known and layer.name.lower().startswith(TOPS)]
    return f"; {tops[0]} is a classifier: take the file without a top (no_top)" if tops else ""
