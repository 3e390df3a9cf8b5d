"""Write a served model in each export format, with its labels and preprocessing inside the file."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.export.bias_correction import corrected
from trainers.export.embedded import add_to_onnx, add_to_savedmodel, add_to_tflite
from trainers.export.graph import SERVE_BYTES, SERVE_PIXELS, bytes_graph, crop_graph
from trainers.export.measure import first_line
from trainers.export.onnx_operators import translations, untranslated
from trainers.export.preprocessing import usage
from trainers.images.crops import cut
from trainers.serving.model import ServedModel

CALIBRATION_IMAGES = 200
"""Maximum number of training images that int8 is calibrated on."""
OPSET = 18
"""Version of ONNX's operator set: the oldest with all operators of the backbones; converter and runtime support it."""


def _write_savedmodel(served: ServedModel, manifest: Manifest, path: Path) -> str:
    holder = tf.Module()
    holder.pixels, holder.photos = crop_graph(served, tf.uint8, None), bytes_graph(served)
    signatures = {
        SERVE_PIXELS: holder.pixels.get_concrete_function(),
        SERVE_BYTES: holder.photos.get_concrete_function(),
    }
    # The variables belong to Keras models outside ``holder``; a SavedModel needs a reference to each.
    holder.held = [variable for function in signatures.values() for variable in function.graph.variables]
    tf.saved_model.save(holder, str(path), signatures)
    add_to_savedmodel(path, usage(served))
    return ""


def _write_tflite(served: ServedModel, manifest: Manifest, path: Path) -> str:
    _save_tflite(served, _converter(served, "uint8").convert(), path)
    return ""


def _write_tflite_fp16(served: ServedModel, manifest: Manifest, path: Path) -> str:
    converter = _converter(served, "uint8")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    _save_tflite(served, converter.convert(), path)
    return ""


def _write_tflite_int8(served: ServedModel, manifest: Manifest, path: Path) -> str:
    """Quantise weights and activations after training (Jacob et al. 2018), integers from input to output.

    Then correct the biases (``trainers.export.bias_correction``). If that fails, write the file as it was converted.
    """
    converter = _converter(served, "float32")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    crops = _calibration(served, manifest)
    converter.representative_dataset = lambda: ([crop.astype(np.float32)] for crop in crops)
    content, note = converter.convert(), ""
    try:
        content = corrected(content, _converter(served, "float32").convert(), crops)
    except Exception as error:  # it reads layouts of the converter's files, which may have constants unknown here
        note = f"Its biases could not be corrected ({first_line(error)}), so it may be less accurate."
    _save_tflite(served, content, path)
    return note


def _save_tflite(served: ServedModel, content: bytes, path: Path) -> None:
    path.write_bytes(content)
    add_to_tflite(path, usage(served))


def _converter(served: ServedModel, dtype: str) -> Any:
    """Return a converter for one crop per call: every runtime takes a fixed shape, and most run it fastest.

    The file has the signature SERVE_PIXELS, which names its input and output.
    """
    holder = tf.Module()
    holder.pixels = crop_graph(served, tf.as_dtype(dtype), 1)
    function = holder.pixels.get_concrete_function()
    # Without a module that can be saved, the converter drops the signature.
    holder.held = list(function.graph.variables)
    return tf.lite.TFLiteConverter.from_concrete_functions([function], holder)


def _calibration(served: ServedModel, manifest: Manifest) -> list[np.ndarray]:
    """Return one crop per image of a sample of training images, uint8 (1, size, size, 3).

    The manifest seeds the sample; the policy's crops alternate.
    """
    part = manifest.split("train")
    paths, hashes = part.paths(), part.table["sha256"].tolist()
    if not paths:
        raise TrainerError("int8 calibration needs training images, and the split train is empty.")
    drawn = np.random.default_rng((manifest.seed, 8)).permutation(len(paths))[:CALIBRATION_IMAGES]
    crops = []
    for turn, i in enumerate(drawn):
        pixels = cut(paths[i], served.image_size, served.view, served.crop_names, hashes[i])
        crops.append(pixels[turn % len(pixels)][None])
    return crops


def _write_onnx(served: ServedModel, manifest: Manifest, path: Path) -> str:
    """Raises TrainerError if the network has an operator without a translation."""
    convert = importlib.import_module("tf2onnx.convert")
    graph = crop_graph(served, tf.uint8, None)
    model, _ = convert.from_function(graph, graph.input_signature, opset=OPSET, custom_op_handlers=translations())
    if strange := untranslated(model):
        raise TrainerError(
            f"tf2onnx has no translation of {', '.join(strange)} in {served.prefix.key.backbone}; export savedmodel "
            "or tflite instead."
        )
    add_to_onnx(model, usage(served))
    path.write_bytes(model.SerializeToString())
    return ""


WRITERS: dict[str, Callable[[ServedModel, Manifest, Path], str]] = {
    "savedmodel": _write_savedmodel,
    "tflite": _write_tflite,
    "tflite-fp16": _write_tflite_fp16,
    "tflite-int8": _write_tflite_int8,
    "onnx": _write_onnx,
}
"""Format -> function that writes (model, manifest, file or folder); only int8 reads the manifest, to calibrate.

Returns a sentence about what the file lacks, "" if nothing."""
