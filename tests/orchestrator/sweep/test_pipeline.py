"""A sweep as far as its photos: the order of its stages, and how it ends."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.exceptions import RayError

from orchestrator.cluster.memory_kills import MemoryKill, gave_up
from orchestrator.errors import DataError, OrchError, TransientError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind, read_events
from orchestrator.ledger.stages import CALIBRATED, Stage
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.open import open_existing, write_spec
from orchestrator.sweep.pipeline import SweepRequest, _recorded, sweep
from tests.support.photos_on_disk import folder_of
from tests.support.printed_lines import PrintedLines

FILE = """\
name: tiny
data: {source: "SOURCE"}
search: {backbone: small_cnn, dropout: [0.0, 0.2]}
budget: {trials: 2, epochs: 3}
tracking: {enabled: false}
weights: none
"""


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "sweep"


def events(out: Path) -> list[tuple[str, str, str]]:
    return [(event.kind, event.stage, event.state) for event in read_events(out / "ledger")]


def test_until_data_reads_the_photos_and_stops(out: Path, printed: PrintedLines) -> None:
    folder_of(out.parent / "photos", cat=8, dog=8)
    Path("tiny.yaml").write_text(FILE.replace("SOURCE", "photos"))
    assert sweep(SweepRequest("tiny.yaml", out=out, until="data", trials="5"), printed.reporter) == out
    assert events(out) == [
        ("SWEEP", "", "RUNNING"),
        ("STAGE", "data", "BEGUN"),
        ("STAGE", "data", "ENDED"),
        ("SWEEP", "", "STOPPED"),
    ]
    *_, last = read_events(out / "ledger")
    assert (last.reason, last.data) == ("until data, as asked", {"until": "data"})
    first = read_events(out / "ledger")[0]
    spec = {"spec.yaml": hashlib.sha256((out / "spec.yaml").read_bytes()).hexdigest()}
    budget = {"trials": 5, "epochs": 3}
    assert first.data == {"name": "tiny", "budget": budget, "share": True, "precision": "auto", "files": spec}
    sweep(SweepRequest(None, out=out, resume=True, until="data"), printed.reporter)
    assert events(out)[4:] == [("SWEEP", "", "RUNNING"), ("SWEEP", "", "STOPPED")]


def test_resuming_a_finished_sweep_has_nothing_to_do_unless_a_file_is_damaged(out: Path, printed: PrintedLines) -> None:
    folder_of(out.parent / "photos", cat=8, dog=8)
    Path("tiny.yaml").write_text(FILE.replace("SOURCE", "photos"))
    sweep(SweepRequest("tiny.yaml", out=out, until="data"), printed.reporter)
    with Ledger(out / "ledger") as ledger:
        ledger.append(EventKind.STAGE, stage=Stage.LEADERBOARD, state="ENDED", payload={CALIBRATED: {}})
        ledger.append(EventKind.SWEEP, state="FINISHED")
    again = SweepRequest(None, out=out, resume=True, until="data")
    before = events(out)
    sweep(again, printed.reporter)
    assert events(out) == [*before, ("SWEEP", "", "RUNNING"), ("SWEEP", "", "FINISHED")]
    assert printed.lines[-1].startswith(f"finished nothing is left to do; `orch show {out}` prints the results.")
    (out / "manifest.parquet").write_bytes(b"junk")
    sweep(again, printed.reporter)
    assert ("STAGE", "data", "BEGUN") in events(out)[len(before) + 2 :]


def test_a_failure_is_recorded_and_raised(out: Path, printed: PrintedLines) -> None:
    (out.parent / "photos" / "only").mkdir(parents=True)
    Path("tiny.yaml").write_text(FILE.replace("SOURCE", "photos"))
    with pytest.raises(DataError) as error:
        sweep(SweepRequest("tiny.yaml", out=out, until="data"), printed.reporter)
    *_, last = read_events(out / "ledger")
    assert (last.kind, last.state, last.reason) == ("SWEEP", "FAILED", str(error.value))


FULL = gave_up(MemoryKill(22.1, 23.5, 1.0), 8, "--set budget.concurrent=1")


@pytest.mark.parametrize("error", [FULL, TransientError("Ray failed: its node is gone.")])
def test_a_sweep_that_ray_or_the_machine_failed_says_how_to_resume_this_one(
    error: TransientError,
    open_sweep: Callable[..., SweepContext],
    printed: PrintedLines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = open_sweep()  # outside runs/
    write_spec(opened.paths, opened.spec)
    with pytest.raises(OrchError) as caught, _recorded(opened, SweepRequest(None), None, printed.reporter):
        raise error from RayError()
    text = str(caught.value)
    assert text.startswith(error.what)
    assert "type the command again" not in text
    last = opened.ledger.events()[-1]
    assert (last.kind, last.state, last.reason) == (EventKind.SWEEP, "FAILED", text)
    opened.ledger.close()

    monkeypatch.chdir(tmp_path.parent)
    command, *options = re.findall(r"`(.+?)`", text)
    words = shlex.split(command)
    assert words[:4] == ["orch", "sweep", "--resume", "--out"]
    resumed = open_existing(Path(words[4]), None, [option.removeprefix("--set ") for option in options], None)
    assert resumed.paths.ledger.resolve() == opened.paths.ledger.resolve()
    assert resumed.spec.budget.concurrent == (1 if error is FULL else opened.spec.budget.concurrent)
