"""The ``resources`` section: what one trial gets of the machine."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from orchestrator.spec.mistakes import quoted
from orchestrator.spec.sections.base import Section

LARGEST_MEMORY_GB = 10_000
"""Maximum GB of ``resources.gpu_memory_gb``."""


def _read_gpus(value: Any) -> float | str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto":
        return "auto"
    if number and (0 <= value <= 1 or (1 < value <= 1024 and float(value).is_integer())):
        return float(value)
    allowed = "a fraction of a GPU from 0 to 1, a whole number, or auto for one GPU if available"
    raise ValueError(f"found {quoted(value)}; allowed: {allowed}.")


def _read_memory(value: Any) -> float | str:
    if value == "auto":
        return "auto"
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST_MEMORY_GB:
        return float(value)
    raise ValueError(f"found {quoted(value)}; allowed: a number of GB, at least 0, or auto to measure it.")


class ResourcesSpec(Section):
    """Resources of one trial."""

    cpus: float = Field(default=1, gt=0, le=4096, description="CPUs per trial.")
    gpus: Annotated[
        float | Literal["auto"], PlainValidator(_read_gpus, json_schema_input_type=float | Literal["auto"])
    ] = Field(default="auto", description="GPUs per trial: a fraction from 0 to 1, a whole number, or auto.")
    gpu_memory_gb: Annotated[
        float | Literal["auto"], PlainValidator(_read_memory, json_schema_input_type=float | Literal["auto"])
    ] = Field(
        default="auto",
        description="GPU memory per trial in GB (10^9 bytes), for search cases with a gpu_memory_gb condition; auto: "
        "the memory of this machine's smallest GPU, as nvidia-smi reports it, times the trial's fraction of a GPU; 0 "
        "without a GPU. Give the number if the cluster has different machines.",
    )
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = Field(
        default="auto", description="Number format of the network; auto: chosen for the device."
    )
    store_dtype: Literal["float32", "float16"] = Field(
        default="float32",
        description="Number format of the stored features; float16 halves their disk space and reading time, and "
        "changes losses by at most a few thousandths of their value.",
    )
