"""What a worker process may take of its machine: threads, a share of a GPU's memory, a precision."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

from trainers.errors import TrainerError

_prepared: dict[str, Any] = {}


def memory_limit_mb(share: float, total_mb: int) -> int:
    """The part of a GPU's memory that a trial with ``share`` of it may use, rounded down, in MiB."""
    if not 0 < share <= 1:
        raise TrainerError(f"a trial's share of a GPU must lie in (0, 1], not {share}.")
    return int(total_mb * share)


def total_gpu_memory_mb() -> int:
    """The memory of the first GPU this process may see, from nvidia-smi, in MiB. Raises TrainerError.

    nvidia-smi itself looks at every GPU of the machine, so it is told the first of ``CUDA_VISIBLE_DEVICES``.
    """
    if shutil.which("nvidia-smi") is None:
        raise TrainerError("a share of a GPU was asked for, but nvidia-smi is not here to say how much memory it has.")
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    answer = subprocess.run(query + (["--id", first] if first else []), capture_output=True, text=True)
    if answer.returncode or not answer.stdout.split():
        said = (answer.stderr or answer.stdout).strip() or "nothing"
        raise TrainerError(f"nvidia-smi could not say how much memory the GPU has; it said: {said}")
    return int(answer.stdout.split()[0])


def hold_gpu_memory(tf: Any, share: float, total_mb: Callable[[], int] = total_gpu_memory_mb) -> list[int]:
    """Hold TensorFlow to ``share`` of each GPU it sees; returns the limits set, in MiB (0: grows as needed).

    A whole GPU grows as needed. Must run before TensorFlow touches the device.
    """
    limits = []
    for gpu in tf.config.list_physical_devices("GPU"):
        if share >= 1:
            tf.config.experimental.set_memory_growth(gpu, True)
            limits.append(0)
        else:
            limit = memory_limit_mb(share, total_mb())
            tf.config.set_logical_device_configuration(gpu, [tf.config.LogicalDeviceConfiguration(memory_limit=limit)])
            limits.append(limit)
    return limits


def prepare(threads: int, gpu_memory_share: float, precision: str) -> str:
    """Set this process up once, before its first fit; returns the Keras dtype policy to build networks with.

    "auto" is float32 on CPUs, mixed_bfloat16 on GPUs of compute capability 8 or more, mixed_float16 on others. The
    policy is only named, never made Keras' default: a process may train trials of several precisions. float32 means
    float32: a GPU may not round the factors of its products to TF32, whose 10 bits of mantissa move features by some
    1e-3, for what is stored is served to CPUs and to other GPUs too.
    """
    import tensorflow as tf

    if not _prepared:
        if gpu_memory_share > 0:
            _prepared["limits_mb"] = hold_gpu_memory(tf, gpu_memory_share)
        _prepared["threads"] = _hold_threads(tf, threads)
    policy = precision if precision != "auto" else _automatic_precision(tf)
    tf.config.experimental.enable_tensor_float_32_execution(policy != "float32")
    return policy


def _hold_threads(tf: Any, threads: int) -> int:
    """Let an operation use ``threads`` CPU threads; returns how many it may use (0: as many as there are cores)."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        # Somebody used TensorFlow in this process before: its threads are fixed by now, which costs time alone.
        return tf.config.threading.get_intra_op_parallelism_threads()
    return threads


def _automatic_precision(tf: Any) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "float32"
    major, _ = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
    return "mixed_bfloat16" if major >= 8 else "mixed_float16"
