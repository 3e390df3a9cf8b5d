"""Measure ``resources.gpu_memory_gb: auto`` on this machine."""

from __future__ import annotations

from orchestrator.errors import SpecError
from orchestrator.machine.gpu_memory import smallest_gpu_gb
from orchestrator.spec.slots import gpus_of
from orchestrator.spec.sweep import SweepSpec, cross_mistakes


def with_gpu_memory(spec: SweepSpec) -> SweepSpec:
    """Return ``spec`` with ``resources.gpu_memory_gb`` measured, if its space depends on it.

    "auto" is the smallest GPU's memory times the trial's fraction of a GPU. Raises OrchError if nvidia-smi fails,
    SpecError if the sections are inconsistent with that memory.
    """
    resources = spec.resources
    if not spec.asks_for_gpu_memory or resources.gpu_memory_gb != "auto":
        return spec
    share = min(1.0, gpus_of(resources.gpus, 1))  # assumes a GPU; without any, smallest_gpu_gb() is 0
    memory_gb = round(share * smallest_gpu_gb(), 1) if share else 0.0
    return replace_memory(spec, memory_gb)


def replace_memory(spec: SweepSpec, memory_gb: float | str) -> SweepSpec:
    """Return ``spec`` with that memory. Raises SpecError for what ``model_copy`` does not check across sections."""
    resources = spec.resources.model_copy(update={"gpu_memory_gb": memory_gb})
    settled = spec.model_copy(update={"resources": resources})
    found = cross_mistakes({name: getattr(settled, name) for name in SweepSpec.model_fields})
    if found:
        where = f"with resources.gpu_memory_gb {memory_gb}, as measured"
        raise SpecError("\n".join(f"{where}: {'.'.join(map(str, each.keys))}: {each.text}" for each in found))
    return settled
