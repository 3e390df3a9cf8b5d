"""What is read of exported files: signatures, names, shapes, types, ranges and scales."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.exported_sweep import TFLITE, write_sweep
from trainers.data.manifest import Manifest
from trainers.export.formats import FORMATS
from trainers.export.interface import interface
from trainers.export.run import open_interpreter
from trainers.export.write import WRITERS
from trainers.serving.model import ServedModel


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("files")
    paths = write_sweep(root / "sweep", members=1)
    served, manifest = ServedModel(paths.winner), Manifest.read(paths.manifest)
    found = {name: root / FORMATS[name].file for name in ("savedmodel", *TFLITE)}
    for name, path in found.items():
        WRITERS[name](served, manifest, path)
    return found


def pixels(batch: int | None) -> dict[str, Any]:
    return {"name": "pixels", "shape": [batch, 16, 16, 3], "dtype": "uint8", "range": [0, 255]}


def probabilities(batch: int | None) -> dict[str, Any]:
    return {"name": "probabilities", "shape": [batch, 3], "dtype": "float32", "range": [0, 1]}


def test_a_savedmodel_has_two_signatures(files: dict[str, Path]) -> None:
    found = interface(files["savedmodel"], "whole")
    assert (
        json.loads(json.dumps(found))
        == found
        == {
            "signature": "serving_default",
            "inputs": [pixels(None)],
            "outputs": [probabilities(None)],
            "photos": {
                "signature": "serve_bytes",
                "inputs": [{"name": "photos", "shape": [None], "dtype": "string"}],
                "outputs": [probabilities(None)],
                "policy": "whole",
            },
        }
    )


@pytest.mark.parametrize("name", ["tflite", "tflite-fp16"])
def test_a_tflite_file_has_a_signature_that_names_its_tensors(files: dict[str, Path], name: str) -> None:
    assert interface(files[name], "whole") == {
        "signature": "serving_default",
        "inputs": [pixels(1)],
        "outputs": [probabilities(1)],
    }


def test_int8_has_the_scales_of_the_file(files: dict[str, Path]) -> None:
    found = interface(files["tflite-int8"], "whole")
    interpreter = open_interpreter(files["tflite-int8"], 1)
    for tensors, details in (
        (found["inputs"], interpreter.get_input_details()),
        (found["outputs"], interpreter.get_output_details()),
    ):
        assert [tensor["dtype"] for tensor in tensors] == ["uint8"]
        assert [(t["scale"], t["zero_point"]) for t in tensors] == [detail["quantization"] for detail in details]
        assert tensors[0]["scale"] > 0
    assert np.isclose(found["outputs"][0]["scale"], 1 / 256)


def test_onnx_has_names_and_no_signature(files: dict[str, Path], tmp_path: Path) -> None:
    for module in FORMATS["onnx"].needs:
        pytest.importorskip(module, reason="the extra `onnx` is not installed")
    sweep = files["tflite"].parent / "sweep"
    WRITERS["onnx"](ServedModel(sweep / "winner"), Manifest.read(sweep / "manifest.parquet"), tmp_path / "model.onnx")
    found = interface(tmp_path / "model.onnx", "whole")
    assert found == {"signature": None, "inputs": [pixels(None)], "outputs": [probabilities(None)]}
