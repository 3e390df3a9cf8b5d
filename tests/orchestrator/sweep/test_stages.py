"""What the stages decide without running anything."""

from __future__ import annotations

import io
import math
from pathlib import Path

from rich.console import Console

from orchestrator.ledger.ledger import Ledger, derive
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.report.progress import ProgressReporter
from orchestrator.spec.load import load_spec
from orchestrator.sweep.pictures import epochs_frame, search_frame
from orchestrator.sweep.settings import seconds_searched
from trainers.config import TrialConfig


def _event(seq: int, time_s: float, kind: EventKind, trial: str = "", stage: str = "", payload: str = "{}") -> Event:
    return Event(seq, time_s, str(kind), trial=trial, stage=stage, payload=payload)


def test_time_searched_leaves_out_pauses_and_other_stages() -> None:
    events = [
        _event(1, 0, EventKind.SWEEP),
        _event(2, 10, EventKind.TRIAL, "a", "search"),
        _event(3, 40, EventKind.EPOCH, "a", "search"),
        _event(4, 1000, EventKind.SWEEP),  # killed, and started again much later
        _event(5, 1010, EventKind.TRIAL, "a", "search"),
        _event(6, 1030, EventKind.TRIAL, "a", "search"),
        _event(7, 1500, EventKind.EPOCH, "b", "refit"),
    ]
    assert seconds_searched(events) == 30 + 20
    assert seconds_searched([]) == 0
    assert seconds_searched(events[:1]) == 0


def test_time_searched_holds_what_went_into_filling_the_store() -> None:
    """A killed process that had filled one set of rows and was at the next; refits fill the store in no search."""
    events = [
        _event(1, 0, EventKind.SWEEP),
        _event(2, 10, EventKind.TRIAL, "a", "search"),
        _event(3, 10, EventKind.TRIAL, "b", "search"),
        _event(4, 1810, EventKind.STAGE, "", "prefill", '{"for": "b"}'),
        _event(5, 9000, EventKind.SWEEP),
        _event(6, 9010, EventKind.TRIAL, "c", "refit"),
        _event(7, 9900, EventKind.STAGE, "", "prefill", '{"for": "c"}'),
    ]
    assert seconds_searched(events) == 1800


def _ledger(folder: Path) -> list[Event]:
    config = TrialConfig(backbone="small_cnn").to_dict()
    with Ledger(folder / "ledger", clock=lambda: 100.0) as ledger:
        for trial, stage in (("aaa", "search"), ("bbb", "refit")):
            created = {"config": config, "name": "", "number": 1}
            ledger.append(EventKind.TRIAL, trial=trial, stage=stage, state="PENDING", payload=created)
            ledger.append(
                EventKind.TRIAL, trial=trial, stage=stage, state="RUNNING", payload={"log": f"logs/{trial}.log"}
            )
            for epoch in (1, 2):
                values = {"loss": 1.0 / epoch, "val_accuracy": 0.5 if stage == "search" else math.nan}
                ledger.append(EventKind.EPOCH, trial=trial, stage=stage, epoch=epoch, **values)
            reason = "out of memory" if stage == "refit" else ""
            state = "FAILED" if stage == "refit" else "COMPLETED"
            ledger.append(EventKind.TRIAL, trial=trial, stage=stage, state=state, epoch=2, reason=reason)
        return ledger.events()


def test_figures_are_drawn_from_the_search_alone(tmp_path: Path) -> None:
    state = derive(_ledger(tmp_path))
    assert search_frame(state)["id"].tolist() == ["aaa"]
    frame = epochs_frame(state)
    assert frame[["id", "epoch", "state"]].to_numpy().tolist() == [["aaa", 1, "COMPLETED"], ["aaa", 2, "COMPLETED"]]


def test_narrator_says_one_line_for_each_trial_that_ended(tmp_path: Path) -> None:
    text = io.StringIO()
    narrator = ProgressReporter(Console(file=text, width=200), load_spec("quick"))
    for event in _ledger(tmp_path):
        narrator.show(event)
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("search   first epoch after")
    assert lines[1:] == [
        "search     1/10  0.500  COMPLETED 001 small_cnn  (2 epochs, 0 s)",
        "refit         1    -    FAILED    001 small_cnn  (2 epochs, 0 s): out of memory (log: logs/bbb.log)",
    ]


def test_narrator_explains_each_abbreviation_once_before_the_first_name_that_has_it(tmp_path: Path) -> None:
    text = io.StringIO()
    narrator = ProgressReporter(Console(file=text, width=200), load_spec("quick"))
    configs = [TrialConfig(unfrozen_layers=5), TrialConfig(unfrozen_layers=9, multiplier=2.0), TrialConfig(dropout=0.5)]
    with Ledger(tmp_path / "ledger", clock=lambda: 100.0) as ledger:
        for number, config in enumerate(configs):
            about = {"trial": f"t{number}", "stage": "search"}
            payload = {"config": config.to_dict(), "number": number}
            ledger.append(EventKind.TRIAL, state="PENDING", payload=payload, **about)
            ledger.append(EventKind.TRIAL, state="RUNNING", **about)
            ledger.append(EventKind.TRIAL, state="COMPLETED", **about)
        for event in ledger.events():
            narrator.show(event)
    lines = text.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["names", "search", "names", "search", "search"]
    assert lines[0].split(maxsplit=1)[1] == "n: unfrozen_layers"
    assert lines[2].split(maxsplit=1)[1] == "x: multiplier"


def test_narrator_wraps_between_words_on_a_terminal_and_not_in_a_pipe() -> None:
    line = "warning  " + "word " * 30
    terminal, pipe = io.StringIO(), io.StringIO()
    ProgressReporter(Console(file=terminal, width=60, force_terminal=True), load_spec("quick")).tell(line)
    ProgressReporter(Console(file=pipe, width=60), load_spec("quick")).tell(line)
    assert len(pipe.getvalue().splitlines()) == 1
    wrapped = terminal.getvalue().splitlines()
    assert len(wrapped) > 1
    assert all(part.startswith(" " * 9 + "word") for part in wrapped[1:])
    assert all(len(part) <= 60 for part in wrapped)


def test_narrator_tells_the_trials_own_figure_and_every_objective(tmp_path: Path) -> None:
    text = io.StringIO()
    spec = load_spec("quick", ["objective=[val_accuracy,val_loss,images_per_s]"])
    narrator = ProgressReporter(Console(file=text, width=200), spec)
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
            narrator.show(event)
    assert text.getvalue().splitlines()[1:] == [
        "search     1/10  0.500  0.2500  1,234 images/s  STOPPED   001 small_cnn batch=64  (1 epoch, 0 s)"
    ]


def test_narrator_tells_builds_that_computed_something(tmp_path: Path) -> None:
    text = io.StringIO()
    narrator = ProgressReporter(Console(file=text, width=200), load_spec("quick"))
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
            narrator.show(ledger.append(EventKind.STAGE, stage="prefill", state=state, reason=reason, payload=payload))
    assert text.getvalue().splitlines() == [
        "prefill  mobilenet_1.0 at 224 px to conv_pw_11_relu: 2,145 images in 31 s",
        "prefill  images at 32 px: 1 image in 1 s",
        "prefill  mobilenet_1.0 at 224 px to conv_pw_11_relu: 2,145 images in 9 s",
        "warning  mobilenet_1.0 at 224 px to conv_pw_11_relu is not kept and is computed in every epoch: there is no "
        "room for all of it; orch cache explain says how much is taken",
        "warning  images at 32 px is not kept and is computed in every epoch: It is full",
        "prefill  mobilenet_1.0 at 224 px to conv_pw_11_relu: 2,145 images in 0 s",
        "warning  the store was not filled for aaa: the disk is full; its trials start all the same",
    ]
