"""The stage search: what it asks for, and that a finished one is not run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from orchestrator.search.sampling import OptunaSampler
from orchestrator.search.source import FixedTrials
from orchestrator.spec.load import load_spec
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.search import _source, search
from tests.support.tiny_fits import write_manifest
from trainers.data.manifest import Manifest

NAMED = "{backbone: small_cnn, configurations: [{name: one, dropout: 0.1}, {name: two, dropout: 0.2}]}"
VARIED = "{backbone: small_cnn, dropout: [0.1, 0.2, 0.3]}"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest.read(write_manifest(tmp_path / "pictures"))


def open_sweep(folder: Path, searched: str, budget: str) -> SweepContext:
    data = "data: {source: 'builtin:digits', folds: 3}\nobjective: [val_accuracy, images_per_s]"
    (folder / "f.yaml").write_text(f"name: s\n{data}\nweights: none\nsearch: {searched}\nbudget: {budget}\n")
    paths = SweepPaths(folder / "sweep")
    return SweepContext(paths, load_spec(str(folder / "f.yaml")), Ledger(paths.ledger), lambda event: None)


def test_named_configurations_are_asked_for_in_their_order(tmp_path: Path, manifest: Manifest) -> None:
    source = _source(open_sweep(tmp_path, NAMED, "{epochs: 2}"), manifest)
    assert isinstance(source, FixedTrials)
    asked = [source.ask(), source.ask()]
    assert [(each.name, each.number, each.job.config.dropout) for each in asked if each] == [
        ("one", 1, 0.1),
        ("two", 2, 0.2),
    ]
    assert source.exhausted
    first = asked[0]
    assert first is not None
    assert (first.job.folds, first.job.measure_speed, first.job.train_splits) == (3, True, ("train",))
    assert first.job.config.epochs == 2


def test_a_space_is_sampled_with_the_budgets_numbers(tmp_path: Path, manifest: Manifest) -> None:
    budget = "{trials: 9, epochs: 2, seed: 4, sampler: random, first: [{dropout: 0.3}]}"
    source = _source(open_sweep(tmp_path, VARIED, budget), manifest)
    assert isinstance(source, OptunaSampler)
    asked = source.ask()
    assert asked is not None
    assert (asked.job.config.dropout, asked.job.seed, asked.job.folds) == (0.3, 4, 3)


def test_a_finished_search_is_not_run_again(tmp_path: Path, manifest: Manifest) -> None:
    sweep = open_sweep(tmp_path, NAMED, "{epochs: 2}")
    source = _source(sweep, manifest)
    while (request := source.ask()) is not None:
        payload = {"config": request.job.config.to_dict(), "number": request.number, "name": request.name}
        for state in ("PENDING", "RUNNING", "COMPLETED"):
            about = {"trial": request.id, "stage": "search", "state": state}
            sweep.ledger.append(EventKind.TRIAL, payload=payload if state == "PENDING" else None, **about)
    sweep.record(EventKind.STAGE, stage="search", state="ENDED", payload={})
    before = len(sweep.ledger.events())
    search(sweep, manifest)
    assert len(sweep.ledger.events()) == before
