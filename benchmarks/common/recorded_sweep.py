"""A sweep whose trials end after given epochs: ``python -m benchmarks.common.recorded_sweep FILE OUT EPOCHS.json``.

A file for ``orch sweep`` gives all trials the same epochs and lets a scheduler stop them, which would not stop the same
trials in another run. So this goes through the library: the stages of ``orch sweep FILE --until search``, with the
listed trials as ``TrialRequest``s that hold their own epochs. Tracking is on, as in a sweep.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console

from orchestrator.cluster.ray_session import ray_session
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.report.progress import ProgressReporter
from orchestrator.search.run import run_trials
from orchestrator.search.settings import SearchSettings
from orchestrator.search.source import FixedTrials, TrialRequest
from orchestrator.spec.load import load_spec
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.data import data_identity, prepare_data
from orchestrator.sweep.open import open_new
from orchestrator.sweep.settings import FILL
from orchestrator.tracking.settings import tracking_settings
from orchestrator.tracking.tracker import Tracker
from trainers.config import canonical, trial_id
from trainers.data.manifest import Manifest

TRACKING_GRACE_S = 60.0


def requests(running: SweepContext, manifest: Manifest, epochs: dict[str, int]) -> list[TrialRequest]:
    """The file's configurations in their order, each with the epochs that ``epochs`` says of its name."""
    budget, found = running.spec.budget, []
    for number, (name, values) in enumerate(running.spec.configurations, start=1):
        config = canonical({**values, "epochs": epochs[name]})
        fit_id = trial_id(config, budget.seed, data_identity(manifest))
        job = running.fit_job(fit_id, config, budget.seed, ("train",))
        found.append(TrialRequest(fit_id, name, number, job))
    return found


def main(file: str, out: str, epochs_file: str) -> None:
    """Run it into the folder ``out``, which must not exist."""
    epochs = json.loads(Path(epochs_file).read_text(encoding="utf-8"))
    spec = load_spec(file)
    opened = open_new(spec, Path(out), fresh=False)
    reporter, tracker = ProgressReporter(Console()), Tracker(opened.paths, tracking_settings(spec))
    tracker.start()

    def show(event: Event) -> None:
        reporter.on_event(event)
        tracker.show(event)

    with Ledger(opened.paths.ledger) as ledger:
        running = SweepContext(opened.paths, spec, ledger, show)
        running.record(EventKind.SWEEP, state="RUNNING", payload={"name": spec.name})
        manifest = prepare_data(running)
        settings = SearchSettings(
            epochs=max(epochs.values()),
            logs=opened.paths.logs.resolve(),
            storage=opened.paths.ray.resolve(),
            cpus=spec.resources.cpus,
            fill=FILL,
            stage=Stage.SEARCH,
        )
        with ray_session():
            run_trials(FixedTrials(requests(running, manifest, epochs)), settings, ledger, show)
        running.record(EventKind.SWEEP, state="STOPPED", reason="after the search, as asked")
        ledger.flush()
        tracker.close(TRACKING_GRACE_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
