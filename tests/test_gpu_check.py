"""``make gpu-check`` without a GPU: its parsing, its decisions, and the parts that a CPU can run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import gpu_check
from tests.support.gpu_check import Finding, Gpu
from tests.support.places import ROOT

TWO = "NVIDIA A100-SXM4-40GB, 40960, 412, 0\nTesla T4, 15360, [N/A], 37\n"


def test_nvidia_smi_is_parsed():
    assert gpu_check.parse_gpus(TWO) == [Gpu("NVIDIA A100-SXM4-40GB", 40960, 412, 0), Gpu("Tesla T4", 15360, 0, 37)]
    assert gpu_check.parse_gpus("A, B, 1, 2, 3\n\n") == [Gpu("A, B", 1, 2, 3)]
    for wrong, why in (("No devices were found", "not a line of nvidia-smi"), ("name, 1, 2, three", "invalid literal")):
        with pytest.raises(ValueError, match=why):
            gpu_check.parse_gpus(wrong)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "nvidia-smi is not installed"),
        ("echo No devices were found; exit 6", "lists no GPU: No devices were found"),
        ("echo No devices were found", "lists no GPU: No devices were found"),
        ("exit 0", "lists no GPU: no output"),
    ],
)
def test_without_a_gpu_the_reason_is_said_and_the_exit_code_is_0(tmp_path, monkeypatch, capsys, script, reason):
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) if script is None else f"{tmp_path}:/usr/bin:/bin")
    assert gpu_check.main([]) == 0
    assert capsys.readouterr().out.startswith("nothing was checked: ")
    assert reason in gpu_check.gpus()[1]


def test_a_gpu_is_sampled(tmp_path):
    seen = iter(gpu_check.parse_gpus("a, 100, 10, 0\na, 100, 70, 80\na, 100, 30, 90\n") * 100)
    with gpu_check.Watch(lambda: [next(seen)], every_s=0.01) as watch:
        while len(watch.used_mb) < 3:
            pass
    assert watch.most_mb == 70
    assert watch.utilisation[:3] == [0, 80, 90]


@pytest.mark.parametrize(("samples", "busy"), [([], 0), ([0, 0], 0), ([0, 80, 90, 0, 85], 85), ([100], 100)])
def test_utilisation_counts_while_the_gpu_works(samples, busy):
    assert gpu_check.busy_share(samples) == busy


@pytest.mark.parametrize(
    ("taken", "seen", "ok"), [(7104, 8200, True), (7142, 8192, True), (7200, 8000, False), (7104, 9000, False)]
)
def test_a_share_is_held_by_tensorflow_and_by_nvidia_smi(taken, seen, ok):
    assert gpu_check.share_held(7142, taken, seen, 1536).ok == ok
    assert not gpu_check.share_held(7142, 0, 0, 1536).ok


@pytest.mark.parametrize(("shift", "ok"), [(0.0, True), (9e-5, True), (2e-4, False)])
def test_features_are_compared_with_the_largest(shift, ok):
    cpu = np.array([[0.0, 2.0], [1.0, 0.5]])
    assert gpu_check.features_equal(cpu + 2 * shift, cpu).ok == ok


def test_lines_say_ok_or_failed_and_a_check_that_cannot_run_does_not_end_the_others():
    def broken() -> Finding:
        raise RuntimeError("CUDA_ERROR_NO_DEVICE")

    times = iter([0.0, 0.0, 1.0, 2.0, 9999.0])
    checks = {"a": lambda: Finding(True, "1 MiB"), "b": broken, "c": lambda: Finding(False, "2"), "d": broken}
    lines = list(gpu_check.run(checks, lambda: next(times)))
    assert lines[:3] == ["ok      a: 1 MiB", "failed  b: CUDA_ERROR_NO_DEVICE", "failed  c: 2"]
    assert lines[3] == "failed  d: not run, no time is left of 8 minutes"


def test_a_part_that_fails_says_its_last_words():
    with pytest.raises(RuntimeError, match="no_such_backbone"):
        gpu_check.answer(gpu_check.start("features", "no_such_backbone", 32, "x.npy"))


def test_parts_run_on_a_cpu(tmp_path):
    folder = gpu_check.pictures(tmp_path, each=24)
    exact = gpu_check.product(64)
    assert exact["device"] == "cpu"
    assert exact["error"] <= gpu_check.TF32_BOUND
    files = [tmp_path / "one.npy", tmp_path / "two.npy"]
    assert [gpu_check.features("small_cnn", 32, file)["device"] for file in files] == ["cpu", "cpu"]
    assert gpu_check.features_equal(np.load(files[0]), np.load(files[1])).ok
    trained = gpu_check.train(folder, "small_cnn", 32, 0.0, 0.0)
    assert trained["images_per_s"] > 0
    assert trained["precision"] == "float32"
    sums = gpu_check.predict(Path(trained["fit"]), folder)["sums"]
    assert sums == pytest.approx([1.0] * len(sums), abs=1e-4)
    assert len(sums) == 4
    found = gpu_check.rates(folder, 32)
    assert set(found) == {"decoded_per_s", "rows_per_s", "features_per_s"}
    assert all(value > 0 for value in found.values())


def test_every_check_has_a_part_and_the_program_runs():
    assert len(gpu_check.CHECKS) == 7
    done = subprocess.run([sys.executable, "-m", "tests.support.gpu_check"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.startswith("nothing was checked")) == (0, True), done.stderr
