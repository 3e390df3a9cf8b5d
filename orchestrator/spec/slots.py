"""How many trials run at once where there is so much in all, and what each of them has. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.spec.sweep import SweepSpec


@dataclass(frozen=True)
class Resources:
    """CPUs and GPUs: what Ray has in all, over every node of the cluster, or what one trial takes of it."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Slots:
    """Workers at once, and what each has."""

    workers: int
    cpus: float
    gpus: float


def slots_of(spec: SweepSpec, there: Resources) -> Slots:
    """Trials of ``spec`` at once where ``there`` is so much, and what each has."""
    each = Resources(spec.resources.cpus, gpus_of(spec.resources.gpus, there.gpus))
    return Slots(at_once(there, each, spec.budget.most_at_once), each.cpus, each.gpus)


def gpus_of(wanted: float | str, there: float) -> float:
    """GPUs of one trial where ``there`` are so many. ``wanted``: ``resources.gpus``; "auto" is one where there is any,
    else none."""
    if wanted == "auto":
        return 1.0 if there >= 1 else 0.0
    return float(wanted)


def at_once(there: Resources, each: Resources, most: int | None = None) -> int:
    """How many trials run at once where each takes ``each``, which is no limit where it is 0; at least one.

    A share of a GPU lies on one device: on two GPUs there is room for four trials of 0.4, not for five.
    """
    limits = [] if most is None else [most]
    if each.cpus:
        limits.append(int(there.cpus / each.cpus + 1e-9))
    if each.gpus:
        whole = int(there.gpus / each.gpus)
        limits.append(int(there.gpus) * int(1 / each.gpus + 1e-9) if each.gpus <= 1 else whole)
    return max(1, min(limits, default=1))
