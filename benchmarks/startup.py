"""How long a person waits: for ``orch --help``, for ``orch check``, and for the first epoch of ``orch sweep quick``.

    python -m benchmarks.startup            # about five minutes on two idle cores
    python -m benchmarks.startup --small

Each command runs in a fresh process and an empty folder, several times; the median counts, from the start of the
process to its end, or to the line that tells of the first epoch. Python's own compiled files are there, as they are
from the second run on. The sweep starts with an empty cache, Ray, its workers and TensorFlow in them, and MLflow's
database included. Where its time goes is printed from the lines that the sweep itself prints.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.keras_home import fill_keras_home
from benchmarks.common.results import Bound, Result, record
from benchmarks.common.sides import hold_cores

ROOT = Path(__file__).resolve().parent.parent
HELP_S, CHECK_S, EPOCH_S = 0.3, 0.6, 20.0
MILESTONES = {
    "sweep ": "the folder is open",
    "data     1": "the data is read",
    "machine": "Ray is up",
    "search   first epoch": "the first epoch has ended",
}
"""How a line begins -> what has happened by then."""


@dataclass(frozen=True)
class Times:
    """Seconds of each run, in the order of the runs. ``steps``: milestone -> seconds since the command."""

    seconds: tuple[float, ...]
    steps: Mapping[str, tuple[float, ...]]

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    def words(self, target_s: float) -> str:
        return f"{self.median_s:.2f} s, {min(self.seconds):.2f} to {max(self.seconds):.2f} (target {target_s:g} s)"


def breakdown(steps: Mapping[str, Sequence[float]]) -> str:
    """Such as "0.5 s until the folder is open, then 2.0 s until Ray is up", of the medians. Pure."""
    words, before = [], 0.0
    for name, seconds in steps.items():
        at = statistics.median(seconds)
        words.append(f"{at - before:.1f} s until {name}")
        before = at
    return ", then ".join(words)


def time_command(arguments: Sequence[str], times: int) -> Times:
    """Run ``orch`` to its end so many times. SystemExit where it fails."""
    found = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            environment = _environment(folder)
            began_s = time.monotonic()
            ended = subprocess.run(_orch(arguments), cwd=folder, env=environment, capture_output=True, text=True)
            found.append(time.monotonic() - began_s)
        if ended.returncode:
            raise SystemExit(f"orch {' '.join(arguments)} failed:\n{ended.stdout}{ended.stderr}")
    return Times(tuple(found), {})


def time_first_epoch(times: int) -> Times:
    """Run the search of the shipped sweep ``quick`` and note when its lines come. SystemExit where it fails."""
    steps: dict[str, list[float]] = {name: [] for name in MILESTONES.values()}
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            _watch(folder, steps)
    last = list(steps.values())[-1]
    return Times(tuple(last), {name: tuple(seconds) for name, seconds in steps.items()})


def _watch(folder: str, steps: Mapping[str, list[float]]) -> None:
    environment = _environment(folder)
    began_s = time.monotonic()
    sweep = subprocess.Popen(
        _orch(["sweep", "quick", "--until", "search"]),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert sweep.stdout is not None
    lines, seen = [], set()
    for line in sweep.stdout:
        lines.append(line)
        for start, name in MILESTONES.items():
            if line.startswith(start) and name not in seen:
                seen.add(name)
                steps[name].append(time.monotonic() - began_s)
    if sweep.wait() or seen != set(steps):
        raise SystemExit(f"orch sweep quick failed:\n{''.join(lines)}")


def _orch(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "orchestrator", *arguments]


def _environment(folder: str) -> dict[str, str]:
    """An empty cache and store, the folder and the weights that ``full`` asks for; a check opens no weight file."""
    Path(folder, "senet50_notop.h5").touch()
    path = os.pathsep.join(entry for entry in (str(ROOT), os.environ.get("PYTHONPATH", "")) if entry)
    own = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "ORCH_CACHE": f"{folder}/cache"}
    own |= {"ORCH_PHOTOS": folder, "ORCH_SENET50": folder, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    own |= {"KERAS_HOME": str(fill_keras_home(Path(folder, "keras")))}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | own


def main() -> int:
    """Run and record it; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="fewer runs of each")
    small = parser.parse_args().small
    hold_cores()
    short, long = (3, 1) if small else (11, 5)
    time_command(["--help"], 1)  # compiles what was not compiled
    full = str(ROOT / "search_spaces" / "full.yaml")
    pages, check = time_command(["--help"], short), time_command(["check", full], short)
    quick, epoch = time_command(["check", "quick"], short), time_first_epoch(long)
    rows = (
        ("orch --help", pages.words(HELP_S)),
        ("orch check search_spaces/full.yaml", check.words(CHECK_S)),
        ("orch check quick", quick.words(CHECK_S)),
        ("orch sweep quick, first epoch", epoch.words(EPOCH_S)),
        ("where that goes", breakdown(epoch.steps)),
    )
    for label, value in rows:
        print(f"{label}: {value}")
    also = (
        Bound("orch check", max(check.median_s, quick.median_s), "s", CHECK_S),
        Bound("first epoch of a quick sweep", epoch.median_s, "s", EPOCH_S),
    )
    notes = f"Medians of {short} runs, of {long} for the sweep; the figure is that of orch --help."
    size = "small" if small else "full"
    return 0 if record(Result("startup", pages.median_s, "s", HELP_S, False, size, rows, notes, also)) else 1


if __name__ == "__main__":
    sys.exit(main())
