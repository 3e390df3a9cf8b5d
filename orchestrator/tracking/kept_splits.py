"""The earlier manifest whose splits a sweep keeps: the newest of the same registered model, of its own source first.

Found on this machine alone, among the sweeps in ``runs/`` and those in a file of the user's (``RECORD``), so that it
needs no MLflow; see docs/decisions/0015-splits-kept-by-default.md. ``orch data check``, ``orch data preview``,
``orch plan`` and ``orch sweep`` all ask here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import OrchError
from orchestrator.ledger import user_record
from orchestrator.ledger.folder import list_sweeps, read_sweep
from orchestrator.ledger.stages import Stage
from orchestrator.paths import RUNS, SweepPaths
from orchestrator.spec.data_source import data_source
from orchestrator.spec.load import load_spec
from orchestrator.spec.sections.data import AUTO
from orchestrator.spec.sweep import SweepSpec
from orchestrator.tracking.mlflow_store import store_uri
from orchestrator.tracking.settings import model_name, name_of_data
from trainers.data.data_source import DEFAULT_SPLITS, DataSource
from trainers.data.sources.builtins import BUILTIN
from trainers.data.sources.read import names_of

RECORD = "manifests.jsonl"
"""Name of the user's file: one JSON object a manifest, appended to and never changed."""


def source_of(spec: SweepSpec, own: Path | None = None) -> DataSource:
    """Return the file's ``data`` section as a ``DataSource``, with the manifest whose splits are kept.

    ``own``: the folder of the sweep itself. With ``keep_splits: auto`` it is the newest of the registered model whose
    seed and ratios are the same, and in which near duplicates are held together or not as in this one, since a file
    that states others asks for another division. One whose ``data.source`` is the same comes before a newer one of
    another source, whose folder may merely have the same name.
    """
    source = data_source(spec)
    if spec.data.keep_splits != AUTO:
        return source
    return _keeping(source, model_name(spec), spec.tracking.uri, own)


def source_of_photos(source: DataSource) -> DataSource:
    """Return ``source``, which no file describes, as a sweep of it without further settings would read it."""
    return _keeping(source, name_of_data(names_of(source.source)), None, None)


def _keeping(source: DataSource, model: str, uri: str | None, own: Path | None) -> DataSource:
    if source.splits is None or any(name.startswith(BUILTIN) for name in names_of(source.source)):
        return source  # own splits, or a built-in, whose photos never change
    notes: list[str] = []
    other = ""
    for folder, before in _same_source_first(_earlier(model, store_uri(uri), own), source):
        what = next((name for name, value in _division(before).items() if value != _division(source)[name]), "")
        if what and other:
            continue
        damaged = _is_damaged(folder)  # reads the ledger
        if damaged is None:
            continue
        if damaged:
            notes.append(f"those of {_shown(folder)} are not kept, because its manifest is damaged or missing")
        elif not what:
            return replace(source, keep_splits=_shown(folder), kept_by_default=True, split_notes=tuple(notes))
        else:
            other = (
                f"those of {_shown(folder)} are not kept, because its {what} is another one; to keep them, set "
                "data.keep_splits to that folder"
            )
    return replace(source, split_notes=(*notes, other) if other else tuple(notes))


def _division(source: DataSource) -> dict[str, object]:
    """Return what a file states about how photos are divided: option -> value."""
    ratios = DEFAULT_SPLITS if source.splits == "auto" else source.splits or ()
    rounded = tuple(round(ratio, 6) for ratio in ratios)
    return {"data.seed": source.seed, "data.splits": rounded, "data.duplicates": source.duplicates == "keep"}


def _same_source_first(
    earlier: Iterable[tuple[Path, DataSource]], source: DataSource
) -> Iterator[tuple[Path, DataSource]]:
    """Yield those of the same photos as they come, then the others."""
    places, others = _places(source), []
    for folder, before in earlier:
        if _places(before) == places:
            yield folder, before
        else:
            others.append((folder, before))
    yield from others


def _places(source: DataSource) -> list[str]:
    """Return the paths of the sources, without links, in an order that does not depend on the file's."""
    return sorted(os.path.realpath(name) for name in names_of(source.source))


def _shown(folder: Path) -> Path:
    """Return ``folder`` relative to the current one where it is below it."""
    with contextlib.suppress(ValueError):
        return folder.relative_to(Path.cwd())
    return folder


def _earlier(model: str, store: str, own: Path | None) -> Iterator[tuple[Path, DataSource]]:
    """Yield the sweeps of ``model`` in ``store`` with their ``data`` section, the newest manifest first.

    Their files are read one by one, as they are asked for. A sweep on record is of the store that it was recorded with;
    any other of that of its file.
    """
    recorded = {entry.folder: entry for entry in _recorded()}  # the last line of each counts
    folders = dict.fromkeys(folder.resolve() for folder in list_sweeps(Path(RUNS))) | dict.fromkeys(recorded)
    folders.pop(own.resolve() if own else Path(), None)
    times = {folder: recorded[folder].time_s if folder in recorded else _time_s(folder) for folder in folders}
    for folder in sorted(times, key=lambda each: -times[each]):
        entry = recorded.get(folder)
        if entry and (entry.model, entry.store) != (model, store):
            continue
        with contextlib.suppress(OrchError, OSError, ValueError):
            spec = load_spec(str(SweepPaths(folder).spec), check_machine=False)
            if model_name(spec) == model and (entry or store_uri(spec.tracking.uri) == store):
                yield folder, data_source(spec)


def _time_s(folder: Path) -> float:
    """Return when the manifest of a sweep that is not on record was written, or its ledger if it is gone; 0 without."""
    paths = SweepPaths(folder)
    for path in (paths.manifest, paths.ledger):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _is_damaged(folder: Path) -> bool | None:
    """Whether the manifest, which is read for that, is not whole; None for a sweep whose photos were never divided."""
    with contextlib.suppress(OrchError, OSError, ValueError):
        sweep = read_sweep(folder)
        if any((event.stage, event.state) == (Stage.DATA, "ENDED") for event in sweep.events):
            return not sweep.paths.manifest.is_file() or sweep.kept.state(sweep.paths.manifest).is_damage
    return None


def record_manifest(paths: SweepPaths, spec: SweepSpec, time_s: float) -> None:
    """Append a sweep's manifest to the user's file; without a home, or where it cannot be written, only sweeps in
    ``runs/`` are found."""
    facts = {"model": model_name(spec), "store": store_uri(spec.tracking.uri), "time_s": time_s}
    user_record.append(RECORD, {**facts, "folder": str(paths.root.resolve())})


@dataclass(frozen=True)
class _Entry:
    """One line of the user's file. ``time_s``: when the manifest was made."""

    model: str
    store: str
    folder: Path
    time_s: float


def _recorded() -> Iterator[_Entry]:
    """Yield the lines of the user's file whose folder is there; those that are not whole are skipped."""
    for line in user_record.lines(RECORD):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            entry = json.loads(line)
            if os.path.isdir(entry["folder"]):
                yield _Entry(str(entry["model"]), str(entry["store"]), Path(entry["folder"]), float(entry["time_s"]))
