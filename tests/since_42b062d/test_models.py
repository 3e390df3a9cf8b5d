"""A model that 42b062d registered answers as it did: run by today's code, by its own copy, and from the registry."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.commands.promote import promote
from orchestrator.tracking import registry
from orchestrator.tracking.settings import TrackingSettings
from orchestrator.tracking.tracker import synchronise
from tests.support.fake_store import new_store
from tests.support.since_42b062d import ROOT, orch, recorded, unpack

pytestmark = pytest.mark.slow

REGISTERED = recorded("registered.json")
TOLERANCE = 1e-6
BY_ITSELF = """
import json, sys
from pathlib import Path

sys.path[:] = [entry for entry in sys.path if "__editable__" not in entry]
sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, "__module__", "").startswith("__editable__")]
folder, photos, *names = sys.argv[1:]

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "orchestrator":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from mlflow import pyfunc

model = pyfunc.load_model(folder)
table = model.predict([(Path(photos) / name).read_bytes() for name in names])
import trainers
print(json.dumps([trainers.__file__, table["label"].tolist(), table["probabilities"].tolist()]))
"""
"""Loads a packed model where neither this project nor its editable install can be found."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("registered"), "model", "rows")


def photos(folder: Path) -> list[bytes]:
    return [(folder / "rows" / "photos" / name).read_bytes() for name in REGISTERED["photos"]]


def test_todays_code_answers_as_the_code_it_was_registered_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``orch predict`` and ``orch promote`` load it: ``trainers`` is imported already, which hides the copy."""
    from mlflow import pyfunc

    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's copy first, for good
    loaded = pyfunc.load_model(str(folder / "model"))
    served = loaded._model_impl
    assert Path(sys.modules[type(served).__module__].__file__ or "").is_relative_to(ROOT / "trainers")
    answers = served.probabilities(photos(folder))
    assert answers.shape == (18, 10)
    np.testing.assert_allclose(answers, REGISTERED["probabilities"], rtol=0, atol=TOLERANCE)
    table = loaded.predict(pd.DataFrame({"image": photos(folder)}))
    assert table["label"].tolist() == REGISTERED["labels"]


def test_its_own_copy_of_the_code_answers_where_orch_is_not_installed(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BY_ITSELF, str(folder / "model"), str(folder / "rows" / "photos")]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [*command, *REGISTERED["photos"]], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    code, labels, probabilities = json.loads(done.stdout.splitlines()[-1])
    assert Path(code) == folder / "model" / "code" / "trainers" / "__init__.py"
    assert labels == REGISTERED["labels"]
    answers = [list(json.loads(row).values()) for row in probabilities]
    np.testing.assert_allclose(answers, REGISTERED["probabilities"], rtol=0, atol=TOLERANCE)


def register(store: str, folder: Path, sweep: Path) -> None:
    """Make ``folder`` the champion of a store that knows ``sweep``, with the tags and the alias that it had."""
    run_id = synchronise(sweep, TrackingSettings(store)).parent_run_id
    client = registry.connect(registry.store_uri(store))
    client.create_registered_model(REGISTERED["name"])
    version = client.create_model_version(
        REGISTERED["name"],
        folder.as_uri(),
        run_id,
        tags=REGISTERED["tags"],
        description=REGISTERED["description"],
    )
    client.set_registered_model_alias(REGISTERED["name"], registry.CHAMPION, version.version)


@pytest.fixture
def champion(folder: Path, tmp_path: Path) -> Path:
    """A folder with a store whose champion is the recorded model, ``model``, and the sweeps ``finished`` and ``older``.

    The model comes from ``older``. What it answered in its own sweep is taken out, so that it has to be asked.
    """
    new_store(tmp_path)
    unpack(tmp_path, "finished", "model")
    shutil.copytree(tmp_path / "finished", tmp_path / "older")
    (tmp_path / "model" / "data" / "winner" / registry.EVIDENCE).unlink()
    register(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "model", tmp_path / "older")
    return tmp_path


def test_the_champion_answers_orch_predict_and_is_the_opponent_at_the_gate(
    champion: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.getbasetemp() / "orch-cache"
    asked = [str(folder / "rows" / "photos" / name) for name in REGISTERED["photos"]]
    done = orch(champion, cache, "predict", *asked, "--model", REGISTERED["name"], "--json")
    assert done.returncode == 0, done.stderr
    assert [row["label"] for row in json.loads(done.stdout)] == REGISTERED["labels"]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{champion / 'mlflow.db'}")
    monkeypatch.chdir(champion)
    lines: list[str] = []
    promotion = promote(champion / "finished", tell=lines.append)
    assert any("asking the champion about 359 test images" in line for line in lines)
    compared = promotion.decision.comparison
    assert promotion.decision.allowed
    assert compared is not None
    assert compared.difference == 0, "the same networks, so the same answers"
    assert promotion.version == "2"
