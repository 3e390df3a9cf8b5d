"""Write a spec as the text of a sweep's ``spec.yaml``, as this version and as earlier ones write it. Pure.

The text says what the sweep ran with, whatever a later version takes for fields that a file leaves out; its checksum is
in the ledger. So a field that is new leaves the text of every sweep that does without it unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.spec.practice import PRACTICE
from orchestrator.spec.sections.base import Section
from orchestrator.spec.space.section import Search
from orchestrator.spec.space.space import Space
from orchestrator.spec.sweep import SweepSpec
from orchestrator.spec.yaml_file.writer import write_yaml

ALWAYS = {
    "": "name data search budget final resources tracking weights objective",
    "data": "source splits folds encoding seed duplicates keep_splits",
    "data.splits": "train validation test",
    "budget": "trials epochs hours target_accuracy concurrent retries scheduler sampler seed first",
    "budget.scheduler": "name grace_epochs reduction_factor min_trials",
    "budget.sampler": "name startup_trials",
    "final": "seeds epochs refit policies runners_up winner_form forms distillation choose",
    "final.distillation": "temperature alpha epochs",
    "final.choose": "best at_least at_most",
    "resources": "cpus gpus gpu_memory_gb precision store_dtype",
    "tracking": "enabled uri experiment tags model",
}
"""Section -> its fields that are written whatever their value. Do not extend it: a later field is written only if it
differs from its default, which therefore must never change."""
ABSENT = object()
"""Instead of a value: the field is not written."""


@dataclass(frozen=True)
class Change:
    """A change of what is written for a field that a file leaves out: ``before`` it, and ``after``."""

    section: str
    field: str
    before: Any
    after: Any


CHANGES = (
    Change("final", "distillation", ABSENT, {"temperature": 2.0, "alpha": 0.9, "epochs": None}),
    Change("final", "forms", ABSENT, ("ensemble",)),
    Change("data", "keep_splits", "", "auto"),
    Change("data", "encoding", ABSENT, "auto"),
    Change("data", "splits", {"train": 0.7, "validation": 0.15, "test": 0.15}, "auto"),
    Change("data", "keep_splits", ABSENT, ""),
)
"""The changes of 2026-11-30, the latest first; there can be no later ones, see ``ALWAYS``."""


def dump_spec(spec: SweepSpec) -> str:
    """Return YAML text that ``load_spec`` reads back as an equal ``SweepSpec``; environment variables are expanded."""
    return write_yaml(_written(spec, spec.model_dump()))


def texts_of(spec: SweepSpec, given: Search) -> Iterator[str]:
    """Yield the text of ``spec`` as this version writes it, then as earlier ones did for the same file.

    ``given``: the search as the file has it, without ``PRACTICE``, which came in one field after the other.
    """
    added = [name for name in PRACTICE if spec.search.space.field(name) and not given.space.field(name)]
    for known in range(len(added), -1, -1):
        later = added[known:]
        fields = tuple(field for field in spec.search.space.fields if field.name not in later)
        older = spec.model_copy(update={"search": Search(Space(fields), spec.search.named)})
        plain = _written(older, older.model_dump())
        yield write_yaml(plain)
        for change in CHANGES:
            section = plain[change.section]
            if section.get(change.field, ABSENT) != change.after:
                continue
            if change.before is ABSENT:
                del section[change.field]
            else:
                section[change.field] = change.before
            yield write_yaml(plain)


def _written(section: Section, plain: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return ``plain``, the values of ``section``, without those that need not be written."""
    always, found = ALWAYS.get(path, "").split(), {}
    for name, value in plain.items():
        held = getattr(section, name)
        if name not in always and held == type(section).model_fields[name].get_default(call_default_factory=True):
            continue
        found[name] = _written(held, value, f"{path}.{name}".lstrip(".")) if isinstance(held, Section) else value
    return found
