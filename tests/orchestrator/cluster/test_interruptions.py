"""SIGTERM, SIGHUP and a terminal that closes end a sweep in order at every stage: real processes, real signals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.ledger.segments import EventKind, read_events
from orchestrator.tracking.mlflow_store import connect
from tests.support.fake_store import new_store
from tests.support.places import ROOT

SLOW = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where nohup started the tests
from orchestrator.cli import app as cli
from orchestrator.sweep import data, refit, select
function, words = sys.argv[1], sys.argv[2:]
module = {"build_manifest": data, "refit": refit, "select": select}[function]
real = getattr(module, function)
def slowly(*given, **named):
    open("begun", "w").close()
    time.sleep(200)
    return real(*given, **named)
setattr(module, function, slowly)
sys.exit(cli.run(words))
"""
"""A command line of which one function takes long."""
TINY = [
    *("--set", "budget.trials=1", "--set", "budget.epochs=1", "--set", "final.runners_up=0", "--set", "final.seeds=1"),
    *("--set", "final.policies=[whole]", "--set", "budget.scheduler=none"),
]
RESUME = "orch sweep --resume --out runs/quick"


def environ(folder: Path) -> dict[str, str]:
    variables = {"PYTHONPATH": str(ROOT), "ORCH_CACHE": str(folder / "cache"), "COLUMNS": "400"}
    return {**os.environ, **variables, "MLFLOW_TRACKING_URI": new_store(folder)}


def begin(folder: Path, function: str, *words: str) -> subprocess.Popen[str]:
    """``orch sweep quick`` that stays in ``function``, once it is there."""
    command = [sys.executable, "-c", SLOW, function, "sweep", "quick", *TINY, *words]
    driver = subprocess.Popen(
        command, cwd=folder, env=environ(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(lambda: (folder / "begun").exists() or driver.poll() is not None)
    assert driver.poll() is None, driver.communicate()[0]
    return driver


def wait_for(true: Callable[[], bool], seconds: float = 250) -> None:
    deadline_s = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def statuses(folder: Path) -> list[str]:
    client = connect(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("quick")
    return [] if experiment is None else [run.info.status for run in client.search_runs([experiment.experiment_id])]


def last_state(folder: Path) -> tuple[str, str]:
    event = [e for e in read_events(folder / "runs" / "quick" / "ledger") if e.kind == EventKind.SWEEP][-1]
    return event.state, event.reason


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_while_the_photos_are_read(tmp_path: Path, name: str) -> None:
    driver = begin(tmp_path, "build_manifest", "--until", "data")
    wait_for(lambda: "RUNNING" in statuses(tmp_path))
    driver.send_signal(getattr(signal, name))
    driver.send_signal(getattr(signal, name))  # a terminal that closes sends several
    printed = driver.communicate(timeout=60)[0]
    assert driver.returncode == 130
    assert RESUME in printed
    assert f"interrupted by {name}" in printed
    assert "Traceback" not in printed
    assert last_state(tmp_path) == ("INTERRUPTED", f"interrupted by {name}.")
    assert statuses(tmp_path) == ["KILLED"]


def test_a_terminal_that_closes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW, "build_manifest", "sweep", "quick", *TINY, "--until", "data"]
    variables = environ(tmp_path)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(sys.executable, command, variables)
    wait_for(lambda: (tmp_path / "begun").exists() and "RUNNING" in statuses(tmp_path))
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert last_state(tmp_path) == ("INTERRUPTED", "interrupted by SIGHUP.")
    assert statuses(tmp_path) == ["KILLED"]


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from orchestrator.cluster import interruptions; from orchestrator.cluster.interruptions import StopSignals\n"
        "with interruptions.interruptible():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    with StopSignals() as signals:\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "    assert not signals.received\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM); sys.exit('not heard')\n"
        "    except KeyboardInterrupt as error: print(error)\n"
        "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)\n"
    )
    answer = subprocess.run(
        ["nohup", sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.stdout.splitlines() == ["interrupted by SIGTERM.", "True"], answer.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "function"), [("SIGTERM", "select"), ("SIGHUP", "select"), ("SIGHUP", "refit")])
def test_a_signal_after_the_search_and_the_sweep_goes_on(tmp_path: Path, name: str, function: str) -> None:
    driver = begin(tmp_path, function)
    driver.send_signal(getattr(signal, name))
    printed = driver.communicate(timeout=100)[0]
    assert driver.returncode == 130, printed
    assert RESUME in printed
    assert "Traceback" not in printed
    assert last_state(tmp_path) == ("INTERRUPTED", f"interrupted by {name}.")
    assert sorted(statuses(tmp_path)) == ["FINISHED", "KILLED"]
    command = [sys.executable, "-m", "orchestrator", "sweep", "--resume", "--out", "runs/quick"]
    subprocess.run(command, cwd=tmp_path, env=environ_again(tmp_path), check=True, capture_output=True, timeout=250)
    assert statuses(tmp_path) == ["FINISHED"] * 3  # the sweep, its trial and the retrained network


def environ_again(folder: Path) -> dict[str, str]:
    variables = {"PYTHONPATH": str(ROOT), "ORCH_CACHE": str(folder / "cache")}
    return {**os.environ, **variables, "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}


IMPORTING = """
import os, signal, sys, threading, time
from orchestrator.cluster.interruptions import interruptible
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
open("slow.py", "w").write("import time\\nopen('begun', 'w').close()\\ntime.sleep(1)\\nDONE = True\\n")
def send():
    while not os.path.exists("begun"):
        time.sleep(0.01)
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
threading.Thread(target=send).start()
sys.path.insert(0, "")
try:
    with interruptible():
        import slow
        time.sleep(20)
except KeyboardInterrupt as error:
    print("raised", type(error).__name__, slow.DONE)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_inside_an_import_waits_for_its_end(tmp_path: Path, name: str) -> None:
    """CPython 3.11 can lose an exception in an import, and keeps the import lock then: the sweep would hang."""
    command = [sys.executable, "-c", IMPORTING, name]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    began_s = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60, check=False)
    kind = "KeyboardInterrupt" if name == "SIGINT" else "Terminated"
    assert done.stdout == f"raised {kind} True\n", done.stderr
    assert "please wait" in done.stderr
    assert time.monotonic() - began_s < 15
