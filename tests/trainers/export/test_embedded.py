"""Labels and preprocessing inside each format's file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainers.export.embedded import EXTRA, LABELS, USAGE, add_to_onnx, add_to_savedmodel, add_to_tflite

CLASSES = ["été", "a b", "木"]
HOW = {"classes": CLASSES, "policy": "whole", "preprocessing": {"size": 16}}


def test_a_tflite_file_keeps_its_bytes_and_ends_with_an_archive(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(b"TFL3" * 25)
        add_to_tflite(path, HOW)
        files.append(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == [LABELS, USAGE]
            assert archive.read(LABELS).decode().split("\n")[:-1] == CLASSES
            assert json.loads(archive.read(USAGE)) == HOW
    assert files[0] == files[1]
    assert files[0].startswith(b"TFL3" * 25)


def test_a_savedmodel_has_them_as_extra_assets(tmp_path: Path) -> None:
    add_to_savedmodel(tmp_path, HOW)
    assert (tmp_path / EXTRA / LABELS).read_text(encoding="utf-8").splitlines() == CLASSES
    assert json.loads((tmp_path / EXTRA / USAGE).read_text(encoding="utf-8")) == HOW


def test_onnx_has_them_as_metadata() -> None:
    onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    model = onnx.ModelProto()
    add_to_onnx(model, HOW)
    again = onnx.ModelProto.FromString(model.SerializeToString())
    assert {entry.key: json.loads(entry.value) for entry in again.metadata_props} == HOW


def test_onnx_takes_any_list_of_entries() -> None:
    """Without the package: what is asked of a model is one list."""
    entries: list[SimpleNamespace] = []

    def add() -> SimpleNamespace:
        entries.append(SimpleNamespace())
        return entries[-1]

    add_to_onnx(SimpleNamespace(metadata_props=SimpleNamespace(add=add)), HOW)
    assert {entry.key: json.loads(entry.value) for entry in entries} == HOW
