"""What a sweep says of the machine it ran on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.machine import environment


def test_the_facts_are_flat_text() -> None:
    facts = environment.describe_environment()
    assert facts["version.python"] == platform.python_version()
    assert 1 <= int(facts["machine.cores"]) <= (os.cpu_count() or 1)
    assert float(facts["machine.memory_gb"]) > 0
    assert {"version.mlflow", "version.ray", "version.tensorflow"} <= set(facts)
    assert all(isinstance(value, str) and value for value in facts.values())


def test_what_is_not_installed_is_left_out() -> None:
    assert set(environment.package_versions(("numpy", "no-such-package-at-all"))) == {"numpy"}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_of_the_current_folder_says_whether_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.setattr(environment, "__file__", str(tmp_path / "elsewhere" / "environment.py"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.git_commit() == ""
    (tmp_path / "file").write_text("one")
    git("init", "--quiet")
    git("add", "file")
    git("commit", "--quiet", "-m", "first")
    commit = git("rev-parse", "HEAD").strip()
    assert environment.git_commit() == commit
    (tmp_path / "file").write_text("two")
    assert environment.git_commit() == f"{commit}+changes"


def test_a_program_that_fails_or_is_missing_says_nothing() -> None:
    assert environment._first_line("no-such-program-at-all") == ""
    assert environment._first_line("false") == ""
    assert environment._first_line("echo", "a\nb") == "a"
