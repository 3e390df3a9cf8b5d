"""Workers that Ray's memory monitor killed: what counts, what is retried, and when a stage gives up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError

from orchestrator.cluster.lost_workers import WorkerLostError, as_actor_error
from orchestrator.cluster.memory_kills import (
    LONGEST_PAUSE_S,
    MemoryKill,
    Patience,
    PatienceSettings,
    gave_up,
    parse_kill,
)
from orchestrator.cluster.worker_errors import explain
from tests.support.places import ROOT

MESSAGE = """2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.2, \
ID: 350c81673b819c1d0bbdd7088a2f3b09958a3b25a5564f65941605b8) was {used}GB used / 23.54GB limit (0.972530)
OOM kill reason: Memory usage 24588820480B exceeded threshold of 24012677120B (95.0% of 25276502016B limit)
Object store memory usage: [- objects spillable: 0
- bytes evictable: 0]
Ray killed 2 worker(s) based on the killing policy
Considered workers: [
Selected to kill: (Task: job ID=01000000, lease ID=00000000ffff, task name=f, required resources={{CPU: 1}}, \
pid=10564, actual memory used=1.10GB, worker ID=d475)
Selected to kill: (Actor(7f82): job ID=01000000, lease ID=000000002d1d, task name=FitTrainable.__init__, \
required resources={{CPU: 1}}, pid=10565, actual memory used=2.01GB, worker ID=2a0c)
]
Total non-selected idle workers: 0
Total non-selected idle workers USS bytes: 0.00GB
To see more information about memory usage on this node, use `ray logs raylet.out -ip 10.0.0.2`
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
11957\t1.04\tray::IDLE"""
"""As Ray 2.60 writes it, shortened. The tests at the end are on the messages of the installed Ray."""


def test_the_figures_are_read_from_rays_message() -> None:
    kill = parse_kill(MESSAGE.format(used="22.90"))
    assert kill == MemoryKill(22.9, 23.54, pytest.approx(3.11))
    assert "22.9 of the machine's 23.5 GB were in use, 3.1 GB by the workers" in kill.sentence()
    assert parse_kill("the node was running low on memory") == MemoryKill()
    assert parse_kill("The actor died unexpectedly") is None


@pytest.mark.parametrize(("used", "own"), [("22.90", False), ("6.30", False), ("6.10", True)])
def test_workers_that_hold_most_of_the_memory_are_the_cause(used: str, own: bool) -> None:
    kill = parse_kill(MESSAGE.format(used=used))
    assert kill is not None
    assert kill.is_own is own
    error = as_actor_error(OutOfMemoryError(MESSAGE.format(used=used)))
    assert isinstance(error, WorkerLostError)
    assert error.preempted is not own, "Tune counts no failure of a preempted actor"
    assert explain(error).startswith("out of memory: ")


def test_patience_counts_rounds_without_progress() -> None:
    patience = Patience(PatienceSettings(max_rounds=3, first_pause_s=1.0))
    first, second = MemoryKill(22.0, 23.5, 1.0), MemoryKill(22.1, 23.5, 1.0)
    assert patience.ready(0.0)
    patience.killed(first, 10.0)
    patience.killed(first, 10.1)  # the other worker of the same moment
    assert patience.rounds == 1
    assert (patience.ready(10.9), patience.ready(11.0)) == (False, True)
    patience.killed(second, 11.5)
    assert (patience.ready(13.4), patience.ready(13.5)) == (False, True)
    patience.progress()
    assert patience.rounds == 0
    for time_s in (20.0, 40.0, 60.0):
        assert not patience.is_exhausted
        patience.killed(second, time_s)
    assert patience.is_exhausted
    text = str(gave_up(second, patience.rounds))
    assert "22.1 of 23.5 GB" in text
    assert "3 times" in text
    assert text.endswith("without progress. Close other programs, then type the command again.")
    assert gave_up(second, 3, "--set budget.concurrent=1").less == "--set budget.concurrent=1"


def test_a_pause_has_a_limit() -> None:
    patience = Patience(PatienceSettings(max_rounds=99))
    for number in range(20):
        patience.killed(MemoryKill(float(number), 23.5, 1.0), 1000.0 * number)
    assert patience.ready(19_000.0 + LONGEST_PAUSE_S)


# --- Ray's own monitor, which finds the memory too full each time it looks ----------------------------------------

FIGURES = re.compile(
    r"out of memory: (\d+\.\d) of the machine's (\d+\.\d) GB were in use, (\d+\.\d) GB by the workers that Ray killed"
)


def assert_figures(line: str) -> None:
    """``line`` has figures read from Ray's message; a small worker's may be rounded to zero."""
    found = FIGURES.search(line)
    assert found is not None, line
    used_gb, limit_gb, workers_gb = map(float, found.groups())
    assert 0 < used_gb <= limit_gb
    assert workers_gb < used_gb


DRIVER = """
import json
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from orchestrator.cluster import jobs as cluster_jobs, memory_kills
from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.state import derive
from orchestrator.cluster.memory_kills import PatienceSettings
from orchestrator.search.source import FixedTrials, TrialRequest
from orchestrator.search.settings import SearchSettings
from orchestrator.cluster.ray_session import ray_session
from orchestrator.search.run import run_trials
from trainers.contract import FitJob
from trainers.config import TrialConfig

folder, what = Path(sys.argv[1]), json.loads(sys.argv[2])
patience = cluster_jobs.JOB_PATIENCE = PatienceSettings(what["rounds"], 0.2)
memory_kills.OWN_SHARE = what.get("own_share", memory_kills.OWN_SHARE)
lines, answer = [], None
try:
    with ray_session(cpus=2):
        if "jobs" in what:
            answer = cluster_jobs.run_jobs("tests.support.fake_trainer:double", what["jobs"], tell=lines.append)
        else:
            jobs = [
                FitJob(f"trial{{n}}", TrialConfig(recipe=recipe), 0, "m", output=str(folder))
                for n, recipe in enumerate(what["trials"])
            ]
            requests = [TrialRequest(job.id, "", n, job) for n, job in enumerate(jobs)]
            settings = SearchSettings(
                epochs=3, logs=folder / "logs", storage=folder / "ray", factory="tests.support.fake_trainer:open_fit",
                retries=0, patience=patience, fill=what.get("fill", ""),
            )
            with Ledger(folder / "ledger") as ledger:
                note = lambda event: lines.append(f"{{event.state}} {{event.reason}}")
                answer = run_trials(FixedTrials(requests), settings, ledger, note).states
except OrchError as error:
    answer = str(error)
(folder / "answer.json").write_text(json.dumps([answer, lines]))
"""


def drive(folder: Path, look_every_ms: int, **what: Any) -> tuple[Any, list[str]]:
    """What a search or jobs gave in a Ray whose monitor finds the memory too full each time it looks."""
    limits = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": str(look_every_ms)}
    command = [sys.executable, "-c", DRIVER.format(root=str(ROOT)), str(folder), json.dumps(what)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **limits}, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "low on memory" not in done.stdout + done.stderr
    answer, lines = json.loads((folder / "answer.json").read_text())
    return answer, lines


@pytest.mark.slow
def test_killed_trials_go_back_to_the_queue(tmp_path: Path) -> None:
    """None of them has a retry to spend."""
    answer, lines = drive(tmp_path, 7000, rounds=9, trials=["sleep_once:60", "flips", "flips"])
    assert answer == {"COMPLETED": 3}, lines
    again = [line for line in lines if "back in the queue" in line]
    assert again
    assert all(line.startswith("PENDING ") and "not counted as a retry" in line for line in again)
    for line in again:
        assert_figures(line)


@pytest.mark.slow
def test_a_killed_build_is_done_again(tmp_path: Path) -> None:
    words = {"fill": "tests.support.fake_trainer:fill"}
    answer, lines = drive(tmp_path, 7000, rounds=9, trials=["fill_sleep_once:60"], **words)
    assert answer == {"COMPLETED": 1}, lines
    again = [line for line in lines if "prefill retried: back in the queue" in line]
    assert again
    for line in again:
        assert_figures(line)
    assert not any(line.startswith("FAILED") for line in lines)


@pytest.mark.slow
def test_killed_jobs_are_submitted_again(tmp_path: Path) -> None:
    jobs = [{"x": 1, "sleep_s": 60, "sleep_once": str(tmp_path / "slept")}, {"x": 2}]
    answer, lines = drive(tmp_path, 7000, rounds=9, jobs=jobs)
    assert answer == [{"x": 2}, {"x": 4}]
    assert any("job 1 of 2" in line and "is retried: out of memory" in line for line in lines)
    for line in lines:
        assert_figures(line)


@pytest.mark.slow
@pytest.mark.parametrize("what", [{"trials": ["sleep:60"]}, {"jobs": [{"x": 1, "sleep_s": 60}]}])
def test_kills_again_and_again_end_with_a_sentence(tmp_path: Path, what: dict[str, Any]) -> None:
    answer, _ = drive(tmp_path, 300, rounds=3, **what)
    assert isinstance(answer, str)
    assert re.search(r"memory is full \(\d+\.\d of \d+\.\d GB in use\): Ray killed workers 3 times", answer)
    assert answer.endswith("Close other programs, then type the command again.")
    assert "\n" not in answer


@pytest.mark.slow
@pytest.mark.parametrize("what", [{"trials": ["sleep:60"]}, {"jobs": [{"x": 1, "sleep_s": 60}]}])
def test_workers_that_fill_the_memory_themselves_are_not_forgiven(tmp_path: Path, what: dict[str, Any]) -> None:
    """Any share of the memory counts as theirs, as long as Ray's message gives one: none of them is retried forever."""
    answer, lines = drive(tmp_path, 3000, rounds=9, own_share=0.0, **what)
    if "trials" in what:
        assert answer == {"FAILED": 1}, lines
    else:
        assert "failed: out of memory" in answer
    assert_figures(answer if "jobs" in what else next(line for line in lines if line.startswith("FAILED")))
    assert not any("not counted" in line or "is retried" in line for line in lines)
