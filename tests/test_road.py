"""The whole road, as a user walks it: the command line, real Ray, TensorFlow and MLflow, and a killed driver.

Two sweeps on the digits: one that is killed in the middle and goes on, and a much worse one that the gate refuses.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.ledger import Event, EventKind, TrialState, derive, read_events

ORCH = [sys.executable, "-m", "orchestrator"]
SMALL = [
    *("--set", "budget.trials=5", "--set", "budget.epochs=3", "--set", "final.runners_up=0", "--set", "final.seeds=2"),
    *("--set", "final.policies=[whole,random_2]", "--set", "tracking.model=digits"),
]
WORSE = [
    *("--set", "budget.trials=1", "--set", "budget.epochs=1", "--set", "final.runners_up=0", "--set", "final.seeds=1"),
    *("--set", "final.policies=[whole]", "--set", "tracking.model=digits", "--set", "budget.scheduler=none"),
    *("--set", "search.learning_rate=0.000001", "--set", "search.head=softmax"),
]


@dataclass(frozen=True)
class Road:
    """A folder with two finished sweeps. ``killed_at``: the ledger's last event when the driver was killed."""

    folder: Path
    environ: dict[str, str]
    killed_at: int
    worse: subprocess.CompletedProcess[str]

    def orch(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ORCH, *words], cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=240, check=False
        )

    @property
    def events(self) -> list[Event]:
        return read_events(self.folder / "runs" / "quick" / "ledger")


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    folder = tmp_path_factory.mktemp("road")
    environ = {
        **os.environ,
        "ORCH_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "COLUMNS": "120",
    }
    environ.pop("MLFLOW_TRACKING_URI", None)
    killed_at = _start_and_kill([*ORCH, "sweep", "quick", *SMALL], folder, environ)
    road = Road(folder, environ, killed_at, subprocess.CompletedProcess([], 0))
    resumed = road.orch("sweep", "--resume", "--out", "runs/quick")
    assert resumed.returncode == 0, resumed.stderr + resumed.stdout
    worse = road.orch("sweep", "quick", "--out", "runs/worse", *WORSE)
    assert worse.returncode == 0, worse.stderr + worse.stdout
    return Road(folder, environ, killed_at, worse)


def _start_and_kill(command: list[str], folder: Path, environ: dict[str, str]) -> int:
    """Kill the driver with SIGKILL once two trials have ended; the number of events it left."""
    log = (folder / "killed.log").open("w")
    driver = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)
    deadline_s = time.monotonic() + 180
    while time.monotonic() < deadline_s and driver.poll() is None:
        events = read_events(folder / "runs" / "quick" / "ledger") if (folder / "runs/quick/ledger").is_dir() else []
        ended = [e for e in events if e.kind == EventKind.TRIAL and TrialState(e.state).is_final]
        if len(ended) >= 2:
            break
        time.sleep(0.1)
    assert driver.poll() is None, (folder / "killed.log").read_text()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    return len(read_events(folder / "runs" / "quick" / "ledger"))


def test_resume_ends_with_the_trials_asked_for_and_trains_none_again(road: Road) -> None:
    before = derive(road.events[: road.killed_at])
    done = {trial for trial, record in before.trials.items() if record.state.is_final}
    after = [r for r in derive(road.events).trials.values() if r.stage == "search"]
    assert len(done) >= 2
    assert len(before.trials) < 5 or any(not r.state.is_final for r in before.trials.values())
    assert len(after) == 5
    assert all(record.state.is_final for record in after)
    assert not [e for e in road.events[road.killed_at :] if e.trial in done]


def test_pandas_opens_the_ledger_and_show_describes_the_sweep(road: Road) -> None:
    frame = pd.read_parquet(road.folder / "runs" / "quick" / "ledger")
    assert len(frame) == len(road.events)
    shown = json.loads(road.orch("show", "runs/quick", "--json").stdout)
    assert list(shown) == ["name", "stage", "states", "trials", "winner", "leaderboard", "mlflow"]
    assert shown["name"] == "quick"
    assert shown["stage"] == "finished"
    assert sum(shown["states"].values()) == len(shown["trials"]) == 5
    assert set(shown["trials"][0]) == {"id", "state", "reason", "epochs", "val_accuracy", "config"}
    assert len(shown["leaderboard"]) == 6  # two seeds and their ensemble, two policies


def test_leaderboard_has_one_winner_chosen_before_test_was_read(road: Road) -> None:
    frame = pd.read_csv(road.folder / "runs" / "quick" / "leaderboard.csv")
    assert list(frame.columns) == [
        *("model", "policy", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece"),
        *("images_per_s", "difference", "difference_low", "difference_high", "p_value", "winner"),
    ]
    assert frame["winner"].sum() == 1
    assert frame.loc[frame["winner"], "model"].item() == "winner/ensemble"
    stages = [(e.stage, e.state) for e in road.events if e.kind == EventKind.STAGE]
    assert stages.index(("select", "ENDED")) < stages.index(("leaderboard", "BEGUN"))
    looks = [e.data["reads_test"] for e in road.events if e.stage == "leaderboard" and e.state == "BEGUN"]
    assert len(looks) == 1
    assert looks[0] >= 1  # jobs, over which the images are divided


def test_mlflow_shows_what_the_ledger_says(road: Road) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{road.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("quick")
    parent = json.loads(road.orch("show", "runs/quick", "--json").stdout)["mlflow"]
    children = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent}'")
    records = derive(road.events).trials
    assert {run.data.tags["orch.trial"]: run.data.tags["orch.state"] for run in children} == {
        trial: str(record.state) for trial, record in records.items()
    }
    assert client.get_run(parent).info.status == "FINISHED"
    assert client.get_run(parent).inputs.dataset_inputs
    some = next(run for run in children if run.data.tags["orch.state"] == "COMPLETED")
    history = client.get_metric_history(some.info.run_id, "loss")
    assert [point.step for point in history] == [1, 2, 3]
    assert some.data.params["backbone"] == "small_cnn"


def test_gate_promotes_predicts_refuses_and_records_force(road: Road) -> None:
    from mlflow import MlflowClient

    promoted = road.orch("promote", "best", "runs/quick")
    assert promoted.returncode == 0, promoted.stderr
    assert "There is no champion yet." in promoted.stdout
    again = road.orch("promote", "best", "runs/quick")
    assert "is the champion already" in again.stdout

    photos = sorted((road.folder / "cache" / "builtin" / "digits" / "7").glob("*.png"))[:3]
    predicted = road.orch("predict", *map(str, photos), "--model", "digits", "--json")
    rows = json.loads(predicted.stdout)
    assert predicted.returncode == 0
    assert len(rows) == 3
    assert [row["label"] for row in rows].count("7") >= 2
    assert predicted.stderr == ""

    refused = road.orch("promote", "best", "runs/worse")
    assert refused.returncode == 6
    assert "The accuracy is lower" in refused.stderr
    assert "--force" in refused.stderr
    client = MlflowClient(f"sqlite:///{road.folder / 'mlflow.db'}")
    assert str(client.get_model_version_by_alias("digits", "champion").version) == "1"

    forced = road.orch("promote", "best", "runs/worse", "--force")
    assert forced.returncode == 0, forced.stderr
    champion = client.get_model_version_by_alias("digits", "champion")
    assert str(champion.version) == "2"
    assert champion.tags["orch.override"] == "lower-accuracy"
    notes = [e.data for e in read_events(road.folder / "runs" / "worse" / "ledger") if e.kind == EventKind.NOTE]
    assert [note["promotion"] for note in notes] == ["refused", "champion"]
    assert notes[-1]["overridden"] == ["lower-accuracy"]


def test_existing_folder_is_refused_and_names_both_ways_on(road: Road) -> None:
    refused = road.orch("sweep", "quick")
    assert refused.returncode == 4
    assert "--resume" in refused.stderr
    assert "--out" in refused.stderr
    other = road.orch("sweep", "--resume", "--out", "runs/quick", "--set", "budget.epochs=9")
    assert other.returncode == 1
    assert "budget.epochs differs from the sweep in runs/quick" in other.stderr


def test_finished_sweep_takes_more_trials(road: Road) -> None:
    more = road.orch("sweep", "--resume", "--out", "runs/quick", "--trials", "+2", "--until", "search")
    assert more.returncode == 0, more.stderr
    assert "goes on with 5 trials done" in more.stdout
    records = [r for r in derive(road.events).trials.values() if r.stage == "search"]
    assert len(records) == 7
    assert all(record.state.is_final for record in records)
