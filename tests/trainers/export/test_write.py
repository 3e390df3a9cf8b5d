"""Writing each format: which networks convert, and what int8 is calibrated on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.paths import SweepPaths
from tests.support.exported_sweep import POLICY, WITHOUT_EXTRAS, write_sweep
from tests.trainers.serving.test_model import finish
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.data.manifest import Manifest
from trainers.export import export, run, tflite_graph, write
from trainers.export.formats import FORMATS
from trainers.serving.model import ServedModel, assemble


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepPaths:
    return write_sweep(tmp_path_factory.mktemp("export") / "sweep", members=1)


def test_int8_holds_integers_alone_and_is_calibrated_on_training_images(
    sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    cut = write.cut

    def watched(path: Path, *more: Any) -> np.ndarray:
        seen.append(path)
        return cut(path, *more)

    monkeypatch.setattr(write, "cut", watched)
    manifest = Manifest.read(sweep.manifest)
    path = sweep.root / "int8.tflite"
    write._write_tflite_int8(ServedModel(sweep.winner), manifest, path)
    assert len(seen) == 60  # half as many of the first class
    assert set(seen) == set(manifest.split("train").paths())
    assert run.float_tensors(path) == 0
    assert run.float_tensors(written(ServedModel(sweep.winner), manifest, path)) > 0


def test_int8_is_written_uncorrected_and_says_so_where_the_correction_fails(
    sweep: SweepPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A converter may write constants of a type that the correction does not know."""
    known = dict(tflite_graph.DTYPES)
    monkeypatch.setattr(tflite_graph, "DTYPES", {code: known[code] for code in known if known[code] is not np.int32})
    answer = ask_worker(sweep, ("tflite-int8",), tmp_path)
    assert answer["failed"] == {}
    assert answer["notes"]["tflite-int8"] == (
        "Its biases could not be corrected (KeyError: 2), so it may be less accurate."
    )
    monkeypatch.setattr(tflite_graph, "DTYPES", known)
    assert ask_worker(sweep, ("tflite-int8",), tmp_path)["notes"] == {}


def written(served: ServedModel, manifest: Manifest, path: Path) -> Path:
    """The float32 form."""
    write._write_tflite(served, manifest, path)
    return path


NETWORKS = [
    {"head": "cosface", "hidden": 6},
    {"feature_fusion": "concat", "unfrozen_layers": 0},
    pytest.param({"unfrozen_layers": "all", "pooling": "max"}, marks=pytest.mark.slow),
    pytest.param({"backbone": "tests.support.tiny_fits:RESIDUAL", "unfrozen_layers": 8}, marks=pytest.mark.slow),
    pytest.param({"mixup": 0.2, "head": "subcentre_arcface"}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("trial", NETWORKS, ids=lambda trial: " ".join(map(str, trial.values())))
def test_every_kind_of_network_converts(tmp_path: Path, trial: dict[str, Any]) -> None:
    paths = write_sweep(tmp_path / "sweep", members=1, **trial)
    answer = ask_worker(paths, ("tflite", "tflite-int8"), tmp_path)
    assert answer["failed"] == {}
    fused = trial.get("feature_fusion", "none") != "none"
    assert ("of its tensors stay float32" in answer["notes"].get("tflite-int8", "")) == fused
    expected = np.load(paths.probabilities("fit-1", "test", POLICY))["probabilities"]
    for name, tolerance in (("original", 1e-5), ("tflite", 1e-4), ("tflite-int8", 0.15)):
        found = np.load(tmp_path / "answers" / f"{name}.npz")["probabilities"]
        np.testing.assert_allclose(found, expected, atol=tolerance, err_msg=name)


@pytest.mark.slow
def test_a_transformer_is_written_in_every_format(tmp_path: Path) -> None:
    """At another size than that of its position table, half of it trained."""
    pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
    trial = {"backbone": "tests.support.tiny_fits:VIT", "image_size": 24, "pooling": "token", "unfrozen_layers": 1}
    paths = write_sweep(tmp_path / "sweep", members=1, **trial)
    answer = ask_worker(paths, (*WITHOUT_EXTRAS, "onnx"), tmp_path)
    assert answer["failed"] == {}
    expected = np.load(paths.probabilities("fit-1", "test", POLICY))["probabilities"]
    tolerances = {"savedmodel": 1e-5, "tflite": 1e-4, "tflite-fp16": 0.02, "tflite-int8": 0.15, "onnx": 1e-4}
    for name, tolerance in tolerances.items():
        found = np.load(tmp_path / "answers" / f"{name}.npz")["probabilities"]
        np.testing.assert_allclose(found, expected, atol=tolerance, err_msg=name)


ONNX_NETWORKS = [
    {"backbone": "tests.support.tiny_fits:CONVNEXT", "image_size": 64, "unfrozen_layers": 8},
    pytest.param({"backbone": "convnext_v2_atto", "image_size": 64, "unfrozen_layers": 0}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("trial", ONNX_NETWORKS, ids=lambda trial: trial["backbone"])
def test_a_network_with_gelu_and_grn_answers_alike_in_onnx(tmp_path: Path, trial: dict[str, Any]) -> None:
    pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
    paths = write_sweep(tmp_path / "sweep", members=1, **trial)
    assert ask_worker(paths, ("onnx",), tmp_path)["failed"] == {}
    found, expected = (np.load(tmp_path / "answers" / f"{n}.npz")["probabilities"] for n in ("onnx", "original"))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3


@pytest.mark.parametrize(
    "backbone",
    ["tests.support.tiny_fits:GROUPED", pytest.param("convnext_tiny", marks=pytest.mark.slow)],
)
def test_an_operator_without_a_translation_is_a_sentence(tmp_path: Path, backbone: str) -> None:
    """Keras compiles convolutions in groups, ConvNeXt's first version among them, with XLA."""
    pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
    size = 16 if "tiny_fits" in backbone else 32
    paths = write_sweep(tmp_path / "sweep", members=1, backbone=backbone, image_size=size, unfrozen_layers=0)
    answer = ask_worker(paths, ("onnx", "tflite"), tmp_path)
    assert answer["failed"] == {
        "onnx": f"tf2onnx has no translation of StatefulPartitionedCall in {backbone}; export savedmodel or tflite "
        "instead."
    }
    assert not (tmp_path / "model.onnx").exists()


def ask_worker(paths: SweepPaths, formats: tuple[str, ...], out: Path) -> dict[str, Any]:
    """The worker's job without a driver; probabilities lie in ``out/answers``."""
    job = {
        "model": str(paths.winner),
        "outputs": {name: str(out / FORMATS[name].file) for name in formats},
        "answers": {name: str(out / "answers" / f"{name}.npz") for name in (*formats, "original", "serve_bytes")},
        "manifest": str(paths.manifest),
        "split": "test",
        "threads": 1,
    }
    return export.export(job)


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "size"), [("mobilenet_0.25", 64), ("efficientnet_b0", 64), ("resnet50", 64)])
def test_large_backbones_convert(tmp_path: Path, backbone: str, size: int) -> None:
    """Random weights: the operations are what is tried here."""
    paths = write_sweep(tmp_path / "sweep", members=1, backbone=backbone, image_size=size, unfrozen_layers=0)
    answer = ask_worker(paths, WITHOUT_EXTRAS, tmp_path)
    assert answer["failed"] == {}
    expected = np.load(paths.probabilities("fit-1", "test", POLICY))["probabilities"]
    for name, tolerance in (("savedmodel", 1e-4), ("tflite", 1e-4), ("tflite-fp16", 0.05)):
        found = np.load(tmp_path / "answers" / f"{name}.npz")["probabilities"]
        np.testing.assert_allclose(found, expected, atol=tolerance, err_msg=name)
    assert np.load(tmp_path / "answers" / "tflite-int8.npz")["probabilities"].shape == expected.shape


@pytest.mark.slow
def test_real_photos_and_weights(tmp_path: Path, orch_data: Path, orch_weights: Path) -> None:
    """JPEG files of odd sizes, whose central square begins at half a pixel, also by ``serve_bytes``."""
    made = write_photos(tmp_path / "photos", orch_data / "trashnet", 12)
    fit = finish(
        made,
        tmp_path,
        "fit-1",
        1,
        str(orch_weights),
        backbone="mobilenet_0.25",
        image_size=96,
        unfrozen_layers=0,
        head="softmax",
        hidden=0,
        view="centre_crop",
    )
    classes = Manifest.read(made).classes
    job = {"fits": [fit], "output": str(tmp_path / "winner"), "classes": list(classes), "policy": "flip"}
    assemble(job | {"threads": 1, "precision": "float32"})
    shutil.copy(made, tmp_path / "manifest.parquet")
    answer = ask_worker(SweepPaths(tmp_path), WITHOUT_EXTRAS, tmp_path)
    assert answer["failed"] == {}

    def said(name: str) -> np.ndarray:
        return np.load(tmp_path / "answers" / f"{name}.npz")["probabilities"]

    for name, tolerance in (("savedmodel", 1e-5), ("tflite", 1e-4), ("tflite-fp16", 0.02), ("tflite-int8", 0.4)):
        assert np.abs(said(name) - said("original")).max() < tolerance, name
    change = np.abs(said("serve_bytes") - said("original")).max()
    assert change < 0.03
    assert (said("serve_bytes").argmax(1) == said("original").argmax(1)).all()


def write_photos(folder: Path, trashnet: Path, count: int) -> Path:
    """The first photos of each class, a third of them for test; the manifest."""
    for kind in sorted(p for p in trashnet.iterdir() if p.is_dir()):
        (folder / kind.name).mkdir(parents=True)
        for photo in sorted(kind.glob("*.jpg"))[:count]:
            shutil.copy(photo, folder / kind.name)
    source = DataSource(source=str(folder), splits=(0.4, 0.2, 0.4), seed=0, cache=folder.parent / "cache")
    manifest, _ = build_manifest(source)
    manifest.write(folder.parent / "made.parquet")
    return folder.parent / "made.parquet"
