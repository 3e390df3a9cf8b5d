"""The two ways to install orch that the road is walked with: editable, and as a wheel in a fresh environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "trainers", "dashboards", "search_spaces")
EXTRAS = "onnx,convert"
LEFT_OUT = (".git", ".venv*", "runs", "build", "*.egg-info", "__pycache__", "mlflow.db", "mlartifacts", ".*_cache")


def editable() -> Path:
    """The environment of this Python, in which orch is installed editable. Raises AssertionError where it is not."""
    venv = Path(sys.prefix)
    assert (venv / "bin" / "orch").is_file(), f"{venv} has no orch; make setup installs it"
    found = imported_from(venv, venv)
    assert found == {name: ROOT / name for name in PACKAGES}, f"orch in {venv} is not this checkout: {found}"
    return venv


def wheel(folder: Path, python: str) -> Path:
    """A fresh environment in ``folder`` with the checkout's wheel, its extras and the pins of constraints.txt."""
    source, venv = copy_of_checkout(folder / "source"), folder / "venv"
    _run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source))
    (built,) = folder.glob("orch-*.whl")
    _run(python, "-m", "venv", str(venv))
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    _run(*pip, "-c", str(ROOT / "constraints.txt"), f"{built}[{EXTRAS}]")
    return venv


def assert_no_checkout(venv: Path, folder: Path) -> None:
    """Raises AssertionError where a Python of ``venv`` in ``folder`` sees the checkout, or orch from elsewhere."""
    for name, home in imported_from(venv, folder).items():
        assert home.parent.name == "site-packages", f"{name} is imported from {home}"
        assert home.is_relative_to(venv), f"{name} is imported from {home}"
    path = _python(venv, folder, "import sys; print(*sys.path, sep='\\n')").splitlines()
    inside = [entry for entry in path if entry and Path(entry).resolve().is_relative_to(ROOT)]
    assert not inside, f"the checkout is on sys.path: {inside}"


def imported_from(venv: Path, folder: Path) -> dict[str, Path]:
    """Package -> the folder that a Python of ``venv`` imports it from, started in ``folder``."""
    code = f"import importlib as i; [print(i.import_module(n).__path__[0]) for n in {PACKAGES!r}]"
    return dict(zip(PACKAGES, map(Path, _python(venv, folder, code).split("\n")), strict=False))


def copy_of_checkout(folder: Path) -> Path:
    """The files of the checkout without what was built or run there."""
    return Path(shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT)))


def _python(venv: Path, folder: Path, code: str) -> str:
    command = [str(venv / "bin" / "python"), "-c", code]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=True).stdout.strip()


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"$ {' '.join(command)}\n{done.stdout}"
