"""Number of concurrent trials on a cluster, and the resources of each. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.spec.sweep import SweepSpec


@dataclass(frozen=True)
class Resources:
    """CPUs and GPUs of the whole Ray cluster, or of one trial."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Slots:
    """Number of concurrent workers, and the resources of each."""

    workers: int
    cpus: float
    gpus: float


def slots_of(spec: SweepSpec, cluster: Resources) -> Slots:
    """Return the concurrent trials of ``spec`` on a cluster with the resources ``cluster``."""
    each = Resources(spec.resources.cpus, gpus_of(spec.resources.gpus, cluster.gpus))
    return Slots(at_once(cluster, each, spec.budget.most_at_once), each.cpus, each.gpus)


def gpus_of(wanted: float | str, cluster: float) -> float:
    """Return the GPUs of one trial on a cluster with ``cluster`` GPUs.

    ``wanted``: ``resources.gpus``; "auto" means one GPU if there is any, else none.
    """
    if wanted == "auto":
        return 1.0 if cluster >= 1 else 0.0
    return float(wanted)


def at_once(cluster: Resources, each: Resources, most: int | None = None) -> int:
    """Return the number of concurrent trials, at least one, if each takes ``each`` of ``cluster``; ``most``: a limit.

    A trial that takes none of a resource is not limited by it. A fraction of a GPU lies on one device: two GPUs fit
    four trials of 0.4, not five.
    """
    limits = [] if most is None else [most]
    if each.cpus:
        limits.append(int(cluster.cpus / each.cpus + 1e-9))
    if each.gpus:
        whole = int(cluster.gpus / each.gpus)
        limits.append(int(cluster.gpus) * int(1 / each.gpus + 1e-9) if each.gpus <= 1 else whole)
    return max(1, min(limits, default=1))
