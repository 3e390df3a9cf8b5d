"""The table of export formats, which run without this project.

Imports without TensorFlow, so that checking a command is quick.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainers.errors import TrainerError
from trainers.wording import did_you_mean


@dataclass(frozen=True)
class ExportFormat:
    """One format. ``file``: its name in the export folder. ``pixels`` and ``answer``: descriptions of the input and
    output of one call. ``needs``: modules required to write and run it, in addition to TensorFlow.
    """

    name: str
    file: str
    pixels: str
    answer: str
    description: str
    needs: tuple[str, ...] = ()


_MANY = "pixels: uint8 (n, size, size, 3), one crop each"
_ONE = "pixels: uint8 (1, size, size, 3), one crop per call"
_FLOATS = "probabilities: float32, (n, classes)"

FORMATS: dict[str, ExportFormat] = {
    row.name: row
    for row in (
        ExportFormat("savedmodel", "savedmodel", _MANY, _FLOATS, "TensorFlow's own, for TF Serving and any TensorFlow"),
        ExportFormat("tflite", "model.tflite", _ONE, _FLOATS, "LiteRT for phones and boards, float32"),
        ExportFormat("tflite-fp16", "model-fp16.tflite", _ONE, _FLOATS, "LiteRT, weights in float16: half the size"),
        ExportFormat(
            "tflite-int8",
            "model-int8.tflite",
            _ONE,
            "probabilities: uint8 (1, classes); value = scale * (code - zero point), both stored in the file",
            "LiteRT in 8-bit integers from pixels to answer, calibrated and corrected on training images: a quarter of "
            "the size",
        ),
        ExportFormat(
            "onnx", "model.onnx", _MANY, _FLOATS, "for ONNX Runtime and others", ("tf2onnx", "onnx", "onnxruntime")
        ),
    )
}


def export_formats(names: Iterable[str]) -> tuple[ExportFormat, ...]:
    """Return the formats in ``names``, each once, in the table's order. Raises TrainerError with the known names."""
    wanted = [name.strip() for name in names if name.strip()]
    if not wanted:
        raise TrainerError(f"no format was given; known are {', '.join(FORMATS)}.")
    for name in wanted:
        if name not in FORMATS:
            hint = did_you_mean(name, FORMATS)
            raise TrainerError(f"there is no export format {name!r}{hint} Known are {', '.join(FORMATS)}.")
    return tuple(row for name, row in FORMATS.items() if name in wanted)
