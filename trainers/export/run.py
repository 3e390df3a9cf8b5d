"""Run exported files: open a file as a function of crops, and inspect how a runtime loads it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainers.export.graph import SERVE_PIXELS

Runner = Callable[[np.ndarray], np.ndarray]
"""uint8 crops (n, size, size, 3) -> float (n, classes)."""


def _open_savedmodel(path: Path, threads: int) -> Runner:
    loaded = tf.saved_model.load(str(path))  # held by the closure: its variables live as long as it does
    return lambda cut: loaded.signatures[SERVE_PIXELS](pixels=tf.constant(cut))["probabilities"].numpy()


def open_interpreter(file: Path | bytes, threads: int, delegate: bool = True, keep: bool = False) -> Any:
    """Open a .tflite file, or its content.

    ``delegate``: let XNNPACK, the default delegate, run what it can. ``keep``: keep every layer's output, for reading.
    """
    source = {"model_content": file} if isinstance(file, bytes) else {"model_path": str(file)}
    kinds = tf.lite.experimental.OpResolverType
    kind = kinds.AUTO if delegate else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the interpreter will move to another package
        interpreter = tf.lite.Interpreter(
            **source,
            num_threads=threads,
            experimental_op_resolver_type=kind,
            experimental_preserve_all_tensors=keep,
        )
    interpreter.allocate_tensors()
    return interpreter


def _open_tflite(path: Path, threads: int) -> Runner:
    interpreter = open_interpreter(path, threads, delegate=takes_xnnpack(path))
    inputs, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(cut: np.ndarray) -> np.ndarray:
        rows = []
        for crop in cut:
            interpreter.set_tensor(inputs["index"], _to_codes(crop[None], *inputs["quantization"]))
            interpreter.invoke()
            rows.append(_from_codes(interpreter.get_tensor(outputs["index"])[0], *outputs["quantization"]))
        return np.stack(rows)

    return run


def _to_codes(pixels: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Convert pixels to the codes of a quantised input; unchanged if it is not quantised, or its codes are pixels."""
    if (scale, zero_point) in ((0.0, 0), (1.0, 0)):
        return pixels
    return np.clip(np.round(pixels / scale) + zero_point, 0, 255).astype(np.uint8)


def _from_codes(codes: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    return codes if scale == 0 else (codes.astype(np.float32) - zero_point) * scale


def _open_onnx(path: Path, threads: int) -> Runner:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda cut: session.run(["probabilities"], {"pixels": cut})[0]


def float_tensors(path: Path) -> int:
    """Return the number of float32 tensors in a .tflite file; 0 if all are integers."""
    details = open_interpreter(path, 1, delegate=False).get_tensor_details()  # a delegate adds its own tensors
    return sum(tensor["dtype"] == np.float32 for tensor in details)


def takes_xnnpack(path: Path) -> bool:
    """Return whether XNNPACK, the interpreter's default delegate, can run a .tflite file."""
    try:
        open_interpreter(path, 1)
    except RuntimeError:
        return False
    return True


OPENERS: dict[str, Callable[[Path, int], Runner]] = {
    "savedmodel": _open_savedmodel,
    "tflite": _open_tflite,
    "tflite-fp16": _open_tflite,
    "tflite-int8": _open_tflite,
    "onnx": _open_onnx,
}
"""Format -> function that opens (file or folder, threads)."""
