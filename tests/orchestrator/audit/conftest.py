"""A finished sweep that 42b062d wrote, with and without checksums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from orchestrator.audit.audit import leaderboard_record
from orchestrator.evaluation.leaderboard import ensemble
from orchestrator.evaluation.per_class import per_class, write
from orchestrator.ledger.folder import read_sweep
from orchestrator.ledger.kept import FILES, checksums, files_below
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from tests.support.since_42b062d import unpack
from trainers.data.manifest import Manifest


def write_classes(sweep: SweepPaths) -> None:
    """``per_class.csv``, as version 2 of the statistics wrote it: Wilson's intervals of single photos."""
    record, _ = leaderboard_record(read_sweep(sweep.root))
    files = [sweep.probabilities(fit, "test", record["judged"]["policy"]) for fit in record["fits"]]
    answers = ensemble([np.load(file)["probabilities"] for file in files]).argmax(1)
    manifest = Manifest.read(sweep.manifest, files=False)
    test = manifest.split("test")
    frame = per_class(test.labels(), answers, manifest.classes, test.table["group"].tolist())
    for figure, photos in (("precision", "predicted"), ("recall", "support")):
        for place, (share, n) in enumerate(zip(frame[figure], frame[photos], strict=True)):
            if n:
                bounds = binomtest(round(share * n), n).proportion_ci(method="wilson")
                frame.loc[place, [f"{figure}_low", f"{figure}_high"]] = bounds.low, bounds.high
    write(frame, sweep)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepPaths:
    """Without checksums; typed in an empty folder, so that no MLflow is found."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return SweepPaths(unpack(tmp_path, "finished") / "finished")


@pytest.fixture
def sweep(old: SweepPaths) -> SweepPaths:
    """As sweeps of today: each file has its checksum in the record of the last leaderboard."""
    write_classes(old)  # not written by 42b062d
    hidden = {old.lock, old.tracking_cursor}
    files = [file for file in files_below(old.root) if old.ledger not in file.parents and file not in hidden]
    with Ledger(old.ledger) as ledger:
        events = [e for e in ledger.events() if e.stage == "leaderboard" and e.state == "ENDED"]
        payload = events[-1].data | {FILES: checksums(old, files), "statistics": 1}
        ledger.append(EventKind.STAGE, stage="leaderboard", state="ENDED", payload=payload)
    return old
