"""Limits of a worker process. There is no GPU here: a fake of ``tf`` records the calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import pytest
import tensorflow as tf

from trainers.errors import TrainerError
from trainers.training import device


@dataclass
class FakeTensorFlow:
    """The few doors of ``tf.config`` that are knocked at."""

    gpus: list[str]
    capability: tuple[int, int] = (8, 0)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    fixed: bool = False
    in_use: bool = False

    @property
    def config(self) -> SimpleNamespace:
        return SimpleNamespace(
            list_physical_devices=lambda kind: self.gpus if kind == "GPU" else [],
            set_logical_device_configuration=lambda gpu, limits: self.calls.append((gpu, limits)),
            LogicalDeviceConfiguration=lambda memory_limit: memory_limit,
            experimental=SimpleNamespace(
                set_memory_growth=self._set_growth,
                get_device_details=lambda gpu: {"compute_capability": self.capability},
            ),
            threading=SimpleNamespace(
                set_intra_op_parallelism_threads=self._set_threads,
                set_inter_op_parallelism_threads=self._set_threads,
                get_intra_op_parallelism_threads=lambda: 0,
            ),
        )

    def _set_growth(self, gpu: str, grows: bool) -> None:
        if self.in_use:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        self.calls.append((gpu, grows))

    def _set_threads(self, count: int) -> None:
        if self.fixed:
            raise RuntimeError("Intra op parallelism cannot be modified after initialization.")
        self.calls.append(("threads", count))


@pytest.mark.parametrize(
    ("share", "total", "capability", "expected"),
    [
        (1.0, 16384, 7, 15334),  # one process: 16384 - 1050
        (0.5, 16384, 7, 7142),  # (16384 - 2 * 1050) / 2
        (0.5, 16384, 6, 7692),
        (0.5, 81920, 8, 39424),
        (0.4, 24576, 8, 8601),  # two fit, not two and a half
        (0.3, 16384, 7, 3970),
        (1 / 3, 16384, 7, 4411),  # three fit
        (0.25, 16280, 9, 2270),
        (0.5, 81920, 10, 39160),
        (0.5, 2000, 5, 775),
        (0.1, 16384, 7, 588),
    ],
)
def test_a_share_of_the_memory_leaves_room_for_the_context_of_each_process(share, total, capability, expected):
    limit = device.memory_limit_mb(share, total, capability)
    assert limit == expected
    assert int(1 / share + 1e-9) * (limit + device.context_mb(total, capability)) <= total


@pytest.mark.parametrize(("share", "advice"), [(0.05, "0.14"), (0.0625, "0.14")])
def test_more_processes_than_there_is_room_for_are_a_sentence(share, advice):
    with pytest.raises(TrainerError, match=rf"trials cannot share a GPU of 16,384 MiB.*1,050 MiB.*gpus to {advice}"):
        device.memory_limit_mb(share, 16384, 7)


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_a_share_that_is_none(share):
    with pytest.raises(TrainerError, match=rf"share of a GPU must lie in \(0, 1\], not {share}"):
        device.memory_limit_mb(share, 1000, 7)


def test_a_fraction_is_held_to_its_share():
    fake = FakeTensorFlow(["gpu0"])
    assert device.limit_gpu_memory(fake, 0.25, lambda: 16000) == [(16000 - 4 * 1536) // 4]
    assert fake.calls == [("gpu0", [2464])]


def test_whole_gpus_grow():
    fake = FakeTensorFlow(["gpu0", "gpu1"])
    assert device.limit_gpu_memory(fake, 1.0, lambda: pytest.fail("the memory is not needed")) == [0, 0]
    assert fake.calls == [("gpu0", True), ("gpu1", True)]


def test_a_process_without_a_share_takes_what_it_needs_of_a_gpu():
    """As `orch predict` and `orch promote` do while trials run on it."""
    fake = FakeTensorFlow(["gpu0"])
    device.grow_gpu_memory(fake)
    assert fake.calls == [("gpu0", True)]
    used = FakeTensorFlow(["gpu0"], in_use=True)
    device.grow_gpu_memory(used)
    assert used.calls == []


def test_without_a_gpu_nothing_is_held():
    fake = FakeTensorFlow([])
    assert device.limit_gpu_memory(fake, 0.5, lambda: 16000) == []
    assert fake.calls == []


@pytest.mark.parametrize(
    ("gpus", "capability", "policy"),
    [
        ([], (0, 0), "float32"),
        (["gpu"], (8, 6), "mixed_bfloat16"),
        (["gpu"], (9, 0), "mixed_bfloat16"),
        (["gpu"], (7, 5), "mixed_float16"),
        (["gpu"], (6, 0), "mixed_float16"),
    ],
)
def test_the_automatic_precision(gpus, capability, policy):
    assert device._automatic_precision(FakeTensorFlow(gpus, capability)) == policy


def test_threads_are_set_where_they_still_can_be():
    assert device._limit_threads(FakeTensorFlow([], fixed=True), 3) == 0


@pytest.mark.parametrize(("gpus", "at_once"), [([], 1), (["gpu0"], 1), (["gpu0", "gpu1"], 2), (["gpu"] * 4, 4)])
def test_each_gpu_has_a_thread_that_starts_its_operations(gpus, at_once):
    assert device.concurrent_operations(len(gpus)) == at_once
    fake = FakeTensorFlow(gpus)
    assert device._limit_threads(fake, 3) == 3
    assert fake.calls == [("threads", 3), ("threads", at_once)]


def test_a_precision_is_named_and_never_made_the_default():
    assert device.prepare(1, 0.0, "mixed_bfloat16") == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    assert device.prepare(1, 0.0, "auto") == "float32"


def test_float32_is_no_tf32_whatever_the_process_did_before():
    for precision, rounds in (("float32", False), ("mixed_float16", True), ("auto", False), ("mixed_bfloat16", True)):
        device.prepare(1, 0.0, precision)
        assert tf.config.experimental.tensor_float_32_execution_enabled() == rounds


def fake_smi(folder: Path, script: str) -> str:
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(folder)


def test_the_memory_is_that_of_the_gpu_this_process_sees(tmp_path, monkeypatch):
    script = 'case "$*" in *"--id 1"*) echo 8192;; *) echo 16384; echo 8192;; esac'
    monkeypatch.setenv("PATH", fake_smi(tmp_path / "bin", script), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.total_gpu_memory_mb() == 16384
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert device.total_gpu_memory_mb() == 8192


def test_a_silent_nvidia_smi_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", fake_smi(tmp_path / "bin", "echo no devices were found; exit 6"), prepend=":")
    with pytest.raises(TrainerError, match="nvidia-smi could not read the GPU's memory: no devices were found"):
        device.total_gpu_memory_mb()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TrainerError, match=r"nvidia-smi.*is not installed"):
        device.total_gpu_memory_mb()


def test_one_device_has_no_name_and_more_than_there_are_is_a_sentence():
    assert device.devices(1) == ()
    with pytest.raises(TrainerError, match="a trial was given 2 GPUs and TensorFlow sees none; look at CUDA_VISIBLE"):
        device.devices(2)
