"""Check that each part of a batch has an image for every GPU of a trial. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.spec.mistakes import Keys, Mistake
from orchestrator.spec.reachable import raw_values
from orchestrator.spec.sections.resources import ResourcesSpec
from orchestrator.spec.space.domains import Choice
from orchestrator.spec.space.section import Search
from orchestrator.spec.sweep import gpu_memories
from trainers.config import canonical
from trainers.wording import count

STEPS, SIZE = "accumulation_steps", "batch_size"


@dataclasses.dataclass(frozen=True, order=True)
class _Batch:
    """A batch whose parts have fewer images than a trial has GPUs."""

    size: int
    parts: int


def batch_mistakes(search: Search, resources: ResourcesSpec) -> list[Mistake]:
    """Return the places of the file that let a trial divide a batch into parts with fewer images than it has GPUs.

    Trainers refuse such trials. ``resources.gpus: auto`` is one GPU, to which any part can be given.
    """
    gpus = 1 if resources.gpus == "auto" else int(resources.gpus)
    if gpus <= 1:
        return []
    memory = resources.gpu_memory_gb
    found: dict[Keys, set[_Batch]] = {}
    some_fit = False
    for memory_gb in gpu_memories(search) if memory == "auto" else [float(memory)]:
        for i, values in enumerate(raw_values(search.on_gpu(memory_gb), "unfrozen_layers", SIZE, STEPS)):
            config = canonical(values)
            batch = _Batch(config.batch_size, config.accumulation_steps)
            if batch.size // batch.parts >= gpus:
                some_fit = True
            else:
                place = ("search", "configurations", i) if search.named else _place(search, values, batch, gpus)
                found.setdefault(_in_file(place, search, values, memory_gb), set()).add(batch)
    return [Mistake(keys, _text(keys, sorted(batches), gpus, search, some_fit)) for keys, batches in found.items()]


def _place(search: Search, values: Mapping[str, Any], batch: _Batch, gpus: int) -> Keys:
    """Return the field to change: the parts, the size, or where the file has neither, the GPUs."""
    if batch.parts > 1 and batch.size >= gpus and search.space.field(STEPS):
        return ("search", STEPS)
    return ("search", SIZE) if search.space.field(SIZE) else ("resources", "gpus")


def _in_file(keys: Keys, search: Search, values: Mapping[str, Any], memory_gb: float) -> Keys:
    """Return ``keys`` with the number of the case that applies, if the field has several."""
    field = search.space.field(str(keys[1])) if keys[0] == "search" else None
    for i, case in enumerate(field.cases if field and len(field.cases) > 1 else ()):
        if case.gpu_memory_gb <= memory_gb and dataclasses.replace(case, gpu_memory_gb=0).matches(values):
            return (*keys, i)
    return keys


def _text(keys: Keys, batches: Sequence[_Batch], gpus: int, search: Search, some_fit: bool) -> str:
    worst = min(batches, key=lambda batch: (batch.size // batch.parts, batch))
    images = count(worst.size // worst.parts, "image")
    parts = f" in {worst.parts} {STEPS}" if worst.parts > 1 else ""
    what = f"a batch of {worst.size}{parts} has parts of {images}, too few to divide among resources.gpus: {gpus};"
    least, most = f"at least {worst.parts * gpus}", f"at most {worst.size // gpus}"
    if keys[1] == STEPS:
        own = ""
        if some_fit and _may_depend(search):
            sizes = sorted({batch.size for batch in batches})
            listed = ", ".join(map(str, sizes))
            when = f"when: {{{SIZE}: {listed if len(sizes) == 1 else f'[{listed}]'}}}"
            own = f", such as an earlier case {{value: {sizes[0] // gpus}, {when}}}"
        return f"{what} write {most}{own}, or a {SIZE} of {least}."
    if keys[1] == SIZE:
        return f"{what} write {least}, or fewer GPUs."
    if keys[1] == "gpus":
        return f"{what} write at most {worst.size // worst.parts}, or add search.{SIZE} with {least}."
    fewer = f", {STEPS} of {most}" if worst.parts > 1 and worst.size >= gpus else ""
    return f"{what} write a {SIZE} of {least}{fewer}, or fewer GPUs."


def _may_depend(search: Search) -> bool:
    """Whether a condition of the parts can name the sizes: they are listed, and depend on no parts."""
    field = search.space.field(SIZE)
    return field is not None and all(
        isinstance(case.domain, Choice) and all(other != STEPS for other, _ in case.when) for case in field.cases
    )
