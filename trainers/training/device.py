"""Limits and precision of a worker process: CPU threads, a share of a GPU's memory, the Keras dtype policy."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

from trainers.errors import TrainerError

_prepared: dict[str, Any] = {}
SMALL_GPU_MB = 2048
"""Memory in MiB below which a GPU counts as small."""


def context_mb(total_mb: int, capability: int) -> int:
    """GPU memory in MiB that a process needs outside TensorFlow's allocator: the CUDA context, cuDNN, cuBLAS, kernels.

    ``capability``: major compute capability. What TensorFlow itself leaves free for them when it may take a whole GPU:
    ``MinSystemMemory`` in tensorflow/core/common_runtime/gpu/gpu_device.cc. It subtracts nothing from an explicit
    limit.
    """
    if total_mb < SMALL_GPU_MB:
        return 225
    return next((mb for highest, mb in ((6, 500), (7, 1050), (8, 1536)) if capability <= highest), 1800)


def memory_limit_mb(share: float, total_mb: int, capability: int) -> int:
    """Limit in MiB, rounded down, of the allocator of a trial with ``share`` of a GPU.

    That share of what is left of ``total_mb`` once each of the processes that can share the GPU, 1 / share rounded
    down, has its ``context_mb``. Raises TrainerError if that is nothing.
    """
    if not 0 < share <= 1:
        raise TrainerError(f"a trial's share of a GPU must lie in (0, 1], not {share}.")
    processes, each = max(1, int(1 / share + 1e-9)), context_mb(total_mb, capability)
    limit = int(share * (total_mb - processes * each))
    if limit <= 0:
        raise TrainerError(
            f"{processes} trials cannot share a GPU of {total_mb:,} MiB: CUDA alone takes about {each:,} MiB of each; "
            f"set resources.gpus to {1 / max(1, total_mb // (2 * each)):.2g} or more."
        )
    return limit


def total_gpu_memory_mb() -> int:
    """Memory in MiB of the first GPU visible to this process, from nvidia-smi. Raises TrainerError.

    nvidia-smi ignores ``CUDA_VISIBLE_DEVICES``, so its first entry is passed explicitly.
    """
    if shutil.which("nvidia-smi") is None:
        raise TrainerError(
            "a share of a GPU was requested, but nvidia-smi, which reads the GPU's memory, is not installed."
        )
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    answer = subprocess.run(query + (["--id", first] if first else []), capture_output=True, text=True)
    if answer.returncode or not answer.stdout.split():
        output = (answer.stderr or answer.stdout).strip() or "no output"
        raise TrainerError(f"nvidia-smi could not read the GPU's memory: {output}")
    return int(answer.stdout.split()[0])


def limit_gpu_memory(tf: Any, share: float, total_mb: Callable[[], int] = total_gpu_memory_mb) -> list[int]:
    """Limit TensorFlow to ``share`` of each visible GPU; return the limits in MiB (0: grows as needed).

    With a share of 1, as of a trial with one or several whole GPUs, memory grows as needed. Must run before TensorFlow
    initialises the device. Raises TrainerError.
    """
    limits = []
    for gpu in tf.config.list_physical_devices("GPU"):
        if share >= 1:
            tf.config.experimental.set_memory_growth(gpu, True)
            limits.append(0)
        else:
            limit = memory_limit_mb(share, total_mb(), _capability(tf, gpu))
            tf.config.set_logical_device_configuration(gpu, [tf.config.LogicalDeviceConfiguration(memory_limit=limit)])
            limits.append(limit)
    return limits


def grow_gpu_memory(tf: Any) -> None:
    """Let TensorFlow take a GPU's memory as it needs it, instead of all of it at once; for a process without a share.

    Does nothing once the device is in use: whoever uses it has decided.
    """
    with contextlib.suppress(RuntimeError):
        limit_gpu_memory(tf, 1.0)


def prepare(threads: int, gpu_memory_share: float, precision: str) -> str:
    """Configure this process before its first fit; return the Keras dtype policy to build networks with.

    ``gpu_memory_share``: 0 for a process that was given no GPU; on a machine with one, it takes what it needs.
    "auto" is float32 on CPUs, mixed_bfloat16 on GPUs of compute capability 8 or more, mixed_float16 on other GPUs. The
    policy does not become Keras' default, since a process may train trials of several precisions. float32 disables
    TF32, whose 10-bit mantissa changes features by about 1e-3: stored rows are shared with CPUs and other GPUs.
    """
    import tensorflow as tf

    if not _prepared:
        if gpu_memory_share > 0:
            _prepared["limits_mb"] = limit_gpu_memory(tf, gpu_memory_share)
        else:
            grow_gpu_memory(tf)
        _prepared["threads"] = _limit_threads(tf, threads)
    policy = precision if precision != "auto" else _automatic_precision(tf)
    tf.config.experimental.enable_tensor_float_32_execution(policy != "float32")
    return policy


def kind() -> str:
    """Return "gpu" if TensorFlow sees one in this process, else "cpu"."""
    import tensorflow as tf

    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def devices(count: int) -> tuple[str, ...]:
    """Names of the ``count`` devices to divide a batch among, () for one: the default device needs no name.

    GPUs, or on a machine without any TensorFlow's CPU devices. Raises TrainerError if there are fewer.
    """
    if count <= 1:
        return ()
    import tensorflow as tf

    names = [each.name for each in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]
    if len(names) < count:
        raise TrainerError(
            f"a trial was given {count} GPUs and TensorFlow sees {len(names) if kind() == 'gpu' else 'none'}; "
            "look at CUDA_VISIBLE_DEVICES and the driver, or set resources.gpus to 1."
        )
    return tuple(names[:count])


def concurrent_operations(gpus: int) -> int:
    """Maximum operations that a process with ``gpus`` visible GPUs runs at once: one per GPU, at least one.

    A GPU waits while one thread starts the operations of another's part of the batch. On CPUs an operation
    already has all threads.
    """
    return max(gpus, 1)


def _limit_threads(tf: Any, threads: int) -> int:
    """Limit an operation to ``threads`` CPU threads; return the limit in force (0: one per core)."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        gpus = len(tf.config.list_physical_devices("GPU"))
        tf.config.threading.set_inter_op_parallelism_threads(concurrent_operations(gpus))
    except RuntimeError:
        # TensorFlow is already in use in this process, so its threads are fixed; this affects speed, and on some
        # processors rounding.
        return tf.config.threading.get_intra_op_parallelism_threads()
    return threads


def _automatic_precision(tf: Any) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "float32"
    return "mixed_bfloat16" if _capability(tf, gpus[0]) >= 8 else "mixed_float16"


def _capability(tf: Any, gpu: Any) -> int:
    """Major compute capability of a physical device; 0 where it is not known."""
    return int(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))[0])
