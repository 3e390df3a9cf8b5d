"""Every backbone and every head through an epoch of ``orch sweep full``: ``make space``.

Two sweeps through the command line, as a person would run them: all backbones with one head, then all heads with one
backbone. The budget is cut by ``--set``: one epoch on a tenth of the digits, no weights, the smallest images that each
backbone takes, every other field at its default. What counts is what the ledger says afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.ledger.segments import read_events
from orchestrator.ledger.state import SweepState, TrialState, derive
from orchestrator.paths import SweepPaths
from orchestrator.spec.space.domains import DEFAULTS
from trainers.backbones import BACKBONES, Backbone
from trainers.heads import HEADS

CHEAP_BACKBONE = "small_cnn"
CUT = {
    "data.source": "builtin:digits",
    "data.splits": {"train": 0.1, "validation": 0.1, "test": 0.8},
    "weights": "none",
    "budget.epochs": 1,
    "budget.scheduler": "none",
    "budget.sampler": "grid",
    "budget.retries": 0,
    "resources.cpus": 1,
    "tracking.enabled": False,
}


@dataclass(frozen=True)
class Coverage:
    """What became of each name of one table. ``failures``: name -> why it is not COMPLETED."""

    table: str
    names: tuple[str, ...]
    failures: Mapping[str, str]

    @property
    def completed(self) -> int:
        return len(self.names) - len(self.failures)


def coverage(table: str, names: Iterable[str], state: SweepState) -> Coverage:
    """Pure. A name counts where one of its trials is COMPLETED with an epoch; ``table`` is the trials' field."""
    failures: dict[str, str] = {}
    for name in names:
        records = [record for record in state.trials.values() if record.config.get(table) == name]
        if any(record.state == TrialState.COMPLETED and record.epochs for record in records):
            continue
        reasons = [f"{record.state}: {record.reason or 'no reason was recorded'}" for record in records]
        failures[name] = "; ".join(reasons) or "no trial of it was run"
    return Coverage(table, tuple(names), failures)


def settings(search: Mapping[str, Any], trials: int, concurrent: int) -> list[str]:
    """The ``--set`` texts that leave ``full`` with nothing but ``search`` to vary. JSON is YAML."""
    fields = {f"search.{name}": search.get(name, default) for name, default in DEFAULTS.items()}
    budget = {"budget.trials": trials, "budget.concurrent": concurrent}
    return [f"{key}={json.dumps(value)}" for key, value in {**CUT, **budget, **fields}.items()]


def smallest_sizes(rows: Iterable[Backbone]) -> list[dict[str, Any]]:
    """``image_size`` as cases: for each backbone the smallest that it takes."""
    by_size: dict[int, list[str]] = {}
    for row in rows:
        by_size.setdefault(row.smallest_size, []).append(row.name)
    return [{"value": size, "when": {"backbone": names}} for size, names in sorted(by_size.items())]


def backbone_search(names: Sequence[str]) -> dict[str, Any]:
    """Each backbone once, its last layer unfrozen, so that the cut below it is made too."""
    sizes = smallest_sizes(BACKBONES[name] for name in names)
    return {"backbone": list(names), "image_size": sizes, "unfrozen_layers": 1}


def head_search(names: Sequence[str]) -> dict[str, Any]:
    """Each head once, on a small network that is trained whole."""
    size = BACKBONES[CHEAP_BACKBONE].smallest_size
    return {"backbone": CHEAP_BACKBONE, "head": list(names), "image_size": size, "unfrozen_layers": "all"}


def run(search: Mapping[str, Any], trials: int, concurrent: int, folder: Path) -> SweepState:
    """``orch sweep full`` with nothing but ``search`` to vary, in a process of its own; what its ledger says then."""
    command = [sys.executable, "-m", "orchestrator", "sweep", "full", "--until", "search", "--out", str(folder)]
    for text in settings(search, trials, concurrent):
        command += ["--set", text]
    environment = {**os.environ, "ORCH_CACHE": str(folder.parent / "cache")}
    ended = subprocess.run(command, env=environment, check=False)
    events = read_events(SweepPaths(folder).ledger) if SweepPaths(folder).ledger.is_dir() else []
    if not events:
        raise SystemExit(f"the sweep ended with exit code {ended.returncode} before it had trained anything.")
    return derive(events)


def report(found: Sequence[Coverage], seconds: float) -> list[str]:
    """What is printed at the end; the last line counts."""
    lines = [f"{each.table} {name}: {reason}" for each in found for name, reason in sorted(each.failures.items())]
    lines += [f"{each.completed} of {len(each.names)} {each.table}s COMPLETED" for each in found]
    failed = sum(len(each.failures) for each in found)
    counted = ", ".join(f"{len(each.names)} {each.table}s" for each in found)
    return [*lines, f"in {seconds / 60:.1f} minutes", f"{counted}, {failed} failed"]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every row of both tables went through an epoch, else 1."""
    parser = argparse.ArgumentParser(description="Every backbone and every head through an epoch of orch sweep full.")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES), metavar="NAME")
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=list(HEADS), metavar="NAME")
    parser.add_argument("--concurrent", type=int, default=2, help="trials at once (default 2)")
    parser.add_argument("--keep", type=Path, help="keep the sweeps' folders below this new folder")
    asked = parser.parse_args(arguments)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="orch-space-") as temporary:
        place = (asked.keep or Path(temporary)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        backbones = run(backbone_search(asked.backbones), len(asked.backbones), asked.concurrent, place / "backbones")
        heads = run(head_search(asked.heads), len(asked.heads), asked.concurrent, place / "heads")
    found = [coverage("backbone", asked.backbones, backbones), coverage("head", asked.heads, heads)]
    print("\n".join(report(found, time.monotonic() - began_s)))
    return 1 if any(each.failures for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())
