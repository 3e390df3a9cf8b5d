"""What this process runs on: machine, package versions, git commit. Written beside a sweep's results."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("orch", "ray", "tensorflow", "keras", "mlflow", "optuna", "numpy", "pandas", "pyarrow", "pillow")


def describe_environment() -> dict[str, str]:
    """Flat facts: ``machine.cores``, ``machine.memory_gb``, ``machine.gpu``, ``machine.system``, ``version.NAME``
    and, in a git checkout, ``git.commit``. What cannot be found out is left out.
    """
    facts = {
        "machine.cores": str(cores()),
        "machine.memory_gb": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f}",
        "machine.gpu": _first_line("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader") or "none",
        "machine.system": f"{platform.system()} {platform.machine()}",
        "version.python": platform.python_version(),
    }
    facts |= {f"version.{name}": version for name, version in package_versions(PACKAGES).items()}
    commit = git_commit()
    return facts | ({"git.commit": commit} if commit else {})


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions by distribution name; what is not installed is left out."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """The commit of this code's checkout, else of the current folder's, with ``+changes`` where files differ; or ""."""
    for folder in (Path(__file__).parent, Path.cwd()):
        commit = _first_line("git", "-C", str(folder), "rev-parse", "HEAD")
        if commit:
            changed = _first_line("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
            return commit + ("+changes" if changed else "")
    return ""


def cores() -> int:
    """The cores this process may use, which in a container can be fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """What the processor calls itself, or else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, named), platform.processor() or platform.machine())


def gpu_names() -> tuple[str, ...]:
    """The name of each GPU that nvidia-smi sees; () without one."""
    return _lines("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")


def gpu_capability() -> int:
    """The major compute capability of the first GPU; 0 without one, or where its driver does not say."""
    major = _first_line("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader").partition(".")[0].strip()
    return int(major) if major.isdigit() else 0


def _first_line(*command: str) -> str:
    """The first line a program prints, "" where there is none."""
    return next(iter(_lines(*command)), "")


def _lines(*command: str) -> tuple[str, ...]:
    """What a program prints, () where it is missing, fails or takes longer than 5 s."""
    if shutil.which(command[0]) is None:
        return ()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return ()
    return tuple(done.stdout.strip().splitlines()) if done.returncode == 0 else ()
