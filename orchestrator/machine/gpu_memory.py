"""Memory of this machine's GPUs, asked of nvidia-smi, so that no framework has to start."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess

from orchestrator.errors import OrchError
from trainers.wording import GB

MIB = 2**20
TIMEOUT_S = 20
"""Maximum seconds to wait for nvidia-smi."""
NO_DEVICE = "No devices were found"
"""Message of nvidia-smi on a machine with a driver and no GPU; its exit code depends on the version."""


def smallest_gpu_gb() -> float:
    """Return the memory of the smallest GPU that CUDA may use, in GB of 10^9 bytes, rounded to 0.1.

    0.0 without nvidia-smi, without a device, and if ``CUDA_VISIBLE_DEVICES``, which nvidia-smi itself ignores, hides
    every device. A card sold with 16 GB reports 15,360 MiB or more, which is 16.1 of these.
    Raises OrchError if nvidia-smi fails.
    """
    program, visible = shutil.which("nvidia-smi"), _visible_devices()
    if program is None or visible == []:
        return 0.0
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    query += [f"--id={','.join(visible)}"] if visible else []
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if NO_DEVICE in done.stdout + done.stderr:
            return 0.0
        done.check_returncode()
        return round(min(float(line) for line in done.stdout.split()) * MIB / GB, 1)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        output = " ".join(str(getattr(error, "stderr", "") or error).split())[:200]
        raise OrchError(
            f"nvidia-smi does not report the GPU's memory ({output}); repair the driver, or give the number: "
            "--set resources.gpu_memory_gb=16, or --set resources.gpu_memory_gb=0 without a GPU."
        ) from error


def _visible_devices() -> list[str] | None:
    """Return the ids in ``CUDA_VISIBLE_DEVICES``; None if it is not set.

    As in CUDA, the first entry that is no id, such as -1 or an empty text, hides itself and all after it.
    """
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    ids = (each.strip() for each in value.split(","))
    return list(itertools.takewhile(lambda each: re.fullmatch(r"\d+|(GPU|MIG)-\S+", each), ids))
