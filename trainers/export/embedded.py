"""Store labels and preprocessing inside exported files, where the format's own tools find them.

A .tflite file ends with a ZIP archive, as the specification of TFLite Metadata places associated files; interpreters
ignore it. ONNX has ``metadata_props``, a SavedModel the folder ``assets.extra``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LABELS, USAGE = "labels.txt", "usage.json"
"""Names in the archive of a .tflite file and in a SavedModel's ``assets.extra``: one class a line; all of ``usage``."""
EXTRA = "assets.extra"
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Time of every member of an archive, so that the same model gives the same file."""


def add_to_tflite(path: Path, usage: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in _files(usage).items():
            archive.writestr(zipfile.ZipInfo(name, EARLIEST), text.encode())


def add_to_savedmodel(path: Path, usage: Mapping[str, Any]) -> None:
    (path / EXTRA).mkdir(exist_ok=True)
    for name, text in _files(usage).items():
        (path / EXTRA / name).write_bytes(text.encode())


def add_to_onnx(model: Any, usage: Mapping[str, Any]) -> None:
    """Add one entry per item of ``usage`` to a ``ModelProto``: key -> JSON."""
    for key, value in usage.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, _json(value)


def _files(usage: Mapping[str, Any]) -> dict[str, str]:
    return {LABELS: "".join(f"{name}\n" for name in usage["classes"]), USAGE: _json(usage) + "\n"}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
