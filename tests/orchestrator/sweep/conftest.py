"""A sweep to run stages in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.paths import SweepPaths
from orchestrator.spec.load import load_spec
from orchestrator.sweep.context import SweepContext
from tests.support.printed_lines import PrintedLines

FILE = (
    "name: s\ndata: {source: 'builtin:digits', folds: FOLDS}\nweights: none\n"
    "search: {backbone: small_cnn, hidden: [0, 64]}\nbudget: {trials: 3, epochs: 2, scheduler: none}\n"
    "objective: OBJECTIVE\nfinal: {seeds: 1, policies: [whole, flip], choose: CHOOSE}\n"
)


@pytest.fixture
def printed() -> PrintedLines:
    return PrintedLines()


@pytest.fixture
def open_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: PrintedLines) -> Callable[..., SweepContext]:
    """A sweep in a new folder; what a person reads of it is ``printed``."""
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))

    def open_sweep(folds: int = 0, objective: str = "val_accuracy", choose: str = "{}") -> SweepContext:
        text = FILE.replace("FOLDS", str(folds)).replace("OBJECTIVE", objective).replace("CHOOSE", choose)
        (tmp_path / "f.yaml").write_text(text)
        paths = SweepPaths(tmp_path / "sweep")
        ledger = Ledger(paths.ledger)
        return SweepContext(paths, load_spec(str(tmp_path / "f.yaml")), ledger, printed.on_event)

    return open_sweep
