"""The earlier manifest whose splits a sweep keeps: the newest of the same registered model, of its own source first.

Found on this machine alone, among the sweeps in ``runs/`` and those in a file of the user's (``RECORD``), so that it
needs no MLflow; see docs/decisions/0015-splits-kept-by-default.md. ``orch data check``, ``orch data preview``,
``orch plan`` and ``orch sweep`` all ask here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import OrchError
from orchestrator.ledger.folder import list_sweeps, read_sweep
from orchestrator.ledger.kept import KeptFiles
from orchestrator.ledger.stages import Stage
from orchestrator.paths import RUNS, SweepPaths, data_folder
from orchestrator.spec.data_source import data_source
from orchestrator.spec.load import load_spec
from orchestrator.spec.sections.data import AUTO
from orchestrator.spec.sweep import SweepSpec
from orchestrator.tracking.mlflow_store import store_uri
from orchestrator.tracking.settings import model_name, name_of_data
from trainers.data.data_source import DEFAULT_SPLITS, DataSource
from trainers.data.sources.builtins import BUILTIN
from trainers.data.sources.read import names_of
from trainers.files.atomic import make_folders

RECORD = "manifests.jsonl"
"""Name of the user's file: one JSON object a manifest, appended to and never changed."""


@dataclass(frozen=True)
class Earlier:
    """A sweep of the same model. ``time_s``: when its manifest was made. ``kept``: the checksums of its files."""

    folder: Path
    spec: SweepSpec
    time_s: float
    kept: KeptFiles

    def is_damaged(self) -> bool:
        """Whether the manifest, which is read for that, is not whole."""
        manifest = SweepPaths(self.folder).manifest
        return not manifest.is_file() or self.kept.state(manifest).is_damage


def source_of(spec: SweepSpec, own: Path | None = None) -> DataSource:
    """Return the file's ``data`` section as a ``DataSource``, with the manifest whose splits are kept.

    ``own``: the folder of the sweep itself. With ``keep_splits: auto`` it is the newest of the registered model whose
    seed and ratios are the same, since a file that states others asks for another division. One whose ``data.source``
    is the same comes before a newer one of another source, whose folder may merely have the same name.
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
    places = _places(source)
    for earlier in sorted(_earlier(model, store_uri(uri), own), key=lambda e: _places(data_source(e.spec)) != places):
        before = data_source(earlier.spec)
        if earlier.is_damaged():
            notes.append(f"those of {_shown(earlier.folder)} are not kept, because its manifest is damaged or missing")
        elif (before.seed, _ratios(before)) == (source.seed, _ratios(source)):
            return replace(source, keep_splits=_shown(earlier.folder), kept_by_default=True, split_notes=tuple(notes))
        elif not other:
            what = "data.seed" if before.seed != source.seed else "data.splits"
            other = (
                f"those of {_shown(earlier.folder)} are not kept, because its {what} is another one; to keep them, set "
                "data.keep_splits to that folder"
            )
    return replace(source, split_notes=(*notes, other) if other else tuple(notes))


def _places(source: DataSource) -> list[str]:
    """Return the paths of the sources, without links, in an order that does not depend on the file's."""
    return sorted(os.path.realpath(name) for name in names_of(source.source))


def _ratios(source: DataSource) -> tuple[float, ...]:
    ratios = DEFAULT_SPLITS if source.splits == "auto" else source.splits or ()
    return tuple(round(ratio, 6) for ratio in ratios)


def _shown(folder: Path) -> Path:
    """Return ``folder`` relative to the current one where it is below it."""
    with contextlib.suppress(ValueError):
        return folder.relative_to(Path.cwd())
    return folder


def _earlier(model: str, store: str, own: Path | None) -> list[Earlier]:
    """Return the sweeps of ``model`` that have made a manifest, the newest first."""
    folders = dict.fromkeys(folder.resolve() for folder in list_sweeps(Path(RUNS)))
    folders |= dict.fromkeys(_recorded(model, store))
    folders.pop(own.resolve() if own else Path(), None)
    found = (_sweep_of(folder, model) for folder in folders)
    return sorted((each for each in found if each), key=lambda each: -each.time_s)


def _sweep_of(folder: Path, model: str) -> Earlier | None:
    """Return the sweep in ``folder`` if it is one of ``model`` whose photos were divided; None for any other."""
    paths = SweepPaths(folder)
    with contextlib.suppress(OrchError, OSError, ValueError):
        spec = load_spec(str(paths.spec), check_machine=False)
        if model_name(spec) != model:
            return None
        sweep = read_sweep(folder)
        ended = [event.time_s for event in sweep.events if (event.stage, event.state) == (Stage.DATA, "ENDED")]
        if ended:
            return Earlier(folder, spec, ended[-1], sweep.kept)
    return None


def record_manifest(paths: SweepPaths, spec: SweepSpec, time_s: float) -> None:
    """Append a sweep's manifest to the user's file; without a home, or where it cannot be written, only sweeps in
    ``runs/`` are found."""
    file = _record()
    if file is None:
        return
    facts = {"model": model_name(spec), "store": store_uri(spec.tracking.uri), "time_s": time_s}
    line = json.dumps({**facts, "folder": str(paths.root.resolve())}) + "\n"
    with contextlib.suppress(OSError):
        make_folders(file.parent)
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())  # one write: lines do not mix
        finally:
            os.close(descriptor)


def _recorded(model: str, store: str) -> Iterator[Path]:
    """Yield the folders of the user's file; lines that are not whole are skipped."""
    file = _record()
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file else []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            entry = json.loads(line)
            if (entry["model"], entry["store"]) == (model, store) and os.path.isdir(entry["folder"]):
                yield Path(entry["folder"])


def _record() -> Path | None:
    folder = data_folder()
    return folder / RECORD if folder else None
