"""What nvidia-smi is asked and how its answers are read; the program is a script that notes its arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import OrchError
from orchestrator.machine.gpu_memory import smallest_gpu_gb


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of a program called nvidia-smi, alone on the path but for the shell's; all devices are visible."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "nvidia-smi"


def answer(program: Path, body: str) -> Path:
    """Write the program; returns the file that its arguments go to."""
    asked = program.with_name("asked")
    program.write_text(f'#!/bin/sh\necho "$@" > {asked}\n{body}\n')
    program.chmod(0o755)
    return asked


@pytest.mark.parametrize(
    ("visible", "ids"),
    [
        (None, None),
        ("0", "0"),
        ("2, 0", "2,0"),
        ("GPU-8932f937-d72c,1", "GPU-8932f937-d72c,1"),
        ("1,-1,0", "1"),
    ],
)
def test_only_the_visible_devices_are_asked(
    program: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, ids: str | None
) -> None:
    asked = answer(program, "echo 81920; echo 15360")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert smallest_gpu_gb() == 16.1
    words = asked.read_text().split()
    assert words[:2] == ["--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    assert words[2:] == ([] if ids is None else [f"--id={ids}"])


@pytest.mark.parametrize("visible", ["", " ", "-1", "NoDevFiles"])
def test_hidden_devices_are_none_and_no_driver_is_asked(
    program: Path, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    asked = answer(program, "echo 15360")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert smallest_gpu_gb() == 0.0
    assert not asked.exists()


@pytest.mark.parametrize("ending", ["", "; exit 6", " >&2; exit 6"])
def test_a_driver_without_a_device_is_no_gpu(program: Path, ending: str) -> None:
    answer(program, f"echo 'No devices were found'{ending}")
    assert smallest_gpu_gb() == 0.0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo 'no driver' >&2; exit 9", r"\(no driver\)"),
        ("echo 15360; exit 3", r"\(.*exit status 3\.?\)"),
        ("echo '[N/A]'", r"\(could not convert string to float: '\[N/A\]'\)"),
        ("true", r"\(.*empty.*\)"),
    ],
)
def test_anything_else_is_a_sentence_that_names_both_ways_on(program: Path, body: str, said: str) -> None:
    answer(program, body)
    with pytest.raises(OrchError, match=said) as error:
        smallest_gpu_gb()
    assert "--set resources.gpu_memory_gb=16" in str(error.value)
    assert "--set resources.gpu_memory_gb=0" in str(error.value)
