"""Ray runs what a source asks for, under each scheduler and on GPUs, and on a cluster. A real, local Ray."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import Event, EventKind, read_events
from orchestrator.ledger.state import TrialState, derive
from orchestrator.search.recorder import TrialRecorder
from orchestrator.search.run import run_trials
from orchestrator.search.sampling import OptunaSampler, SamplerSettings
from orchestrator.search.settings import SchedulerSettings
from orchestrator.search.source import FixedTrials
from orchestrator.spec.space.domains import Choice
from orchestrator.spec.space.space import Case, Space
from tests.support.ledgers import curves
from tests.support.places import ROOT
from tests.support.searches import most_at_once, notes, request_of, search, settings_of
from trainers.config import TrialConfig
from trainers.contract import FitJob

# --- how trials end -----------------------------------------------------------------------------------------------


def test_trials_run_to_their_last_epoch_in_warm_workers(tmp_path: Path, ray_up: None) -> None:
    seen: list[Event] = []
    outcome, state, source = search(tmp_path, [request_of(n, tmp_path, "meet:2") for n in range(8)], seen.append)
    assert outcome.states == {"COMPLETED": 8}
    assert outcome.started == 8
    assert outcome.ended == "All of the listed trials were started."
    assert set(source.results.values()) == {TrialState.COMPLETED}
    for record in state.trials.values():
        assert [epoch["epoch"] for epoch in record.epochs] == [1, 2, 3]
        assert record.val_accuracy == pytest.approx(0.9 * (1 - 0.5**3))
        assert (tmp_path / f"{record.id}.done").exists()
        assert f"fake trainer opens {record.id}" in (tmp_path / record.log).read_text()
        assert record.config == TrialConfig(dropout=0.1, recipe="meet:2").to_dict()
    assert len({row["pid"] for row in notes(tmp_path)}) <= 2
    assert [event.seq for event in seen] == [event.seq for event in read_events(tmp_path / "ledger")]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["ledger", "logs", "meeting", "ray"]
    assert list((tmp_path / "ray").iterdir()) == []


def test_a_trial_ends_with_its_own_epochs_where_they_are_fewer(tmp_path: Path, ray_up: None) -> None:
    requests = [request_of(n, tmp_path) for n in range(3)]
    for number, epochs in enumerate((1, 2, 9)):
        job = requests[number].job
        own = dataclasses.replace(job, config=dataclasses.replace(job.config, epochs=epochs))
        requests[number] = dataclasses.replace(requests[number], job=own)
    outcome, state, _ = search(tmp_path, requests)
    assert outcome.states == {"COMPLETED": 3}
    assert [len(state.trials[request.id].epochs) for request in requests] == [1, 2, 3]
    assert all((tmp_path / f"{request.id}.done").exists() for request in requests)


def test_tune_keeps_no_figures_of_trials_that_have_ended(
    tmp_path: Path, ray_up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Any] = []
    for name in ("on_end", "on_failure"):
        told = getattr(TrialRecorder, name)
        monkeypatch.setattr(TrialRecorder, name, lambda run, trial, told=told: (ended.append(trial), told(run, trial)))
    requests = [request_of(0, tmp_path), request_of(1, tmp_path, "error"), request_of(2, tmp_path, "diverge")]
    outcome, _, _ = search(tmp_path, requests, retries=0)
    assert outcome.states == {"COMPLETED": 1, "FAILED": 2}
    assert len(ended) == 3
    assert all(trial.last_result for trial in ended)
    assert [(trial.metric_analysis, trial.metric_n_steps) for trial in ended] == [({}, {})] * 3


def test_a_trial_that_asks_for_more_than_there_is_is_refused(tmp_path: Path, ray_up: None) -> None:
    with pytest.raises(OrchError, match=r"a trial needs 3 GPU and Ray has 2; set resources.gpus to 0"):
        search(tmp_path, [request_of(1, tmp_path)], gpus=3.0)
    with pytest.raises(OrchError, match=r"a trial needs 64 CPUs and Ray has 2; lower resources.cpus"):
        search(tmp_path, [request_of(1, tmp_path)], cpus=64.0)


class Deaf(FixedTrials):
    def tell(self, trial: str, state: TrialState, values: Sequence[float], last: Sequence[float] = ()) -> None:
        raise OrchError("the source cannot take it.")


def test_an_error_of_the_driver_is_not_taken_for_the_trials(tmp_path: Path, ray_up: None) -> None:
    with Ledger(tmp_path / "ledger") as ledger, pytest.raises(OrchError, match="the source cannot take it"):
        run_trials(Deaf([request_of(n, tmp_path) for n in range(4)]), settings_of(tmp_path), ledger)


# --- schedulers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["asha", "median", "hyperband"])
def test_a_scheduler_prunes_the_worse_trials(tmp_path: Path, ray_up: None, name: str) -> None:
    requests = [request_of(n, tmp_path, dropout=0.1 + 0.04 * (n * 7 % 20)) for n in range(20)]
    outcome, state, source = search(tmp_path, requests, epochs=9, scheduler=SchedulerSettings(name))
    assert set(outcome.states) == {"COMPLETED", "PRUNED"}
    assert sum(outcome.states.values()) == 20
    assert outcome.states["PRUNED"] >= 8
    for record in state.trials.values():
        if record.state == TrialState.PRUNED:
            epochs = len(record.epochs)
            assert epochs < 9
            assert record.reason == f"stopped by {name} after epoch {epochs} of 9"
        else:
            assert (record.state, len(record.epochs)) == (TrialState.COMPLETED, 9)
        assert source.results[record.id] == record.state
    paused = [event for event in read_events(tmp_path / "ledger") if event.state == "PAUSED"]
    assert bool(paused) == (name == "hyperband")
    assert list((tmp_path / "ray").iterdir()) == []


def test_a_trial_that_crashes_after_a_pause_goes_on_from_there(tmp_path: Path, ray_up: None) -> None:
    """Brackets of 3 epochs: two trials in full, then three of which one continues after epoch 1 and crashes in 2."""
    requests = [request_of(n, tmp_path, "flips" if n < 2 else "crash_once", dropout=0.1 * n) for n in range(5)]
    _, state, _ = search(tmp_path, requests, scheduler=SchedulerSettings("hyperband"))
    events = read_events(tmp_path / "ledger")
    (retry,) = (event for event in events if event.state == "PENDING" and event.reason.startswith("retry 1 of 2"))
    after = [event for event in events if event.trial == retry.trial and event.seq > retry.seq]
    assert retry.epoch == 1
    assert [event.epoch for event in after if event.kind == EventKind.EPOCH] == [2, 3]
    record = state.trials[retry.trial]
    assert record.state == TrialState.COMPLETED
    assert [epoch["epoch"] for epoch in record.epochs] == [1, 2, 3]
    assert sum(record.state == TrialState.PRUNED for record in state.trials.values()) == 2


@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_a_figure_that_is_no_number_never_reaches_the_scheduler(tmp_path: Path, ray_up: None, name: str) -> None:
    requests = [request_of(n, tmp_path, "nan" if n % 2 else "flips", dropout=0.1 - 0.02 * n) for n in range(4)]
    outcome, state, _ = search(tmp_path, requests, scheduler=SchedulerSettings(name, grace_epochs=2))
    assert sum(outcome.states.values()) == 4
    failed = [record for record in state.trials.values() if record.state == TrialState.FAILED]
    assert {record.reason for record in failed} == {"diverged: the loss was nan in epoch 2"}


@pytest.mark.parametrize(("name", "after"), [("asha", 1), ("median", 1)])
def test_a_resumed_search_prunes_by_what_ran_before(tmp_path: Path, ray_up: None, name: str, after: int) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        curves(ledger, {f"past{n}": [0.8, 0.85, 0.9] for n in range(4)})
    scheduler = SchedulerSettings(name)
    requests = [request_of(1, tmp_path, dropout=0.9), request_of(2, tmp_path, dropout=0.0)]
    _, state, _ = search(tmp_path, requests[:1], scheduler=scheduler)
    assert state.trials["trial01"].reason == f"stopped by {name} after epoch {after} of 3"
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    _, state, _ = search(fresh, requests[:1], scheduler=scheduler)
    assert state.trials["trial01"].state == TrialState.COMPLETED


# --- a proposer behind it -----------------------------------------------------------------------------------------


def test_a_small_space_with_duplicates_is_searched_to_its_end(tmp_path: Path, ray_up: None) -> None:
    space = Space.of({"dropout": [Case(Choice((0.0, 0.1, 0.2)))], "head": [Case(Choice(("softmax", "cosface")))]})
    settings = SamplerSettings(trials=50, epochs=3, seed=0, data="data", sampler="random")
    source = OptunaSampler(space, settings, lambda trial, config: FitJob(trial, config, 0, "m", output=str(tmp_path)))
    with Ledger(tmp_path / "ledger") as ledger:
        outcome = run_trials(source, settings_of(tmp_path), ledger)
        state = derive(ledger.events())
    assert outcome.ended == "the space holds 6 different configurations and all of them were tried."
    assert outcome.states == {"COMPLETED": 6}
    assert len({json.dumps(record.config) for record in state.trials.values()}) == 6
    assert [record.number for record in state.trials.values()] == [1, 2, 3, 4, 5, 6]


# --- GPUs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gpus", "cpus", "per_device"), [(0.5, 0.5, 2), (1.0, 1.0, 1)])
def test_a_device_never_holds_more_trials_than_its_fractions_allow(
    tmp_path: Path, ray_up: None, gpus: float, cpus: float, per_device: int
) -> None:
    requests = [request_of(n, tmp_path, f"meet:{2 * per_device},sleep:0.1") for n in range(8)]
    outcome, _, _ = search(tmp_path, requests, epochs=2, gpus=gpus, cpus=cpus)
    assert outcome.states == {"COMPLETED": 8}
    rows = notes(tmp_path)
    assert {row["devices"] for row in rows} == {"0", "1"}
    assert {row["gpu_memory_share"] for row in rows} == {gpus}
    for device in ("0", "1"):
        assert most_at_once([row for row in rows if row["devices"] == device]) == per_device


def test_a_trial_with_two_gpus_has_both_whole_and_divides_its_batches(tmp_path: Path, ray_up: None) -> None:
    requests = [request_of(n, tmp_path) for n in range(2)]
    outcome, _, _ = search(tmp_path, requests, epochs=1, gpus=2.0)
    assert outcome.states == {"COMPLETED": 2}
    seen = notes(tmp_path)
    found = {(",".join(sorted(row["devices"].split(","))), row["gpu_memory_share"], row["parts"]) for row in seen}
    assert found == {("0,1", 1.0, 2)}


def test_a_trial_without_a_gpu_sees_none_and_knows_its_threads(tmp_path: Path, ray_up: None) -> None:
    search(tmp_path, [request_of(1, tmp_path)], cpus=2.0)
    assert {(row["devices"], row["gpu_memory_share"], row["threads"]) for row in notes(tmp_path)} == {("", 0.0, 2)}


# --- a driver of its own: Ctrl-C, SIGKILL, a cluster -----------------------------------------------------------------

DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from orchestrator.errors import Interrupted
from orchestrator.ledger.ledger import Ledger
from orchestrator.search.sampling import OptunaSampler, SamplerSettings
from orchestrator.search.settings import SchedulerSettings
from orchestrator.search.settings import SearchSettings
from orchestrator.search.run import run_trials
from orchestrator.spec.space.space import Case, Space
from orchestrator.spec.space.domains import Choice, Uniform
from trainers.contract import FitJob

folder, recipe, address = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
space = Space.of({{"dropout": [Case(Uniform(0.0, 0.9))], "multiplier": [Case(Choice((2.0, 5.0)))]}})
wanted = SamplerSettings(trials=6, epochs=3, seed=0, data="data", startup_trials=2)


def job(trial, config):
    import dataclasses

    return FitJob(trial, dataclasses.replace(config, recipe=recipe), 0, "m", output=str(folder))


settings = SearchSettings(
    epochs=3,
    logs=folder / "logs",
    storage=folder / "ray",
    factory="tests.support.fake_trainer:open_fit",
    scheduler=SchedulerSettings("asha"),
    address=address,
)
source = OptunaSampler(space, wanted, job)
with Ledger(folder / "ledger") as ledger:
    source.replay(ledger.events())
    try:
        print(run_trials(source, settings, ledger, lambda e: print(e.kind, e.trial, e.state, flush=True)).states)
    except Interrupted as error:
        print(f"Interrupted: {{error}}")
        sys.exit(error.exit_code)
"""


def start_driver(
    folder: Path, recipe: str, address: str = "", environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", DRIVER.format(root=str(ROOT)), str(folder), recipe, address]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_epochs(driver: subprocess.Popen[str], epochs: int) -> None:
    assert driver.stdout is not None
    for line in driver.stdout:
        epochs -= line.startswith("EPOCH")
        if epochs == 0:
            return
    raise AssertionError("the driver ended early")


@pytest.mark.slow
def test_killed_and_interrupted_a_search_ends_with_just_the_trials_asked_for(tmp_path: Path) -> None:
    """SIGKILL, then Ctrl-C to the whole process group as a terminal sends it, then to the end."""
    killed = start_driver(tmp_path, "sleep:0.3")
    wait_for_epochs(killed, 4)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    first = derive(read_events(tmp_path / "ledger"))
    assert any(not record.state.is_final for record in first.trials.values())

    interrupted = start_driver(tmp_path, "sleep:0.3")
    wait_for_epochs(interrupted, 3)
    began_s = time.monotonic()
    os.killpg(interrupted.pid, signal.SIGINT)
    output, _ = interrupted.communicate(timeout=30)
    assert interrupted.returncode == 130, output
    assert time.monotonic() - began_s < 20
    assert "Interrupted: interrupted by Ctrl-C: finished trials are kept, " in output
    assert "Traceback" not in output

    last = start_driver(tmp_path, "flips")
    output, _ = last.communicate(timeout=60)
    assert last.returncode == 0, output
    events = read_events(tmp_path / "ledger")
    state = derive(events)
    assert len(state.trials) == 6
    assert [record.number for record in state.trials.values()] == [1, 2, 3, 4, 5, 6]
    assert all(record.state in (TrialState.COMPLETED, TrialState.PRUNED) for record in state.trials.values())
    for record in first.trials.values():
        if record.state.is_final:
            starts = [e for e in events if e.trial == record.id and e.state == "RUNNING"]
            assert len(starts) == 1, "a finished trial was trained again"
    assert max(record.attempts for record in state.trials.values()) >= 2


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A socket's path may have 107 bytes, too few for ``tmp_path``."""
    folder = Path(tempfile.mkdtemp(prefix="orch"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_without_an_address_ray_is_always_its_own(tmp_path: Path, short_folder: Path) -> None:
    """Whatever a dead cluster left behind, and with nothing written into the home."""
    (short_folder / "ray").mkdir()
    (short_folder / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    home = tmp_path / "home"
    home.mkdir()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**plain, "RAY_ADDRESS": "127.0.0.1:9", "RAY_TMPDIR": str(short_folder), "HOME": str(home)}
    driver = start_driver(tmp_path / "sweep", "flips", "", environment)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, output
    assert len(derive(read_events(tmp_path / "sweep" / "ledger")).trials) == 6
    assert not (home / ".ray").exists()
    assert any((short_folder / "ray").glob("session_*"))


@pytest.mark.slow
def test_a_running_cluster_is_joined_by_its_address(tmp_path: Path, short_folder: Path) -> None:
    """A real head node on loopback with a token of its own; a driver without the token is told what to set, and one
    without the address has a Ray of its own."""
    port = 26379
    sockets = str(short_folder / "ray")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with_token = {**plain, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", str(port)]
    head += ["--num-cpus", "2", "--include-dashboard", "false", "--node-ip-address", "127.0.0.1", "--temp-dir", sockets]
    log = (tmp_path / "head.log").open("w")
    node = {**with_token, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    running = subprocess.Popen(head, cwd=tmp_path, env=node, stdout=log, stderr=log, start_new_session=True)

    def drive(environment: dict[str, str], name: str, address: str = f"127.0.0.1:{port}") -> tuple[int, str]:
        driver = start_driver(tmp_path / name, "flips", address, environment)
        output, _ = driver.communicate(timeout=120)
        return driver.returncode, output

    try:
        deadline_s = time.monotonic() + 60
        while "Ray runtime started" not in (tmp_path / "head.log").read_text():
            assert running.poll() is None, (tmp_path / "head.log").read_text()
            assert time.monotonic() < deadline_s, (tmp_path / "head.log").read_text()
            time.sleep(0.2)
        code, output = drive({**plain, "RAY_TMPDIR": str(short_folder)}, "own", "")
        assert code == 0, output
        assert str(port) in Path(sockets, "ray_current_cluster").read_text()
        code, output = drive({**plain, "RAY_AUTH_MODE": "disabled"}, "sweep")
        assert code != 0
        assert "it requires a token. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN" in output
        code, output = drive({**with_token, "RAY_ADDRESS": f"127.0.0.1:{port}"}, "sweep", "auto")
        assert code == 0, output
        assert len(derive(read_events(tmp_path / "sweep" / "ledger")).trials) == 6
        assert running.poll() is None, "leaving the cluster must not end it"
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait(timeout=30)
        log.close()


@pytest.mark.slow
def test_ray_costs_little_a_trial(tmp_path: Path, ray_up: None) -> None:
    search(tmp_path, [request_of(n, tmp_path) for n in range(2)], epochs=1)
    (tmp_path / "many").mkdir()
    requests = [request_of(n, tmp_path / "many") for n in range(200)]
    outcome, _, _ = search(tmp_path / "many", requests, epochs=1)
    events = [e for e in read_events(tmp_path / "many" / "ledger") if e.kind == EventKind.EPOCH]
    assert outcome.states == {"COMPLETED": 200}
    assert (events[-1].time_s - events[0].time_s) / 200 < 0.15
