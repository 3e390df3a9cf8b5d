"""`orch doctor`: what this machine has for a sweep, and advice on what it lacks. Imports no vendor, starts nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from orchestrator.errors import OrchError
from orchestrator.ledger.compat import is_older
from orchestrator.ledger.folder import list_sweeps
from orchestrator.machine.environment import package_versions
from orchestrator.machine.places import ray_folder, unwritable
from orchestrator.paths import RUNS, SweepPaths, cache_folder, command_line
from orchestrator.spec.weight_places import FOLDER, PAGE
from orchestrator.tracking.mlflow_store import reachable
from trainers.backbones import BACKBONES
from trainers.files.lookup import obstacle
from trainers.networks.weight_sources import fits, is_cached, keras_cache, names_in, why_unreachable
from trainers.wording import GB, count, first_line

if TYPE_CHECKING:
    from rich.console import Console

Level = Literal["OK", "note", "problem"]

NEEDED = ("ray", "tensorflow", "keras", "mlflow", "optuna", "numpy", "pandas", "pyarrow", "pillow", "scikit-learn")
MEMORY_NOTE_GB = 4.0
"""GB of free memory below which a note is given: TensorFlow and Ray take about 2 GB before the first photo."""
DISK_PROBLEM_GB, DISK_NOTE_GB = 1.0, 10.0
"""GB of free disk below which a problem is reported, or a note given."""
SHARED_MEMORY_NOTE_GB = 0.5
"""GB of shared memory below which a note is given."""


@dataclass(frozen=True)
class Finding:
    """One line. ``subject``: a word or two. ``text``: what was found. ``advice``: what to do, or ""."""

    level: Level
    subject: str
    text: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def examine(environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> list[Finding]:
    """Return every finding in reading order. Takes about two seconds, or three if MLflow does not answer."""
    weight_files = "weight files; without it Keras downloads ImageNet's when asked to"
    checks: list[tuple[str, Callable[[], Finding | list[Finding]]]] = [
        ("Python", _python),
        ("packages", _packages),
        ("cores", _cores),
        ("memory", _memory),
        ("GPU", _gpu),
        ("shared memory", lambda: _shared_memory(Path("/dev/shm"))),
        ("disk, here", lambda: disk("disk, here", folder or _current_folder())),
        ("disk, cache", _cache),
        ("sweeps", lambda: _sweeps(folder or _current_folder())),
        ("home", lambda: _home(environment)),
        ("Ray", lambda: _ray(environment)),
        ("MLflow", _mlflow),
        ("ORCH_DATA", lambda: shared_folder("ORCH_DATA", environment, "photos named in a file as ${ORCH_DATA}/...")),
        (FOLDER, lambda: shared_folder(FOLDER, environment, weight_files)),
        ("weights", lambda: weights(environment)),
    ]
    return [finding for subject, check in checks for finding in _findings(subject, check)]


def _findings(subject: str, check: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    """Return what ``check`` finds; what the operating system refuses it is a problem of that subject alone."""
    try:
        found = check()
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return [Finding("problem", subject, f"cannot be checked: {place}{(error.strerror or str(error)).lower()}")]
    return found if isinstance(found, list) else [found]


def _current_folder() -> Path:
    """Raises OSError if the current folder was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise OSError("the current folder was removed; cd into another") from error


def _sweeps(folder: Path) -> list[Finding]:
    """Count the sweeps below ``folder``; report those of older versions and those that cannot be read."""
    found = list_sweeps(folder / RUNS)
    findings, older = [], []
    for sweep in found:
        try:
            if is_older(SweepPaths(sweep).ledger):
                older.append(sweep.name)
        except (OSError, ValueError) as error:
            show = command_line("show", sweep)
            advice = f"restore {sweep} from a copy, or move it away; `{show}` says what is damaged"
            findings.append(Finding("problem", "sweeps", f"{sweep} cannot be read: {first_line(error)}", advice))
    if older:
        text = f"{count(len(older), 'sweep')} of an older version: {', '.join(older)}"
        findings.append(Finding("OK", "sweeps", f"{text}; resume, extend, export and promote them as they are"))
    elif found and not findings:
        findings.append(Finding("OK", "sweeps", f"{count(len(found), 'sweep')} in {RUNS}/, none of an older version"))
    return findings


def weights(environment: Mapping[str, str]) -> Finding:
    """Count the backbones whose ImageNet weights are here; check whether Keras could download the others now."""
    folder = Path(environment.get(FOLDER, "")).expanduser() if environment.get(FOLDER) else None
    rows = [row for row in BACKBONES.values() if row.files]
    names, cached = () if folder is None else names_in(folder), names_in(keras_cache())
    own = {row.name for row in rows if fits(row, names)}
    kept = {row.name for row in rows if row.name not in own and is_cached(row, [row.native_size], cached)}
    rest = [row for row in rows if row.imagenet and row.name not in own | kept]
    to_convert = len([row for row in rows if not row.imagenet and row.name not in own | kept])
    where = [*([f"{len(own)} in {FOLDER}"] if own else []), f"{len(kept)} in {keras_cache()}"]
    where += [f"{to_convert} to be converted first ({PAGE})"] if to_convert else []
    text = f"ImageNet weights of {len(rows)} backbones: {', '.join(where)}"
    if rest and (reason := why_unreachable()):
        advice = (
            f"export {FOLDER}=/path/to/weights ({PAGE} says where to get files); `orch weights list` shows the files"
        )
        return Finding("note", "weights", f"{text}; the others cannot be downloaded: {reason}", advice)
    return Finding("OK", "weights", f"{text}; the others can be downloaded" if rest else text)


def print_findings(findings: list[Finding], console: Console) -> None:
    """Print a line for each finding, its advice below it, and a summary."""
    from rich.text import Text

    styles = {"OK": "green", "note": "yellow", "problem": "bold red"}
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        line = Text.assemble(
            (f"{finding.level:<8}", styles[finding.level]), f"{finding.subject.ljust(width)}  {finding.text}"
        )
        console.print(line, soft_wrap=True)
        if finding.advice:
            console.print(Text(" " * (10 + width) + finding.advice), soft_wrap=True)
    problems = sum(finding.level == "problem" for finding in findings)
    console.print(
        "ready for a sweep: `orch sweep quick`"
        if not problems
        else f"{count(problems, 'problem')} to fix before a sweep."
    )


def _python() -> Finding:
    return Finding(
        "OK", "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    )


def _packages() -> list[Finding]:
    found = package_versions(("orch", *NEEDED))
    missing = [name for name in NEEDED if name not in found]
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    findings = [Finding("OK", "packages", listed)] if found else []
    if missing:
        findings.append(
            Finding(
                "problem", "packages", f"missing: {', '.join(missing)}", "run `make setup`, or `pip install orch` again"
            )
        )
    return findings


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    installed = os.cpu_count() or usable
    text = f"{usable} usable" + (f" of {installed}" if installed != usable else "")
    if usable < 2:
        return Finding("note", "cores", text, "one core trains and schedules in turn; two are about twice as quick")
    return Finding("OK", "cores", text)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    text = f"{memory.total / GB:.1f} GB, {memory.available / GB:.1f} GB free"
    if memory.available / GB < MEMORY_NOTE_GB:
        return Finding(
            "note", "memory", text, f"below {MEMORY_NOTE_GB:.0f} GB run one trial at a time: --set budget.concurrent=1"
        )
    return Finding("OK", "memory", text)


def _gpu() -> Finding:
    """Ask nvidia-smi, so that TensorFlow need not start."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding("note", "GPU", "none (no nvidia-smi)", "the same files run on the CPUs, small networks best")
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("problem", "GPU", f"nvidia-smi does not answer: {error}", "check the driver")
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0 or not lines:
        reason = " ".join((done.stderr or done.stdout).split())[:200]
        return Finding("problem", "GPU", f"nvidia-smi fails: {reason}", "check the driver; without a GPU unload it")
    return Finding("OK", "GPU", "; ".join(lines))


def _shared_memory(device: Path) -> list[Finding]:
    """Check the folder of Ray's object store, which has 64 MB in a container by default."""
    if not device.is_dir():
        return []
    total_gb = shutil.disk_usage(device).total / GB
    if total_gb >= SHARED_MEMORY_NOTE_GB:
        return []
    return [
        Finding(
            "note",
            "shared memory",
            f"{device} has {total_gb * 1024:.0f} MB; Ray falls back to a slower folder",
            "start the container with --shm-size=1g",
        )
    ]


def disk(subject: str, folder: Path) -> Finding:
    """Check the free space at ``folder``, or where it would be made, and whether it is writable."""
    if why := obstacle(folder):
        return Finding("problem", subject, f"{folder} cannot be used: {why}", _elsewhere(subject))
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        return Finding("problem", subject, f"{there} is a file, so {folder} cannot be made", _elsewhere(subject))
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding("problem", subject, f"{there} is not writable", _elsewhere(subject))
    free_gb = shutil.disk_usage(there).free / GB
    text = f"{free_gb:.0f} GB free at {folder}"
    if free_gb < DISK_PROBLEM_GB:
        return Finding("problem", subject, f"{free_gb:.1f} GB free at {folder}", f"free some; {_elsewhere(subject)}")
    if free_gb < DISK_NOTE_GB:
        return Finding("note", subject, text, "enough for the quick sweep; stored features of many photos need more")
    return Finding("OK", subject, text)


def _cache() -> Finding:
    try:
        return disk("disk, cache", cache_folder())
    except OrchError as error:
        return Finding("problem", "disk, cache", str(error))


def _home(environment: Mapping[str, str]) -> list[Finding]:
    """Check for a home folder that is not writable, as in containers and batch jobs."""
    home = environment.get("HOME")
    why = unwritable(Path(home)) if home else ""
    if not why:
        return []
    advice = "" if environment.get("ORCH_CACHE") else "set ORCH_CACHE to a folder for stored features"
    return [Finding("note", "home", f"{home}: {why}; a sweep needs nothing there but the cache", advice)]


def _ray(environment: Mapping[str, str]) -> Finding:
    """Check the folder for the sockets of a local Ray."""
    try:
        return Finding("OK", "Ray", f"sockets and logs in {ray_folder(environment)}")
    except OrchError as error:
        return Finding("problem", "Ray", str(error))


def _elsewhere(subject: str) -> str:
    return "set ORCH_CACHE to another folder" if "cache" in subject else "run in another folder, or give --out"


def _mlflow() -> Finding:
    answers, sentence = reachable()
    if answers:
        return Finding("OK", "MLflow", sentence)
    return Finding(
        "problem", "MLflow", sentence, "a sweep runs without it and keeps everything; `orch sync` sends it later"
    )


def shared_folder(name: str, environment: Mapping[str, str], purpose: str) -> Finding:
    """Check whether the variable ``name`` is set, and what its folder holds."""
    value = environment.get(name)
    if not value:
        return Finding("note", name, f"not set ({purpose})", f"export {name}=FOLDER when a file names it")
    folder = Path(value).expanduser()
    if why := obstacle(folder):
        return Finding("problem", name, f"{value} cannot be read: {why}", f"set {name} to another folder, or unset it")
    if not os.access(folder, os.R_OK | os.X_OK) and folder.is_dir():
        return Finding("problem", name, f"{value} cannot be listed", f"set {name} to another folder, or unset it")
    if not folder.is_dir():
        return Finding("problem", name, f"{value} is no folder", f"set {name} to a folder that exists, or unset it")
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if not names:
        return Finding("note", name, f"{folder} is empty", purpose)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return Finding("OK", name, f"{folder}: {', '.join(names[:5])}{more}")
