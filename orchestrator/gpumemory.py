"""How much memory this machine's GPUs have, as nvidia-smi says, so that no framework need start."""

from __future__ import annotations

import shutil
import subprocess

from orchestrator.errors import OrchError

MIB = 2**20
GB = 10**9
TIMEOUT_S = 20


def smallest_gpu_gb() -> float:
    """Memory of the smallest GPU in GB of 10^9 bytes, rounded to 0.1; 0.0 without nvidia-smi.

    A card sold with 16 GB reports 15,360 MiB or more, which is 16.1 of these. Raises OrchError where nvidia-smi is
    there and fails.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0.0
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        return round(min(float(line) for line in done.stdout.split()) * MIB / GB, 1)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = " ".join(str(getattr(error, "stderr", "") or error).split())[:200]
        raise OrchError(
            f"nvidia-smi does not say how much memory the GPU has ({said}); mend the driver, or write the number: "
            "--set resources.gpu_memory_gb=16."
        ) from error
