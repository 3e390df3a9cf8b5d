"""Exports of a real winner: what each format answers, when it is refused, what is written and recorded.

The sweep is a tiny one with real networks; its jobs run in this process instead of on Ray's workers (one test aside).
"""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from orchestrator.cluster import ray_session
from orchestrator.commands.export import ExportRequest, export_winner, installed_formats, print_report, refusal
from orchestrator.errors import ExportRefused, OrchError, SpecError
from orchestrator.evaluation.export_report import ExportReport, ExportState
from orchestrator.ledger.folder import read_sweep
from orchestrator.ledger.kept import FILES, FileState, checksums, files_below
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind, read_events
from orchestrator.ledger.stages import Stage
from orchestrator.paths import SweepPaths
from tests.support import exported_sweep
from tests.support.exported_sweep import PHOTOS, POLICY, WITHOUT_EXTRAS, export_here, write_sweep
from tests.support.tiny_fits import CLASSES, write_manifest
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.export import describe, run, write
from trainers.export.formats import FORMATS, export_formats
from trainers.serving.model import ServedModel


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> SweepPaths:
    return write_sweep(tmp_path_factory.mktemp("export") / "a sweep")


@pytest.fixture
def sweep(swept: SweepPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepPaths:
    """A copy that a test may change; jobs run here."""
    shutil.copytree(swept.root, tmp_path / "sweep")
    export_here(monkeypatch)
    return SweepPaths(tmp_path / "sweep")


def run_export(sweep: SweepPaths, *formats: str, **values: Any) -> ExportReport:
    return export_winner(sweep.root, ExportRequest(formats=formats or WITHOUT_EXTRAS, **values))


def stored(sweep: SweepPaths) -> np.ndarray:
    """The winner's probabilities on test, as the sweep left them."""
    members = [np.load(sweep.probabilities(f"fit-{seed}", "test", POLICY))["probabilities"] for seed in (1, 2)]
    return np.mean(members, 0)


# --- what is written ----------------------------------------------------------------------------------------------


def test_every_format_answers_as_the_original_does(sweep: SweepPaths) -> None:
    report = run_export(sweep)
    assert [e.name for e in report.exports] == list(WITHOUT_EXTRAS)
    assert [e.state for e in report.exports] == [ExportState.KEPT] * 4
    assert refusal(report) is None
    change = {e.name: e.figures.largest_change for e in report.exports if e.figures}
    assert change["savedmodel"] < 1e-5
    assert change["tflite"] < 1e-5
    assert 0 < change["tflite-fp16"] < 5e-3
    assert 1e-5 < change["tflite-int8"] < 0.1
    assert report.original.largest_change < 1e-5
    labels = Manifest.read(sweep.manifest).split("test").labels()
    assert report.original.accuracy == (stored(sweep).argmax(1) == labels).mean()
    assert report.photos == PHOTOS
    size = {e.name: e.figures.size_mb for e in report.exports if e.figures}
    assert size["tflite"] > size["tflite-fp16"] > size["tflite-int8"] > 0
    assert all(e.figures and e.figures.latency_ms > 0 for e in report.exports)


def test_the_files_work_without_this_project(sweep: SweepPaths) -> None:
    """As the card says: cut a photo, ask about each crop, take the mean."""
    import tensorflow as tf

    run_export(sweep, "savedmodel", "tflite-int8")
    out = sweep.root / "exports"
    card = json.loads((out / "card.json").read_text())
    assert card["classes"] == list(CLASSES)
    assert card["policy"] == POLICY
    assert card["photo"][-3:-1] == [
        "two crops: that, and its mirror image left to right",
        "the answer is the mean of the crops' probabilities",
    ]
    assert card["photo"][-1].startswith("calibrate: each probability to the power of 1 / ")
    assert set(card["files"]) == {"savedmodel", "model-int8.tflite"}
    assert card["versions"]["tensorflow"] == tf.__version__
    from PIL import Image

    photo = Manifest.read(sweep.manifest).split("test").paths()[0]
    small = np.asarray(Image.open(photo).convert("RGB").resize((16, 16), Image.Resampling.BILINEAR))
    crops = np.stack([small, small[:, ::-1]])
    loaded = tf.saved_model.load(str(out / "savedmodel"))
    answer = loaded.signatures["serving_default"](pixels=tf.constant(crops))["probabilities"].numpy().mean(0)
    np.testing.assert_allclose(answer, stored(sweep)[0], atol=1e-5)
    from_bytes = loaded.signatures["serve_bytes"](photos=tf.constant([photo.read_bytes()] * 2))["probabilities"]
    np.testing.assert_allclose(from_bytes, [stored(sweep)[0]] * 2, atol=0.01)
    integers = tf.lite.Interpreter(model_path=str(out / "model-int8.tflite"))
    taken, given = integers.get_input_details()[0], integers.get_output_details()[0]
    assert (taken["dtype"], given["dtype"]) == (np.uint8, np.uint8)
    assert taken["shape"].tolist() == [1, 16, 16, 3]
    assert given["quantization"][0] > 0


def test_onnx_answers_as_the_original_does(sweep: SweepPaths) -> None:
    for module in FORMATS["onnx"].needs:
        pytest.importorskip(module, reason="the extra `onnx` is not installed")
    report = run_export(sweep, "onnx")
    (export,) = report.exports
    assert export.state == ExportState.KEPT, export.reason
    assert export.figures
    assert export.figures.largest_change < 1e-5


def test_what_onnx_needs_is_said_where_it_is_missing(sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in FORMATS["onnx"].needs else find(name))
    report = run_export(sweep, "onnx", "tflite")
    assert [e.state for e in report.exports] == [ExportState.KEPT, ExportState.FAILED]
    refused = refusal(report)
    assert refused is not None
    assert str(refused).startswith("onnx: onnx needs tf2onnx and onnx and onnxruntime")
    assert "`pip install tf2onnx onnx onnxruntime`" in str(refused)


def test_a_converter_that_fails_costs_the_others_nothing(sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(served: ServedModel, manifest: Manifest, path: Path) -> None:
        path.write_bytes(b"half a file")
        raise RuntimeError("\nthe op XYZ has no kernel\nand more")

    monkeypatch.setitem(write.WRITERS, "tflite-fp16", fail)
    report = run_export(sweep, "tflite", "tflite-fp16")
    assert [(e.name, e.state) for e in report.exports] == [
        ("tflite", ExportState.KEPT),
        ("tflite-fp16", ExportState.FAILED),
    ]
    assert report.exports[1].reason == "tflite-fp16 could not be written: RuntimeError: the op XYZ has no kernel"
    assert [p.name for p in (sweep.root / "exports").glob("*.tflite")] == ["model.tflite"]


def test_a_file_that_does_not_run_costs_the_others_nothing(sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, threads: int) -> run.Runner:
        def fail(cut: np.ndarray) -> np.ndarray:
            raise RuntimeError("node 7 failed to invoke")

        return fail

    monkeypatch.setitem(run.OPENERS, "tflite-fp16", broken)
    report = run_export(sweep, "tflite", "tflite-fp16")
    assert [e.state for e in report.exports] == [ExportState.KEPT, ExportState.FAILED]
    reason = "tflite-fp16 was written but could not be run: RuntimeError: node 7 failed to invoke"
    assert report.exports[1].reason == reason
    assert [p.name for p in (sweep.root / "exports").glob("*.tflite")] == ["model.tflite"]


def test_a_file_that_the_delegate_refuses_is_run_without_it(sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (describe, run):
        monkeypatch.setattr(module, "takes_xnnpack", lambda path: False)
    report = run_export(sweep, "tflite")
    assert report.exports[0].state == ExportState.KEPT
    assert report.exports[0].figures
    assert report.exports[0].figures.largest_change < 1e-4
    page = (sweep.root / "exports" / "report.md").read_text()
    assert "- tflite: XNNPACK, the delegate for CPUs, cannot run it" in page


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> SweepPaths:
    """``tflite`` answers with the classes in another order."""
    opened = run.OPENERS["tflite"]

    def open_wrong(path: Path, threads: int) -> run.Runner:
        right = opened(path, threads)
        return lambda cut: np.roll(right(cut), 1, 1)

    monkeypatch.setitem(run.OPENERS, "tflite", open_wrong)
    # An original that is right, so that there is something to lose.
    labels = Manifest.read(sweep.manifest).split("test").labels()
    for seed in (1, 2):
        path = sweep.probabilities(f"fit-{seed}", "test", POLICY)
        arrays = dict(np.load(path))
        np.savez(path, **arrays | {"labels": arrays["probabilities"].argmax(1).astype(np.int32)})
    assert len(labels) == PHOTOS
    return sweep


def test_an_export_that_loses_too_much_is_not_left_in_place(spoilt: SweepPaths) -> None:
    out = spoilt.root / "exports"
    out.mkdir()
    (out / "model.tflite").write_bytes(b"of an earlier export")
    report = run_export(spoilt, "tflite", "tflite-fp16")
    assert [e.state for e in report.exports] == [ExportState.REFUSED, ExportState.KEPT]
    assert sorted(p.name for p in out.iterdir()) == ["card.json", "model-fp16.tflite", "report.json", "report.md"]
    refused = refusal(report)
    assert isinstance(refused, ExportRefused)
    assert refused.exit_code == 8
    assert "tflite: its accuracy on test is " in str(refused)
    assert "points below the original's (95 % interval " in str(refused)
    assert "1 may be lost. Allow more with `--bound`, or keep it anyway with `--force`." in str(refused)
    assert set(json.loads((out / "card.json").read_text())["files"]) == {"model-fp16.tflite"}


def test_force_keeps_it_and_is_recorded(spoilt: SweepPaths) -> None:
    report = run_export(spoilt, "tflite", force=True)
    assert report.exports[0].state == ExportState.OVERRIDDEN
    assert refusal(report) is None
    out = spoilt.root / "exports"
    assert (out / "model.tflite").is_file()
    assert "kept because of `--force`" in (out / "report.md").read_text()
    last = [e for e in read_events(spoilt.ledger) if e.stage == Stage.EXPORT][-1]
    assert last.data["exports"]["tflite"]["state"] == "overridden"
    assert "below the original's" in last.data["exports"]["tflite"]["reason"]


def test_a_wider_bound_keeps_it_without_force(spoilt: SweepPaths) -> None:
    report = run_export(spoilt, "tflite", bound=1.0)
    assert report.exports[0].state == ExportState.KEPT


# --- what is recorded and said ------------------------------------------------------------------------------------


def test_reading_test_is_recorded_before_and_what_became_of_it_after(sweep: SweepPaths) -> None:
    run_export(sweep, "tflite")
    events = [e for e in read_events(sweep.ledger) if e.stage == Stage.EXPORT]
    assert [(str(e.kind), e.state) for e in events] == [("STAGE", "BEGUN"), ("STAGE", "ENDED")]
    assert events[0].data == {"reads_test": 1, "formats": ["tflite"]}
    assert {name: value for name, value in events[1].data.items() if name != FILES} == {
        "exports": {"tflite": {"state": "kept", "reason": ""}},
        "bound": 0.01,
        "folder": "exports",
    }


def test_the_report_on_disk_and_on_the_terminal(sweep: SweepPaths, tmp_path: Path) -> None:
    lines: list[str] = []
    request = ExportRequest(formats=("savedmodel", "tflite"), out=tmp_path / "elsewhere")
    report = export_winner(sweep.root, request, lines.append)
    page = (tmp_path / "elsewhere" / "report.md").read_text()
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert rows == ["format", "original", "savedmodel", "tflite"]
    assert "crop policy `flip` (2 crops per photo), on 24 test photos" in page
    assert "on 1 thread; cores" in page
    assert "answers 24 of 24 test photos" in page
    values = json.loads((tmp_path / "elsewhere" / "report.json").read_text())
    assert [e["state"] for e in values["exports"]] == ["kept", "kept"]
    assert values["exports"][0]["figures"]["difference"]["low"] is not None
    assert values["original"]["latency_ms"] > 0
    text = io.StringIO()
    print_report(report, Console(file=text, width=120))
    assert "exports of sweep, on 24 test photos" in text.getvalue()
    assert "kept" in text.getvalue()
    narrow = io.StringIO()
    print_report(report, Console(file=narrow, width=80))
    (row,) = [line for line in narrow.getvalue().splitlines() if line.strip().startswith("tflite")]
    assert row.rstrip().endswith("kept")
    assert "…" not in row
    assert lines[0] == "export   savedmodel, tflite of winner/ensemble, asked about 24 test photos"
    assert not list((tmp_path / "elsewhere").glob(".*"))


# --- what cannot be exported --------------------------------------------------------------------------------------


def test_names_and_bounds_that_do_not_exist(sweep: SweepPaths) -> None:
    with pytest.raises(OrchError, match=r"no export format 'tflight'; did you mean tflite\? Known are savedmodel, tfl"):
        run_export(sweep, "tflight")
    with pytest.raises(OrchError, match="no format was given; known are savedmodel"):
        run_export(sweep, " ")
    with pytest.raises(OrchError, match=r"--bound is a share of the test photos from 0 to 1, as 0\.01; not 2"):
        run_export(sweep, "tflite", bound=2)
    assert [row.name for row in export_formats(["onnx", "tflite", "onnx"])] == ["tflite", "onnx"]
    assert not [e for e in read_events(sweep.ledger) if e.stage == Stage.EXPORT]


def test_without_a_name_every_format_that_is_installed_is_written(
    sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.commands.export.find_spec", lambda module: None)
    assert installed_formats() == WITHOUT_EXTRAS
    monkeypatch.setattr("orchestrator.commands.export.installed_formats", lambda: ("tflite",))
    lines: list[str] = []
    report = export_winner(sweep.root, ExportRequest(), lines.append)
    assert [e.name for e in report.exports] == ["tflite"]
    assert "note     onnx is left out: `pip install tf2onnx onnx onnxruntime`" in lines


def test_an_export_among_the_photos_is_refused_before_the_test_split_is_read(sweep: SweepPaths) -> None:
    photos = Manifest.read(sweep.manifest).root
    before = len(read_events(sweep.ledger))
    with pytest.raises(SpecError, match=r"--out: .*/phone lies in .*, the folder of the photos"):
        run_export(sweep, out=photos / "phone")
    assert not (photos / "phone").exists()
    assert len(read_events(sweep.ledger)) == before


def test_a_sweep_without_a_winner(sweep: SweepPaths, tmp_path: Path) -> None:
    with pytest.raises(OrchError, match=r"nothing is not a sweep's folder"):
        export_winner(tmp_path / "nothing", ExportRequest())
    assert not (tmp_path / "nothing").exists()
    (sweep.winner / "model.json").unlink()
    with pytest.raises(OrchError, match="has no finished leaderboard, so no winner; resume it: `orch sweep --resume"):
        run_export(sweep, "tflite")


def test_a_winner_that_was_chosen_since_is_not_what_is_exported(sweep: SweepPaths) -> None:
    """The sweep got more to do, chose another winner and was killed in its refit."""
    another = {"trial": "another", "model": "single", "policy": "whole"}
    with Ledger(sweep.ledger) as ledger:
        ledger.append(EventKind.STAGE, stage="select", state="ENDED", payload={"winner": another})
    report = run_export(sweep, "tflite")
    assert (report.trial, report.policy, report.exports[0].state) == ("fit-0", POLICY, ExportState.KEPT)
    assert json.loads((sweep.root / "exports" / "card.json").read_text())["trial"] == "fit-0"


def test_a_winners_folder_of_another_run_is_not_exported(sweep: SweepPaths) -> None:
    """Killed after it wrote the folder and before it recorded its leaderboard."""
    described = json.loads((sweep.winner / "model.json").read_text())
    (sweep.winner / "model.json").write_text(json.dumps(described | {"fits": ["fit-3"]}))
    with pytest.raises(
        OrchError, match=r"was given more to do after its last leaderboard .*: `orch sweep --resume --ou"
    ):
        run_export(sweep, "tflite")
    assert not [e for e in read_events(sweep.ledger) if e.stage == Stage.EXPORT]


def test_probabilities_of_other_photos(sweep: SweepPaths) -> None:
    path = sweep.probabilities("fit-1", "test", POLICY)
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"sha256": arrays["sha256"][::-1]})
    with pytest.raises(OrchError, match="are not of the test photos of its manifest"):
        run_export(sweep, "tflite")
    path.unlink()
    with pytest.raises(OrchError, match=r"flip\.npz is missing\. `orch sweep --resume --out .*` makes it again"):
        run_export(sweep, "tflite")


def test_photos_that_tensorflow_does_not_decode_are_counted(sweep: SweepPaths) -> None:
    from PIL import Image

    manifest = Manifest.read(sweep.manifest)
    part = manifest.split("test")
    for path in part.paths()[:4]:
        Image.open(path).save(path, "TIFF")
    try:
        report = run_export(sweep, "savedmodel")
    finally:
        write_manifest(part.root, {"train": 24, "validation": 4, "test": PHOTOS // 3})
    assert report.from_photos is not None
    assert f"answers {PHOTOS - 4} of {PHOTOS} test photos" in report.from_photos
    assert report.original.largest_change < 1e-5
    assert isinstance(pd.read_parquet(sweep.manifest), pd.DataFrame)


def test_the_report_says_what_serve_bytes_does(sweep: SweepPaths) -> None:
    said = run_export(sweep, "savedmodel").from_photos
    assert said is not None
    assert "applies EXIF orientation, lays transparency on white and cuts by the policy flip. It ignores" in said
    assert f"HEIC, AVIF or JPEG 2000. It answers {PHOTOS} of {PHOTOS} test photos" in said


def test_the_report_and_the_card_say_that_serve_bytes_has_another_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "tests.support.tiny_fits:OWN_POLICY"
    monkeypatch.setattr(exported_sweep, "POLICY", own)
    export_here(monkeypatch)
    paths = write_sweep(tmp_path / "sweep", members=1)
    said = run_export(paths, "savedmodel").from_photos
    assert said is not None
    assert f"by the policy whole, not {own}; for that, send crops to serving_default. It ignores" in said
    card = json.loads((paths.exports / "card.json").read_text())
    assert card["policy"] == own
    assert card["files"]["savedmodel"]["photos"]["policy"] == "whole"


@pytest.mark.slow
def test_the_same_on_a_worker(swept: SweepPaths, tmp_path: Path) -> None:
    """Through Ray, as the command does it."""
    shutil.copytree(swept.root, tmp_path / "sweep")
    report = export_winner(tmp_path / "sweep", ExportRequest(formats=("tflite", "tflite-int8")))
    assert [e.state for e in report.exports] == [ExportState.KEPT] * 2
    assert not ray_session.ray.is_initialized()


# --- what is exported is what was judged --------------------------------------------------------------------------


@pytest.mark.parametrize("changed", ["bias", "member"])
def test_a_winner_that_does_not_answer_as_judged_is_not_exported(sweep: SweepPaths, changed: str) -> None:
    """In a sweep without checksums, as this one."""
    if changed == "bias":
        path = sweep.winner / "member-1.npz"
        with np.load(path) as stored:
            arrays = dict(stored)
        last = max(name for name in arrays if arrays[name].shape == (len(CLASSES),))
        np.savez(path, **arrays | {last: arrays[last] + np.array([0, 3, -3], np.float32)})
    else:
        shutil.copy(sweep.winner / "member-0.npz", sweep.winner / "member-1.npz")
    with pytest.raises(OrchError, match=r"winner was changed: it does not answer as it was judged"):
        run_export(sweep, "tflite")
    assert [path.name for path in sweep.exports.iterdir()] == []


@pytest.mark.parametrize("name", ["model.json", "member-0.npz", "backbone.npz"])
def test_a_changed_file_of_the_winner_is_refused_before_the_test_split_is_read(sweep: SweepPaths, name: str) -> None:
    with Ledger(sweep.ledger) as ledger:
        events = [e for e in ledger.events() if e.stage == Stage.LEADERBOARD and e.state == "ENDED"]
        payload = events[-1].data | {FILES: checksums(sweep, files_below(sweep.winner))}
        ledger.append(EventKind.STAGE, stage=Stage.LEADERBOARD, state="ENDED", payload=payload)
    before = len(read_events(sweep.ledger))
    content = bytearray((sweep.winner / name).read_bytes())
    content[len(content) // 2] ^= 4
    (sweep.winner / name).write_bytes(bytes(content))
    with pytest.raises(OrchError, match=rf"{name} is damaged: .*`orch sweep --resume --out .*` makes it again"):
        run_export(sweep, "tflite")
    assert len(read_events(sweep.ledger)) == before


def test_what_is_exported_has_its_checksums_in_the_ledger(sweep: SweepPaths, tmp_path: Path) -> None:
    run_export(sweep, "savedmodel", "tflite")
    kept = read_sweep(sweep.root).kept
    files = files_below(sweep.exports)
    assert {"card.json", "report.json", "report.md", "model.tflite", "saved_model.pb"} <= {file.name for file in files}
    assert {kept.state(file) for file in files} == {FileState.EQUAL}
    run_export(sweep, "tflite", out=tmp_path / "elsewhere")
    assert read_sweep(sweep.root).kept.hashes.keys() == kept.hashes.keys()


@pytest.mark.slow
def test_the_checksums_of_exports_that_were_removed_go(sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    run_export(sweep, "savedmodel", "tflite")

    def fail(*arguments: Any) -> None:
        raise TrainerError("no room")

    monkeypatch.setitem(write.WRITERS, "savedmodel", fail)
    run_export(sweep, "savedmodel")
    hashes = read_sweep(sweep.root).kept.hashes
    assert "exports/model.tflite" in hashes
    assert not [name for name in hashes if "savedmodel" in name]
