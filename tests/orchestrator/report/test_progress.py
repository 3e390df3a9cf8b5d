"""What a person reads while a sweep runs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.report.progress import ProgressReporter
from tests.support.printed_lines import PrintedLines
from tests.support.two_trials import two_trials
from trainers.config import TrialConfig


def running(payload: dict[str, Any]) -> Event:
    """The event with which a sweep's process begins."""
    return Event(seq=1, time_s=0.0, kind=EventKind.SWEEP, state="RUNNING", payload=json.dumps(payload))


def test_the_reporter_says_one_line_for_each_trial_that_ended(tmp_path: Path) -> None:
    printed = PrintedLines()
    printed.on_event(running({"budget": {"trials": 10, "epochs": 3}}))
    for event in two_trials(tmp_path):
        printed.on_event(event)
    lines = printed.lines
    assert lines[0].startswith("search   first epoch after")
    assert lines[1:] == [
        "search     1/10  0.500  COMPLETED 001 small_cnn  (2 epochs, 0 s)",
        "refit         1    -    FAILED    001 small_cnn  (2 epochs, 0 s): out of memory (log: logs/bbb.log)",
    ]


def test_the_reporter_explains_each_abbreviation_once_before_the_first_name_that_has_it(tmp_path: Path) -> None:
    printed = PrintedLines()
    configs = [TrialConfig(unfrozen_layers=5), TrialConfig(unfrozen_layers=9, multiplier=2.0), TrialConfig(dropout=0.5)]
    with Ledger(tmp_path / "ledger", clock=lambda: 100.0) as ledger:
        for number, config in enumerate(configs):
            about = {"trial": f"t{number}", "stage": "search"}
            payload = {"config": config.to_dict(), "number": number}
            ledger.append(EventKind.TRIAL, state="PENDING", payload=payload, **about)
            ledger.append(EventKind.TRIAL, state="RUNNING", **about)
            ledger.append(EventKind.TRIAL, state="COMPLETED", **about)
        for event in ledger.events():
            printed.on_event(event)
    lines = printed.lines
    assert [line.split()[0] for line in lines] == ["names", "search", "names", "search", "search"]
    assert lines[0].split(maxsplit=1)[1] == "n: unfrozen_layers"
    assert lines[2].split(maxsplit=1)[1] == "x: multiplier"


def test_the_reporter_wraps_between_words_on_a_terminal_and_not_in_a_pipe() -> None:
    line = "warning  " + "word " * 30
    terminal, pipe = io.StringIO(), io.StringIO()
    ProgressReporter(Console(file=terminal, width=60, force_terminal=True)).print_line(line)
    ProgressReporter(Console(file=pipe, width=60)).print_line(line)
    assert len(pipe.getvalue().splitlines()) == 1
    wrapped = terminal.getvalue().splitlines()
    assert len(wrapped) > 1
    assert all(part.startswith(" " * 9 + "word") for part in wrapped[1:])
    assert all(len(part) <= 60 for part in wrapped)


def test_the_reporter_tells_the_trials_own_figure_and_every_objective(tmp_path: Path) -> None:
    printed = PrintedLines()
    objectives = ["val_accuracy", "val_loss", "images_per_s"]
    printed.on_event(running({"budget": {"trials": 10, "epochs": 3}, "objectives": objectives}))
    about = {"trial": "aaa", "stage": "search"}
    with Ledger(tmp_path / "ledger", clock=lambda: 100.0) as ledger:
        created = {
            "config": TrialConfig(backbone="small_cnn", batch_size=64).to_dict(),
            "number": 1,
            "proposal": {"parameters": {"batch_size": 64}},
        }
        ledger.append(EventKind.TRIAL, state="PENDING", payload=created, **about)
        ledger.append(EventKind.TRIAL, state="RUNNING", **about)
        figures = {"val_accuracy": 0.5, "val_loss": 0.25, "images_per_s": 1234.0}
        ledger.append(EventKind.EPOCH, epoch=1, **figures, **about)
        ledger.append(EventKind.EPOCH, epoch=2, fold=1, val_accuracy=0.9, **about)
        ledger.append(EventKind.TRIAL, state="STOPPED", epoch=1, **about)
        for event in ledger.events():
            printed.on_event(event)
    assert printed.lines[1:] == [
        "search     1/10  0.500  0.2500  1,234 images/s  STOPPED   001 small_cnn batch=64  (1 epoch, 0 s)"
    ]


def test_the_reporter_tells_builds_that_computed_something(tmp_path: Path) -> None:
    printed = PrintedLines()
    done = {"what": "mobilenet_1.0 at 224 px to conv_pw_11_relu", "images": 2145, "features": 2145, "stored": True}
    builds = [
        ("ENDED", "", {**done, "seconds": 31.2, "for": "aaa"}),
        ("ENDED", "", {**done, "images": 0, "features": 0, "seconds": 0.2, "for": "aaa"}),
        ("ENDED", "", {**done, "what": "images at 32 px", "images": 1, "features": 0, "seconds": 1.0, "for": "aaa"}),
        ("ENDED", "", {**done, "features": 0, "stored": False, "seconds": 9.0, "for": "aaa"}),
        ("ENDED", "", {**done, "images": 0, "features": 0, "stored": False, "seconds": 0.1, "for": "bbb"}),
        (
            "ENDED",
            "",
            {**done, "what": "images at 32 px", "images": 0, "features": 0, "stored": False, "refused": "It is full."}
            | {"seconds": 0.1, "for": "ccc"},
        ),
        ("ENDED", "", {**done, "images": 0, "stored": False, "share": False, "seconds": 0.1, "for": "ddd"}),
        ("FAILED", "the disk is full.", {"for": "aaa"}),
    ]
    with Ledger(tmp_path / "ledger") as ledger:
        for state, reason, payload in builds:
            printed.on_event(
                ledger.append(EventKind.STAGE, stage="prefill", state=state, reason=reason, payload=payload)
            )
    assert printed.lines == [
        "prefill  mobilenet_1.0 at 224 px to conv_pw_11_relu: 2,145 images in 31 s",
        "prefill  images at 32 px: 1 image in 1 s",
        "prefill  mobilenet_1.0 at 224 px to conv_pw_11_relu: 2,145 images in 9 s",
        "warning  mobilenet_1.0 at 224 px to conv_pw_11_relu is not kept and is computed in every epoch: there is no "
        "room for all of it; orch cache explain says how much is taken",
        "warning  images at 32 px is not kept and is computed in every epoch: It is full",
        "prefill  mobilenet_1.0 at 224 px to conv_pw_11_relu: 2,145 images in 0 s",
        "warning  the store was not filled for aaa: the disk is full; its trials start all the same",
    ]


def test_a_search_that_was_to_stop_there_says_how_to_resume(tmp_path: Path) -> None:
    printed = PrintedLines()
    printed.reporter.opened("demo", tmp_path / "demo", [], ["note     something"], resumed=False)
    stopped = {"kind": EventKind.SWEEP, "state": "STOPPED", "payload": json.dumps({"until": "search"})}
    printed.on_event(Event(seq=2, time_s=1.0, **stopped))
    first, note, last = printed.lines
    assert first == f"sweep    demo in {tmp_path / 'demo'} (new)"
    assert note == "note     something"
    assert last.startswith("stopped  after the search")
    assert f"`orch sweep --resume --out {tmp_path / 'demo'}`" in last


def test_a_resumed_sweep_counts_on_from_its_trials(tmp_path: Path) -> None:
    printed = PrintedLines()
    past = two_trials(tmp_path)
    printed.reporter.opened("demo", tmp_path, past, [], resumed=True)
    printed.on_event(running({"budget": {"trials": 10, "epochs": 3}}))
    about = {"trial": "ccc", "stage": "search", "kind": EventKind.TRIAL}
    printed.on_event(Event(seq=20, time_s=2.0, state="STOPPED", **about))
    assert printed.lines[0].endswith("(resumed with 1 trial done)")
    assert printed.lines[1].split()[:2] == ["search", "2/10"]
