"""Record benchmark results in benchmarks/results.json, and generate RESULTS.md from it.

Every benchmark is ``python -m benchmarks.NAME [--small]`` and ends with ``record``. RESULTS.md is never edited by hand:
it holds the last run of each benchmark at each size, with its date, machine and commit.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from trainers.files.atomic import atomic_write_text

FOLDER = Path(__file__).resolve().parents[1]
RECORD, PAGE = "results.json", "RESULTS.md"
SIZES = ("full", "small")
ORDER = ("head_only", "mixed_depth", "mixed_depth_warm", "all_layers", "floor", "overhead", "startup", "inference")
"""The order on the page; others follow by name."""
VERSIONS = ("tensorflow", "keras", "ray", "keras-tuner", "mlflow", "optuna")


@dataclass(frozen=True)
class Bound:
    """A second figure with a target of its own, to be at most that."""

    label: str
    figure: float
    unit: str
    target: float

    @property
    def reached(self) -> bool:
        return is_reached(self.figure, self.target, at_least=False)

    @property
    def shown(self) -> str:
        return figure_text(self.figure, self.unit, self.target, at_least=False)


@dataclass(frozen=True)
class Result:
    """One run of a benchmark.

    ``figure`` in ``unit`` ("x" for a ratio, else "s", "KB" ...) is compared with ``target``: reached from there upwards
    with ``at_least``, from there downwards without; None where there is none, as at the small size. ``also``: further
    figures with targets. ``rows``: (label, value) of everything else that was measured, as text. ``notes``: sentences,
    separated by blank lines.
    """

    name: str
    figure: float
    unit: str = "x"
    target: float | None = None
    at_least: bool = True
    size: str = "full"
    rows: tuple[tuple[str, str], ...] = ()
    notes: str = ""
    also: tuple[Bound, ...] = ()

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"a result's size is {' or '.join(SIZES)}, not {self.size!r}.")

    @property
    def reached(self) -> bool:
        """Whether every figure, not rounded, is at or past its target. A figure without one is."""
        return self.reached_alone and all(bound.reached for bound in self.also)

    @property
    def reached_alone(self) -> bool:
        """The same of the figure itself."""
        return is_reached(self.figure, self.target, self.at_least)

    @property
    def line(self) -> str:
        """Such as "head_only: 63.1x (target 60x)"."""
        aim = f"target {_with_unit(f'{self.target:g}', self.unit)}" if self.target is not None else "no target"
        if self.size != "full":
            aim = f"{self.size} size, {aim}"
        return f"{self.name}: {self.shown} ({aim})"

    @property
    def shown(self) -> str:
        """The figure as ``figure_text`` writes it."""
        return figure_text(self.figure, self.unit, self.target, self.at_least)


def is_reached(figure: float, target: float | None, at_least: bool) -> bool:
    """Whether ``figure`` is at or past ``target``; True without one."""
    if target is None:
        return True
    return figure >= target if at_least else figure <= target


def figure_text(figure: float, unit: str, target: float | None = None, at_least: bool = True) -> str:
    """Return ``figure`` with its unit, rounded to the nearest of three digits; above 100 to a whole number.

    It takes more digits where three would put it on the other side of its ``target``. Everything on the page that
    repeats a figure is written by this.
    """
    exact = Decimal(repr(float(figure)))
    for digits in range(3, 40):
        rounded = exact.quantize(Decimal(1).scaleb(min(0, exact.adjusted() - digits + 1)) if exact else Decimal(1))
        if is_reached(float(rounded), target, at_least) == is_reached(figure, target, at_least):
            break
    return _with_unit(f"{rounded:f}", unit)


def _with_unit(number: str, unit: str) -> str:
    return f"{number}x" if unit == "x" else f"{number} {unit}".strip()


def record(result: Result, folder: Path = FOLDER) -> bool:
    """Keep ``result`` in ``folder``, write the page again and print its lines; whether its targets are reached.

    The last result of the same name and size is replaced.
    """
    entry = {**dataclasses.asdict(result), "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}"}
    began = BEGAN if folder == FOLDER else Beginning.of(folder)
    entry |= {"machine": machine(), "commit": began.commit, "load": began.load, "versions": versions()}
    with FileLock(folder / f".{RECORD}.lock"):
        kept = read_record(folder)
        kept = {**kept, result.name: {**kept.get(result.name, {}), result.size: entry}}
        atomic_write_text(folder / RECORD, json.dumps(kept, indent=1) + "\n")
        atomic_write_text(folder / PAGE, page(kept))
    for bound in result.also:
        print(f"{result.name}, {bound.label}: {bound.shown} (target {_with_unit(f'{bound.target:g}', bound.unit)})")
    print(result.line, flush=True)
    return result.reached


def read_record(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Name -> size -> what ``record`` kept; empty where nothing was recorded."""
    path = folder / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


# Where it was measured


def machine() -> str:
    """The processor, the cores this process may use, the memory, and any GPU that a driver names."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gb = psutil.virtual_memory().total / 1e9
    return f"{_processor()}, {cores} cores, {memory_gb:.0f} GB, {platform.system()}, Python {platform.python_version()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


@functools.lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """The versions of what is compared, of those that are installed."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit(folder: Path = FOLDER) -> str:
    """The commit that ``folder`` stands at, with "and changes" where tracked files differ; "none" without git."""
    hash_ = _git(folder, "rev-parse", "--short=10", "HEAD")
    if not hash_:
        return "none"
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    ours = [line for line in changed.splitlines() if Path(line[3:]).name not in (RECORD, PAGE)]
    return f"{hash_} and changes" if ours else hash_


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return ""
    return done.stdout.rstrip() if done.returncode == 0 else ""


@dataclass(frozen=True)
class Beginning:
    """What holds when a program begins, minutes before it records: the commit, and how busy the machine was (the load
    average over a minute)."""

    commit: str
    load: float

    @classmethod
    def of(cls, folder: Path) -> Beginning:
        return cls(commit(folder), round(os.getloadavg()[0], 2))


BEGAN = Beginning.of(FOLDER)
"""Taken when a benchmark is imported: a commit that is made while it runs must not get its figures."""


# The page


def page(kept: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """RESULTS.md for what ``read_record`` gives. Pure."""
    lines = [
        "# Benchmarks",
        "",
        "Written by the programs in `benchmarks/`, never by hand; each entry is the last run of that benchmark at that",
        "size. `python -m benchmarks.NAME` runs one at full size, `make bench` runs all at a small size, where figures",
        "say that everything works and little more. Ratios against a peer are in favour of orch above 1x; `floor` and",
        "`dearer` say how many times as long something takes, so that 1x is the best there is.",
        "",
    ]
    titles = {"full": "Full size", "small": "Small size"}
    for size in SIZES:
        entries = {name: sizes[size] for name, sizes in sorted(kept.items(), key=_place) if size in sizes}
        lines += [f"## {titles[size]}", ""]
        lines += _section(entries) if entries else ["Not run yet.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _place(item: tuple[str, Any]) -> tuple[int, str]:
    name = item[0]
    return (ORDER.index(name) if name in ORDER else len(ORDER)), name


def _section(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = ["| benchmark | figure | target | | date | commit |", "|---|---|---|---|---|---|"]
    results = {name: _result_of(entry) for name, entry in entries.items()}
    for name, entry in entries.items():
        result = results[name]
        aim, verdict = "none", ""
        if result.target is not None:
            bound = "at least" if result.at_least else "at most"
            aim = f"{bound} {_with_unit(f'{result.target:g}', result.unit)}"
            verdict = _verdict(result.reached_alone)
        lines.append(f"| `{name}` | {result.shown} | {aim} | {verdict} | {entry['date']} | {entry['commit']} |")
        for second in result.also:
            aim, verdict = f"at most {_with_unit(f'{second.target:g}', second.unit)}", _verdict(second.reached)
            lines.append(f"| `{name}`, {second.label} | {second.shown} | {aim} | {verdict} | | |")
    lines.append("")
    for name, entry in entries.items():
        lines += _details(name, entry)
    return lines


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def _details(name: str, entry: Mapping[str, Any]) -> list[str]:
    installed = ", ".join(f"{package} {version}" for package, version in entry["versions"].items())
    busy = f" Load average when it began: {entry['load']:g}." if "load" in entry else ""
    lines = [f"### {name}", "", f"{entry['machine']}; {installed}.{busy}", ""]
    if entry["rows"]:
        lines += ["| | |", "|---|---|", *(f"| {_cell(label)} | {_cell(value)} |" for label, value in entry["rows"]), ""]
    return lines + ([entry["notes"], ""] if entry["notes"] else [])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _result_of(entry: Mapping[str, Any]) -> Result:
    names = {field.name for field in dataclasses.fields(Result)}
    values = {name: value for name, value in entry.items() if name in names}
    rows = tuple((label, value) for label, value in entry["rows"])
    return Result(**{**values, "rows": rows, "also": tuple(Bound(**bound) for bound in entry.get("also", ()))})
