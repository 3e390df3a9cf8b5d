"""The calibrations below the cache, one JSON file per machine, so that later plans of a space measure nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import OrchError
from orchestrator.machine.environment import cpu_model, gpu_names, package_versions
from orchestrator.plan.calibration import Calibration
from orchestrator.spec.slots import Slots
from trainers.files.atomic import atomic_write_text
from trainers.training.load import cores


@dataclass(frozen=True)
class CalibrationFile:
    """The calibration of one machine in the cache.

    ``settled``: digests of earlier requests, so that parts that did not fit in the time are estimated rather than
    measured by every further plan. ``data``: identity of the decoded photos, "" for any; other data has other sizes
    and formats.
    """

    calibration: Calibration
    settled: frozenset[str] = frozenset()
    data: str = ""

    def of(self, data: str) -> Calibration:
        """Return the calibration, without decoding times if they are of other data."""
        return self.calibration if self.data in ("", data) else replace(self.calibration, decode_s={})


def machine_name(slots: Slots, address: str = "") -> str:
    """Return what the figures depend on except the parts, as one readable line."""
    threads = max(1, int(slots.cpus))
    each = f"{threads} thread{'s' * (threads > 1)}" + (f" and {slots.gpus:g} GPU" if slots.gpus else "")
    versions = package_versions(("tensorflow", "orch"))
    parts = [cpu_model(), f"{cores()} cores", ", ".join(gpu_names()) or "no GPU"]
    parts += [f"{slots.workers} worker{'s' * (slots.workers > 1)} of {each}"]
    parts += [f"{name} {version}" for name, version in versions.items()]
    return "; ".join([*parts, *([f"cluster {address}"] if address else [])])


FOLDER = "calibration"
"""Folder of the calibrations in the cache."""


def calibration_path(cache: Path, machine: str) -> Path:
    return cache / FOLDER / f"{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Create ``folder``; turn an OSError of that, or inside, into an OrchError that says what to do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OrchError(
            f"the calibration cannot be kept in {folder} ({error.strerror or error}); make it writable, free some "
            "space there, or set ORCH_CACHE to a folder of your own."
        ) from error


def read_calibration(cache: Path, machine: str) -> CalibrationFile | None:
    """Read the calibration of ``machine``; None if there is none or the file is damaged."""
    try:
        raw = json.loads(calibration_path(cache, machine).read_text())
        settled, data = frozenset(map(str, raw["settled"])), str(raw.get("data", "unknown"))
        found = CalibrationFile(Calibration.from_dict(raw["calibration"]), settled, data)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if found.calibration.machine == machine else None


def write_calibration(cache: Path, kept: CalibrationFile) -> Path:
    """Write ``kept`` below the cache. Raises OrchError if that fails."""
    file = calibration_path(cache, kept.calibration.machine)
    content = {"calibration": kept.calibration.to_dict(), "settled": sorted(kept.settled), "data": kept.data}
    text = json.dumps(content, indent=1)
    with writing_to(file.parent):
        atomic_write_text(file, text)
    return file
