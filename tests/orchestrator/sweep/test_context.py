"""What the stages of a sweep share: one ledger, one callback, and the jobs of fits."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.sweep.context import SweepContext
from tests.support.printed_lines import PrintedLines
from trainers.config import TrialConfig

Open = Callable[..., SweepContext]


def test_events_are_recorded_and_shown(open_sweep: Open, printed: PrintedLines) -> None:
    sweep = open_sweep()
    event = sweep.record(EventKind.STAGE, stage=Stage.SELECT, state="BEGUN")
    sweep.note(Stage.PLAN, "none: it looks short")
    sweep.warn("something is odd.")
    events = sweep.ledger.events()
    assert events[0] == event
    assert [(each.kind, each.stage, each.reason) for each in events[1:]] == [
        ("NOTE", "plan", ""),
        ("NOTE", "", "something is odd."),
    ]
    assert printed.lines == ["plan     none: it looks short", "warning  something is odd."]
    assert sweep.state().stages == {"select": {"state": "BEGUN"}}


def test_a_fit_is_asked_for_as_the_file_says(open_sweep: Open) -> None:
    sweep = open_sweep()
    config = TrialConfig(backbone="small_cnn")
    job = sweep.fit_job("f", config, 7, ("train", "validation"))
    assert (job.id, job.config, job.seed, job.train_splits) == ("f", config, 7, ("train", "validation"))
    assert (job.weights, job.precision, job.store_dtype, job.share) == ("none", "auto", "float32", True)
    root = sweep.paths.root.resolve()
    for path in (job.manifest, job.output, job.checkpoint):
        assert path.startswith(f"{root}/"), "workers run in other folders"
    assert job.cache.endswith("cache")
