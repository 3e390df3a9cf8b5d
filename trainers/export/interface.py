"""Read signatures, names, shapes, types and scales of inputs and outputs from an exported file."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainers.export.graph import SERVE_BYTES, SERVE_PIXELS
from trainers.export.run import open_interpreter

PIXELS, PROBABILITIES = [0, 255], [0, 1]
"""Values that an input and an output stand for, codes being converted by ``scale`` and ``zero_point``."""


def interface(path: Path, bytes_policy: str) -> dict[str, Any]:
    """Return how to call the file or folder at ``path``, as plain JSON.

    ``signature`` (None for ONNX, which has none), ``inputs`` and ``outputs``: lists of ``name``, ``shape`` (None: any
    length), ``dtype`` and ``range``, the values from and to. For integers that are codes also ``scale`` and
    ``zero_point``: value = scale * (code - zero_point). A SavedModel has ``photos`` too: the same of its signature
    from encoded photos, with its crop ``policy``, ``bytes_policy``.
    """
    if path.is_dir():
        signatures = tf.saved_model.load(str(path)).signatures
        photos = _of_function(signatures[SERVE_BYTES], SERVE_BYTES) | {"policy": bytes_policy}
        return _of_function(signatures[SERVE_PIXELS], SERVE_PIXELS) | {"photos": photos}
    return _of_tflite(path) if path.suffix == ".tflite" else _of_onnx(path)


def _of_function(function: Any, signature: str) -> dict[str, Any]:
    (given,) = function.structured_outputs.items()
    return {
        "signature": signature,
        "inputs": [
            _tensor(name, spec.shape.as_list(), spec.dtype.name, PIXELS if spec.dtype == tf.uint8 else None)
            for name, spec in function.structured_input_signature[1].items()
        ],
        "outputs": [_tensor(given[0], given[1].shape.as_list(), given[1].dtype.name, PROBABILITIES)],
    }


def _of_tflite(path: Path) -> dict[str, Any]:
    runner = open_interpreter(path, 1, delegate=False).get_signature_runner(SERVE_PIXELS)

    def described(details: dict[str, Any], span: list[int]) -> list[dict[str, Any]]:
        found = []
        for name, tensor in details.items():
            scale, zero_point = tensor["quantization"]
            codes = {"scale": float(scale), "zero_point": int(zero_point)} if scale else {}
            shape = [int(length) for length in tensor["shape"]]
            found.append(_tensor(name, shape, np.dtype(tensor["dtype"]).name, span) | codes)
        return found

    return {
        "signature": SERVE_PIXELS,
        "inputs": described(runner.get_input_details(), PIXELS),
        "outputs": described(runner.get_output_details(), PROBABILITIES),
    }


def _of_onnx(path: Path) -> dict[str, Any]:
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def described(tensors: Any, span: list[int]) -> list[dict[str, Any]]:
        return [
            # A length that is not fixed has a name.
            _tensor(
                tensor.name,
                [length if isinstance(length, int) else None for length in tensor.shape],
                {"tensor(float)": "float32"}.get(tensor.type, tensor.type[len("tensor(") : -1]),
                span,
            )
            for tensor in tensors
        ]

    inputs, outputs = session.get_inputs(), session.get_outputs()
    return {
        "signature": None,
        "inputs": described(inputs, PIXELS),
        "outputs": described(outputs, PROBABILITIES),
    }


def _tensor(name: str, shape: list[int | None] | list[int], dtype: str, span: list[int] | None) -> dict[str, Any]:
    found = {"name": name, "shape": list(shape), "dtype": dtype}
    return found if span is None else found | {"range": span}
