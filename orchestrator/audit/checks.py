"""Comparisons, and readings of a sweep's folder that are the audit's own."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.audit import figures
from orchestrator.errors import OrchError
from orchestrator.ledger.folder import Sweep

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.spec.sweep import SweepSpec

EQUAL, DIFFERENT, NOT_CHECKABLE = "equal", "different", "not checkable"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, StopIteration)
"""What pandas, numpy and json raise on a file that is torn, or of another make."""


@dataclass(frozen=True)
class Check:
    """One comparison. ``part``: of the sweep, a row of the table. ``what``: the file or figure. ``recorded`` and
    ``computed``: as text, "" where there is no value. ``reason``: why it is not checkable, or more on a difference."""

    part: str
    what: str
    state: str
    recorded: str = ""
    computed: str = ""
    reason: str = ""

    def sentence(self) -> str:
        values = f": recorded {self.recorded}, computed {self.computed}" if self.recorded or self.computed else ""
        return f"{self.part}: {self.what}{values}{f': {self.reason}' if self.reason else ''}"


@dataclass(frozen=True)
class JudgedSweep:
    """A sweep, the payload with which its last leaderboard ended, and the ``seq`` of that event."""

    sweep: Sweep
    record: Mapping[str, Any]
    until: int

    @property
    def version(self) -> int:
        return int(self.record.get("statistics", 1))


class Unreadable(Exception):
    """A file that a comparison needs cannot be read."""

    def __init__(self, part: str, what: str, reason: str) -> None:
        super().__init__(reason)
        self.part, self.what, self.reason = part, what, reason


def compare(part: str, what: str, recorded: Any, computed: Any, reason: str = "") -> Check:
    """Compare two values: numbers in every digit, anything else exactly."""
    if isinstance(recorded, float) and isinstance(computed, int | float):
        same = figures.equal(recorded, float(computed))
    else:
        same = type(recorded) is type(computed) and recorded == computed
    if same:
        return Check(part, what, EQUAL)
    return Check(part, what, DIFFERENT, as_text(recorded), as_text(computed), reason)


def as_text(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def number(value: Any) -> float:
    return math.nan if value is None else float(value)


def read_table(sweep: Sweep, path: Path, part: str) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except UNREADABLE as error:
        raise Unreadable(part, sweep.paths.name_of(path), in_words(error)) from error


def read_spec(sweep: Sweep) -> SweepSpec:
    """Read the sweep's ``spec.yaml``. Raises Unreadable."""
    from orchestrator.spec.load import load_spec

    try:
        return load_spec(str(sweep.paths.spec), check_machine=False)
    except (OrchError, *UNREADABLE) as error:
        raise Unreadable("choice of the winner", sweep.paths.name_of(sweep.paths.spec), in_words(error)) from error


def read_arrays(sweep: Sweep, path: Path, part: str) -> dict[str, np.ndarray]:
    import zipfile
    import zlib

    try:
        with np.load(io.BytesIO(path.read_bytes())) as stored:
            return dict(stored)
    except (*UNREADABLE, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise Unreadable(part, sweep.paths.name_of(path), in_words(error)) from error


def in_words(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    return f"cannot be read: {' '.join(str(error).split())[:200] or type(error).__name__}"


def read_manifest(sweep: Sweep) -> tuple[pd.DataFrame, list[str]]:
    """Read the manifest's table, and its classes from the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(sweep.paths.manifest)
        texts = [text for key, text in (table.schema.metadata or {}).items() if key != b"pandas"]
        about = next(json.loads(text) for text in texts if b'"classes"' in text)
        return table.to_pandas(), list(about["classes"])
    except (pa.ArrowException, *UNREADABLE) as error:
        raise Unreadable("data", sweep.paths.name_of(sweep.paths.manifest), in_words(error)) from error


def hashes_of_test(sweep: Sweep) -> list[str]:
    table, _ = read_manifest(sweep)
    return table.loc[table["split"] == "test", "sha256"].tolist()


def groups_of_test(sweep: Sweep) -> list[str]:
    table, _ = read_manifest(sweep)
    return table.loc[table["split"] == "test", "group"].tolist()


def labels_of_test(sweep: Sweep, classes: Sequence[str]) -> np.ndarray:
    table, _ = read_manifest(sweep)
    return np.array([classes.index(label) for label in table.loc[table["split"] == "test", "label"]])


def winner_on_test(judged: JudgedSweep, part: str) -> np.ndarray:
    """Return the winner's probabilities on test before calibration, float64 (photos, classes): its networks' mean."""
    paths, policy = judged.sweep.paths, judged.record["judged"]["policy"]
    fits = judged.record["fits"]
    members = [read_arrays(judged.sweep, paths.probabilities(fit, "test", policy), part) for fit in fits]
    return np.asarray(np.mean([member["probabilities"].astype(float) for member in members], axis=0))


def unknown_version(judged: JudgedSweep) -> str:
    return f"this audit does not know version {judged.version} of the statistics"
