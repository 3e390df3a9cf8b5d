"""The whole road, as a person walks it: the installed ``orch`` in a folder elsewhere, real Ray, TensorFlow and MLflow.

Two sweeps on the digits: one that is killed in the middle and goes on, and a much worse one that the gate refuses. What
finished sweeps print as "Next:" is typed as it is printed. ``make road`` walks further, with a wheel, too.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.ledger.segments import Event, EventKind, read_events
from orchestrator.ledger.state import TrialState, derive
from tests.road.installs import editable
from tests.road.person import Person
from tests.road.steps import next_lines

# The fixture runs two sweeps; a busy machine takes several times as long. `make road` walks the documents' commands.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = [
    *("--set", "budget.trials=5", "--set", "budget.epochs=3", "--set", "final.runners_up=0", "--set", "final.seeds=2"),
    *("--set", "final.policies=[whole,random_2]", "--set", "tracking.model=digits"),
]
WORSE = [
    *("--set", "budget.trials=1", "--set", "budget.epochs=1", "--set", "final.runners_up=0", "--set", "final.seeds=1"),
    *("--set", "final.policies=[whole]", "--set", "tracking.model=digits", "--set", "budget.scheduler=none"),
    *("--set", "search.learning_rate=0.000001", "--set", "search.head=softmax"),
]
WITHOUT_ORCH = "PATH=/usr/bin:/bin"
"""What a shell has in which no environment was activated."""
SERVES = """
import base64, json, pathlib, sys, threading, time, urllib.request
import mlflow, uvicorn
from mlflow.pyfunc import scoring_server
model = mlflow.pyfunc.load_model("models:/digits@champion")
texts = [base64.b64encode(pathlib.Path(path).read_bytes()).decode() for path in sys.argv[1:]]
loaded = model.predict(texts)["label"].tolist()
server = uvicorn.Server(uvicorn.Config(scoring_server.init(model), port=0, log_level="error"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.05)
port = server.servers[0].sockets[0].getsockname()[1]
request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", json.dumps({"inputs": texts}).encode())
request.add_header("Content-Type", "application/json")
served = [row["label"] for row in json.load(urllib.request.urlopen(request))["predictions"]]
print(json.dumps([loaded, served]))
"""
"""A program of a person who knows MLflow alone: the champion in Python, and served over HTTP."""


@dataclass(frozen=True)
class Road:
    """A folder with two finished sweeps. ``killed_at``: the ledger's last event when the driver was killed.

    ``resumed`` and ``worse`` are what the two sweeps printed.
    """

    person: Person
    killed_at: int
    resumed: str = ""
    worse: str = ""

    @property
    def folder(self) -> Path:
        return self.person.folder

    def orch(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Like ``Person.types``, with the two streams apart and any exit code."""
        return subprocess.run(
            [str(self.person.venv / "bin" / "orch"), *words],
            cwd=self.folder,
            env=self.person.environ(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    @property
    def events(self) -> list[Event]:
        return read_events(self.folder / "runs" / "quick" / "ledger")

    def digits(self, name: str, count: int) -> list[str]:
        folder = self.person.home / ".cache" / "orch" / "builtin" / "digits" / name
        return [str(path) for path in sorted(folder.glob("*.png"))[:count]]


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    folder = tmp_path_factory.mktemp("road") / "a person's"  # a blank and a quote, as folders have them
    folder.mkdir()
    person = Person(editable(), folder)
    killed_at = _start_and_kill(person, shlex.join(["orch", "sweep", "quick", *SMALL]))
    resumed = person.types("orch sweep --resume --out runs/quick")
    worse = person.types(f"{WITHOUT_ORCH} {_worse_line(person)}")
    return Road(person, killed_at, resumed, worse)


def _worse_line(person: Person) -> str:
    """The sweep in a folder with a blank in its name, by the script's own path, as where nothing was activated."""
    return shlex.join([str(person.venv / "bin" / "orch"), "sweep", "quick", "--out", "runs/much worse", *WORSE])


def _start_and_kill(person: Person, line: str) -> int:
    """Kill the driver with SIGKILL once two trials have ended; the number of events it left."""
    ledger, output = person.folder / "runs" / "quick" / "ledger", person.folder / "killed.log"
    log = output.open("w")
    driver = subprocess.Popen(
        ["bash", "-c", f"exec {line}"], cwd=person.folder, env=person.environ(), stdout=log, stderr=log
    )
    deadline_s = time.monotonic() + 180
    while time.monotonic() < deadline_s and driver.poll() is None:
        events = read_events(ledger) if ledger.is_dir() else []
        ended = [e for e in events if e.kind == EventKind.TRIAL and TrialState(e.state).is_final]
        if len(ended) >= 2:
            break
        time.sleep(0.1)
    assert driver.poll() is None, output.read_text()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    return len(read_events(ledger))


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
    names = [
        "name",
        "stage",
        "states",
        "trials",
        "winner",
        "leaderboard",
        "per_class",
        "calibration",
        "mlflow",
        "looks",
    ]
    assert list(shown) == names
    assert shown["name"] == "quick"
    assert shown["stage"] == "finished"
    assert sum(shown["states"].values()) == len(shown["trials"]) == 5
    assert set(shown["trials"][0]) == {"id", "state", "reason", "epochs", "val_accuracy", "config"}
    assert len(shown["leaderboard"]) == 6  # two seeds and their ensemble, two policies


def test_leaderboard_has_one_winner_chosen_before_test_was_read(road: Road) -> None:
    frame = pd.read_csv(road.folder / "runs" / "quick" / "leaderboard.csv")
    assert list(frame.columns) == [
        *("model", "policy", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "macro_f1_low", "macro_f1_high"),
        *("log_loss", "ece", "ece_floor", "ece_debiased", "images_per_s", "difference", "difference_low"),
        *("difference_high", "p_value", "images", "groups", "winner"),
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


def test_every_line_that_a_finished_sweep_prints_can_be_typed(road: Road) -> None:
    lines = next_lines(road.resumed)
    assert lines == ["orch promote best runs/quick", "orch ui"]
    promoted = road.person.types(lines[0])
    assert "There is no champion yet." in promoted
    with road.person.keeps_running(f"{lines[1]} --port 5017"):
        pass
    activate, promote, ui = next_lines(road.worse)
    assert activate == f"source {shlex.quote(str(road.person.venv / 'bin' / 'activate'))}"
    assert promote == "orch promote best 'runs/much worse'"
    assert ui == "orch ui"
    elsewhere = replace(road.person, variables={"PATH": "/usr/bin:/bin"}, typed=[])
    refused = elsewhere.types(f"{activate}\n{promote}", ends_with=6)
    assert "The accuracy is lower" in refused
    assert "--force" in refused


def test_champion_answers_the_command_line_python_and_http(road: Road) -> None:
    photos = road.digits("7", 3)
    again = road.orch("promote", "best", "runs/quick")
    assert "is the champion already" in again.stdout
    predicted = road.orch("predict", *photos, "--model", "digits", "--json")
    rows = json.loads(predicted.stdout)
    labels = [row["label"] for row in rows]
    assert predicted.returncode == 0
    assert predicted.stderr == ""
    assert labels.count("7") >= 2
    (road.folder / "serves.py").write_text(SERVES)
    loaded, served = json.loads(road.person.types(shlex.join(["python", "serves.py", *photos])).splitlines()[-1])
    assert loaded == served == labels


def test_the_other_verbs_in_the_same_folder(road: Road) -> None:
    said = road.person.types("orch status runs/quick")
    assert "quick: finished" in said
    assert "next     orch promote best runs/quick" in said
    assert "next     orch promote best 'runs/much worse'" in road.person.types("orch status 'runs/much worse'")
    assert "winner" in road.person.types("orch compare runs/quick")
    exported = road.person.types("orch export runs/quick --to savedmodel")
    assert "SavedModel" in exported
    assert (road.folder / "runs" / "quick" / "exports" / "report.md").is_file()
    road.person.types("orch sync runs/quick")
    assert "features" in (listed := road.person.types("orch cache list")) or "images" in listed


def test_forced_promotion_is_recorded(road: Road) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{road.folder / 'mlflow.db'}")
    assert str(client.get_model_version_by_alias("digits", "champion").version) == "1"
    forced = road.orch("promote", "best", "runs/much worse", "--force")
    assert forced.returncode == 0, forced.stderr
    champion = client.get_model_version_by_alias("digits", "champion")
    assert str(champion.version) == "2"
    assert champion.tags["orch.override"] == "lower-accuracy"
    notes = [e.data for e in read_events(road.folder / "runs" / "much worse" / "ledger") if "promotion" in e.data]
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
    assert "resumed with 5 trials done" in more.stdout
    records = [r for r in derive(road.events).trials.values() if r.stage == "search"]
    assert len(records) == 7
    assert all(record.state.is_final for record in records)
