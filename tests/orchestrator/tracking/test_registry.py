"""Versions, evidence and the champion, in a real registry."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.commands.promote import own_modules
from orchestrator.errors import OrchError, TrackingError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from orchestrator.tracking import registry
from orchestrator.tracking.champions import set_champion
from orchestrator.tracking.mlflow_store import connect, reachable
from orchestrator.tracking.model_package import INPUT, ModelDetails
from orchestrator.tracking.settings import TrackingSettings
from orchestrator.tracking.tracker import synchronise
from tests.support.fake_store import free_port, new_store, running_server
from tests.support.places import SUPPORT
from trainers.calibration import Calibration, Level

CLASSES = ("glass", "métal/scrap", "p_x")
EVIDENCE = pd.DataFrame(
    {
        "sha256": ["0" * 64, "1" * 64],
        "role": ["train", "test"],
        "label": ["glass", "p_x"],
        "predicted": ["", "glass"],
        "correct": [False, False],
    }
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(SUPPORT))
    return new_store(tmp_path / "a store")


@pytest.fixture
def run_id(tmp_path: Path, store: str) -> str:
    """A sweep that MLflow has seen."""
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="FINISHED")
    return synchronise(paths.root, TrackingSettings(store)).parent_run_id


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(SUPPORT))
    folder = tmp_path / "winner of all"
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({"classes": CLASSES}))
    EVIDENCE.to_parquet(folder / registry.EVIDENCE)
    return folder


def details(run_id: str, **changes: Any) -> ModelDetails:
    values: dict[str, Any] = {
        "run_id": run_id,
        "sweep": "tiny",
        "trial": "0123456789",
        "policy": "ten_crop",
        "form": "ensemble of 3",
        "accuracy": 0.9412,
        "accuracy_low": 0.92,
        "accuracy_high": 0.96,
        "data": "fedcba9876543210",
        "classes": CLASSES,
        "example": b"abc",
        "commit": "c0ffee",
        "loader": "fake_model",
    }
    return ModelDetails(**{**values, **changes})


def test_a_version_names_its_networks() -> None:
    assert json.loads(details("run", fits=("b2", "a1")).tags()["orch.fits"]) == ["b2", "a1"]


# --- versions and the champion ------------------------------------------------------------------------------------


def test_no_champion_yet(store: str) -> None:
    assert registry.champion(store, "trash") is None
    with pytest.raises(OrchError, match=r"no champion of trash yet; .*`orch promote best`"):
        registry.load_champion(store, "trash")


def test_a_name_without_a_champion_is_answered_with_those_that_have_one(store: str, run_id: str, model: Path) -> None:
    set_champion(store, "trash", registry.register(store, "trash", model, details(run_id)), instead_of=None)
    registry.register(store, "glass", model, details(run_id))
    with pytest.raises(OrchError, match=r"no champion of glass yet; trash has one \(--model NAME\)"):
        registry.load_champion(store, "glass")


def test_register_then_promote_then_predict(
    store: str, run_id: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path_before = list(sys.path)
    version = registry.register(store, "trash", model, details(run_id))
    assert version == "1"
    assert registry.champion(store, "trash") is None
    assert set_champion(store, "trash", version, instead_of=None)
    found = registry.champion(store, "trash")
    assert found is not None
    assert (found.name, found.version, found.run_id) == ("trash", "1", run_id)
    assert found.tags["orch.policy"] == "ten_crop"
    assert found.tags["orch.test_accuracy"] == "0.9412"
    assert found.tags["orch.test_accuracy_low"] == "0.9200"
    assert found.tags["orch.data"] == "fedcba9876543210"
    assert found.tags["orch.git_commit"] == "c0ffee"
    assert "orch.fits" not in found.tags
    assert json.loads(found.tags["orch.classes"]) == list(CLASSES)
    assert "0.941** (95 % interval 0.920 to 0.960)" in found.description
    answer = registry.load_champion(store, "trash").predict(pd.DataFrame({"image": [b"", b"1", b"22"]}))
    assert answer["label"].tolist() == list(CLASSES)
    assert sys.path == path_before
    assert not (tmp_path / "mlruns").exists()


def test_the_packed_model_says_what_it_needs(store: str, run_id: str, model: Path) -> None:
    from mlflow import artifacts, pyfunc

    calibration = Calibration(0.7, (Level(0.0, 1.0, 0.9, 0.82),), 200)
    version = registry.register(store, "trash", model, details(run_id, calibration=calibration))
    source = connect(store).get_model_version("trash", version).source
    packed = Path(artifacts.download_artifacts(artifact_uri=source, tracking_uri=store))
    needs = (packed / "requirements.txt").read_text()
    for name in ("mlflow", "tensorflow", "keras", "numpy", "pandas", "pillow", "h5py"):
        assert f"\n{name}==" in f"\n{needs}"
    assert (packed / "code" / "fake_model.py").is_file()
    loaded = pyfunc.load_model(str(packed))
    schema = loaded.metadata.signature
    assert schema.inputs is None
    outputs = [(column["name"], column["required"]) for column in schema.outputs.to_dict()]
    assert outputs == [("label", True), ("probability", True), ("probabilities", True), ("reason", False)]
    assert [(p["name"], p["default"]) for p in schema.params.to_dict()] == [("precision", 0.0)]
    assert loaded.input_example["image"].tolist() == [base64.b64encode(b"abc").decode()]
    assert loaded.metadata.metadata["classes"] == list(CLASSES)
    assert loaded.metadata.metadata["input"] == INPUT


def test_which_modules_are_ones_own() -> None:
    assert own_modules({"backbone": "mobilenet_1.0", "head": "arcface"}) == ()
    assert own_modules({}) == ()
    # its builder is this project's
    assert own_modules({"backbone": "tests.support.tiny_fits:TINY", "head": "my_heads.margin:HEAD"}) == (
        "tests.support.tiny_fits",
        "my_heads.margin",
    )
    assert own_modules({"backbone": "tests.support.tiny_fits:RESIDUAL"}) == ("tests.support.tiny_fits",)


TEXT = base64.b64encode(b"1234").decode()


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["image"], "data": [[TEXT]]}},
        {"dataframe_records": [{"image": TEXT}]},
        {"inputs": {"image": [TEXT]}},
        {"instances": [{"image": TEXT}]},
    ],
    ids=lambda body: next(iter(body)),
)
def test_the_version_answers_json_over_http(store: str, run_id: str, model: Path, body: dict[str, Any]) -> None:
    """As ``mlflow models serve`` does: the same parser, the same model, which is handed the text as it was sent."""
    from mlflow import artifacts, pyfunc
    from mlflow.pyfunc.scoring_server import invocations

    version = registry.register(store, "trash", model, details(run_id))
    source = connect(store).get_model_version("trash", version).source
    loaded = pyfunc.load_model(artifacts.download_artifacts(artifact_uri=source, tracking_uri=store))
    answer = invocations(json.dumps(body), "application/json", loaded, loaded.metadata.get_input_schema())
    assert answer.status == 200, answer.response
    (row,) = json.loads(answer.response)["predictions"]
    assert row["label"] == CLASSES[len(TEXT) % 3]
    assert json.loads(row["probabilities"]) == {"glass": 0.0, "métal/scrap": 0.0, "p_x": 1.0}


def test_evidence_is_fetched_alone(store: str, run_id: str, model: Path) -> None:
    version = registry.register(store, "trash", model, details(run_id))
    evidence = registry.read_evidence(store, "trash", version)
    assert evidence is not None
    pd.testing.assert_frame_equal(evidence, EVIDENCE)


def test_a_model_without_evidence(store: str, run_id: str, model: Path) -> None:
    (model / registry.EVIDENCE).unlink()
    version = registry.register(store, "trash", model, details(run_id))
    assert registry.read_evidence(store, "trash", version) is None


def test_an_override_is_recorded_once(store: str, run_id: str, model: Path) -> None:
    for _ in range(2):
        registry.register(store, "trash", model, details(run_id))
    assert set_champion(store, "trash", "1", instead_of=None)
    for before in ("1", "2"):
        assert set_champion(store, "trash", "2", override=("worse", "classes"), instead_of=before)
    found = registry.champion(store, "trash")
    assert found is not None
    assert found.version == "2"
    assert found.tags["orch.override"] == "worse, classes"
    assert found.tags["orch.replaces"] == "1"
    assert found.description.count("Promoted although the gate refused: **worse, classes**.") == 1


def test_the_logged_model_belongs_to_the_sweeps_run(store: str, run_id: str, model: Path) -> None:
    registry.register(store, "trash", model, details(run_id))
    client = connect(store)
    (output,) = client.get_run(run_id).outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert (logged.name, logged.status.value, logged.source_run_id) == ("winner", "READY", run_id)


def test_a_model_that_does_not_answer_is_not_registered(store: str, run_id: str, model: Path) -> None:
    with pytest.raises(TrackingError, match="predicts 'glass', not one of its classes"):
        registry.register(store, "trash", model, details(run_id, classes=("paper",)))
    assert connect(store).search_registered_models() == []
    assert connect(store).get_run(run_id).outputs.model_outputs == []


def test_a_sweep_that_mlflow_never_saw(store: str, model: Path) -> None:
    with pytest.raises(TrackingError, match=r"has no run 0{32}\. .*where the sweep ran.*`orch sync "):
        registry.register(store, "trash", model, details("0" * 32))
    with pytest.raises(TrackingError, match="has no run of this sweep"):
        registry.register(store, "trash", model, details(""))


def test_no_model_folder(store: str, run_id: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"there is no model in .*nothing; a sweep writes it in its final stage"):
        registry.register(store, "trash", tmp_path / "nothing", details(run_id))


@pytest.mark.parametrize("name", ["", "a/b", "a:b", " a", "a ", "..", "a\nb", "_a", "x" * 201])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(TrackingError, match=r"cannot name a registered model: .*Set tracking\.model"):
        registry.champion("sqlite:///unused.db", name)
    assert not Path("unused.db").exists()


@pytest.mark.parametrize("name", ["trash", "Müll 2", "a-b_c.d", "7"])
def test_names_that_mlflow_takes(store: str, name: str) -> None:
    assert registry.check_model_name(name) == name
    connect(store).create_registered_model(name)


def test_a_registry_that_is_away_is_a_sentence() -> None:
    with pytest.raises(TrackingError, match=r"no MLflow server answers at http://127.0.0.1:9: connection refused"):
        registry.champion("http://127.0.0.1:9", "trash")


@pytest.mark.slow
def test_the_same_through_a_server(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SUPPORT))  # where fake_model lies
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="FINISHED")
    with running_server(tmp_path / "server", free_port()) as uri:
        run_id = synchronise(paths.root, TrackingSettings(uri)).parent_run_id
        version = registry.register(uri, "trash", model, details(run_id))
        assert set_champion(uri, "trash", version, instead_of=None)
        evidence = registry.read_evidence(uri, "trash", version)
        answer = registry.load_champion(uri, "trash").predict(pd.DataFrame({"image": [b"22"]}))
        assert reachable(uri) == (True, f"the MLflow server at {uri} answers.")
        assert capfd.readouterr() == ("", "")  # MLflow prints addresses of runs, passwords included
    assert answer["label"].tolist() == ["p_x"]
    assert evidence is not None
    pd.testing.assert_frame_equal(evidence, EVIDENCE)
