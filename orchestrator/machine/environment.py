"""The machine, package versions and git commit of this process, recorded with a sweep's results."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from trainers.training.load import cores

PACKAGES = ("orch", "ray", "tensorflow", "keras", "mlflow", "optuna", "numpy", "pandas", "pyarrow", "pillow")


def describe_environment() -> dict[str, str]:
    """Return ``machine.cores``, ``machine.memory_gb``, ``machine.gpu``, ``machine.system``, ``version.NAME`` and, in a
    git checkout, ``git.commit``. Unknown facts are left out.
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
    """Return installed versions by distribution; those not installed are left out."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """Return the commit of this checkout, else of the current folder's, with ``+changes`` if files differ; or ""."""
    for folder in (Path(__file__).parent, Path.cwd()):
        commit = _first_line("git", "-C", str(folder), "rev-parse", "HEAD")
        if commit:
            changed = _first_line("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
            return commit + ("+changes" if changed else "")
    return ""


def cpu_model() -> str:
    """Return the processor's model name, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, named), platform.processor() or platform.machine())


def gpu_names() -> tuple[str, ...]:
    """Return the name of each GPU that nvidia-smi lists; () without one."""
    return _lines("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")


def gpu_capability() -> int:
    """Return the major compute capability of the first GPU; 0 without one, or if its driver does not report it."""
    major = _first_line("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader").partition(".")[0].strip()
    return int(major) if major.isdigit() else 0


def _first_line(*command: str) -> str:
    """Return the first line a program prints, or ""."""
    return next(iter(_lines(*command)), "")


def _lines(*command: str) -> tuple[str, ...]:
    """Return the lines a program prints; () if it is missing, fails or takes longer than 5 s."""
    if shutil.which(command[0]) is None:
        return ()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return ()
    return tuple(done.stdout.strip().splitlines()) if done.returncode == 0 else ()
