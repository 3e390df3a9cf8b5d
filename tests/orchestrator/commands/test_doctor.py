"""What `orch doctor` finds, with folders and programs that are really there or really not."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from orchestrator.commands import doctor
from trainers.wording import GB


def test_a_machine_that_can_run_a_sweep_has_no_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    findings = doctor.examine({}, tmp_path)
    assert [f for f in findings if f.level == "problem"] == []
    packages = next(f for f in findings if f.subject == "packages")
    assert "tensorflow 2." in packages.text
    assert "ray 2." in packages.text
    assert next(f for f in findings if f.subject == "MLflow").text.endswith("is created by the first sweep.")


def test_a_missing_package_is_a_problem_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "no-such-package"))
    missing = [f for f in doctor._packages() if f.level == "problem"]
    assert [f.text for f in missing] == ["missing: no-such-package"]
    assert "make setup" in missing[0].advice


@pytest.mark.parametrize(
    ("script", "level", "text"),
    [
        (None, "note", "none (no nvidia-smi)"),
        ("echo 'Tesla P100, 16384 MiB'", "OK", "Tesla P100, 16384 MiB"),
        ("echo 'driver mismatch' >&2; exit 9", "problem", "nvidia-smi fails: driver mismatch"),
    ],
)
def test_the_gpu_is_asked_for_without_tensorflow(
    script: str | None, level: str, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if script is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    if script is not None:
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    found = doctor._gpu()
    assert (found.level, found.text) == (level, text)


def test_disk_speaks_of_the_folder_that_would_be_made(tmp_path: Path) -> None:
    found = doctor.disk("disk, cache", tmp_path / "not" / "yet")
    assert found.level in ("OK", "note")
    assert str(tmp_path / "not" / "yet") in found.text
    assert not (tmp_path / "not").exists()


def test_a_file_where_a_folder_should_be_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    found = doctor.disk("disk, cache", tmp_path / "cache" / "orch")
    assert (found.level, found.advice) == ("problem", "set ORCH_CACHE to another folder")


@pytest.mark.parametrize(("free_gb", "level"), [(0.5, "problem"), (5, "note"), (50, "OK")])
def test_little_free_disk_is_said(free_gb: float, level: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free_gb * GB))
    assert doctor.disk("disk, here", tmp_path).level == level


def test_a_server_that_does_not_answer_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    found = doctor._mlflow()
    assert found.level == "problem"
    assert "no MLflow server answers at http://127.0.0.1:9" in found.text
    assert "orch sync" in found.advice


def test_shared_folders_are_reported_by_what_lies_in_them(tmp_path: Path) -> None:
    def look(value: str | None) -> doctor.Finding:
        return doctor.shared_folder("ORCH_DATA", {} if value is None else {"ORCH_DATA": value}, "photos")

    assert look(None).level == "note"
    assert look(str(tmp_path / "no")).level == "problem"
    assert look(str(tmp_path)).text == f"{tmp_path} is empty"
    for name in "abcdefg":
        (tmp_path / name).mkdir()
    assert look(str(tmp_path)).text == f"{tmp_path}: a, b, c, d, e and 2 more"


def test_findings_are_printed_with_advice_below_and_the_sum_at_the_end() -> None:
    text = io.StringIO()
    findings = [doctor.Finding("OK", "cores", "2 usable"), doctor.Finding("problem", "disk", "full", "free some")]
    doctor.print_findings(findings, Console(file=text, width=80))
    assert text.getvalue().splitlines() == [
        "OK      cores  2 usable",
        "problem disk   full",
        "               free some",
        "1 problem to fix before a sweep.",
    ]


def test_sweeps_of_an_older_version_are_named_and_need_nothing(tmp_path: Path) -> None:
    assert doctor._sweeps(tmp_path) == []
    for name, stage in (("new", "prefill"), ("old", "build")):
        ledger = tmp_path / "runs" / name / "ledger"
        ledger.mkdir(parents=True)
        rows = pa.Table.from_pylist([{"stage": stage, "payload": "{}"}])
        pq.write_table(rows, ledger / "0.parquet")
    (found,) = doctor._sweeps(tmp_path)
    assert (found.level, found.subject) == ("OK", "sweeps")
    assert "1 sweep of an older version: old" in found.text


def test_a_sweep_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    ledger = tmp_path / "runs" / "torn" / "ledger"
    ledger.mkdir(parents=True)
    (ledger / "0.parquet").write_bytes(b"no parquet")
    (found,) = doctor._sweeps(tmp_path)
    assert found.level == "problem"
    assert "torn" in found.text
    assert "orch show" in found.advice
