"""How many trials run at once where there is so much in all, and what each of them has. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.spec.sweep import SweepSpec


@dataclass(frozen=True)
class Resources:
    """CPUs and GPUs: of the whole Ray cluster, or of one trial."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Slots:
    """Number of concurrent workers, and the resources of each."""

    workers: int
    cpus: float
    gpus: float


def slots_of(spec: SweepSpec, there: Resources) -> Slots:
    """Return the concurrent trials of ``spec`` in a cluster with the resources ``there``."""
    each = Resources(spec.resources.cpus, gpus_of(spec.resources.gpus, there.gpus))
    return Slots(at_once(there, each, spec.budget.most_at_once), each.cpus, each.gpus)


def gpus_of(wanted: float | str, there: float) -> float:
    """Return the GPUs of one trial in a cluster with ``there`` GPUs.

    ``wanted``: ``resources.gpus``; "auto" is one GPU if there is any, else none.
    """
    if wanted == "auto":
        return 1.0 if there >= 1 else 0.0
    return float(wanted)


def at_once(there: Resources, each: Resources, most: int | None = None) -> int:
    """Count the trials that run at once if each takes ``each``; a resource of 0 is no limit. At least one.

    A share of a GPU is on one device: two GPUs have room for four trials of 0.4, not five.
    """
    limits = [] if most is None else [most]
    if each.cpus:
        limits.append(int(there.cpus / each.cpus + 1e-9))
    if each.gpus:
        whole = int(there.gpus / each.gpus)
        limits.append(int(there.gpus) * int(1 / each.gpus + 1e-9) if each.gpus <= 1 else whole)
    return max(1, min(limits, default=1))
