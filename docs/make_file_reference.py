"""Write the tables of docs/file.md from the code (``make docs``), or compare them with --check (``make check``).

A table is between ``<!-- table NAME -->`` and ``<!-- end -->``; the text around it is written by hand. The column
"allowed" comes from the field's own error message about a wrong value, so that page and messages agree.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from orchestrator.spec.mistakes import mistakes_of, quoted
from orchestrator.spec.practice import PRACTICE
from orchestrator.spec.sections.budget import BudgetSpec, SamplerSpec, SchedulerSpec
from orchestrator.spec.sections.data import DataSpec, SplitRatios
from orchestrator.spec.sections.final import DistillationSpec, FinalSpec
from orchestrator.spec.sections.resources import ResourcesSpec
from orchestrator.spec.sections.tracking import TrackingSpec
from orchestrator.spec.space.domains import DEFAULTS
from orchestrator.spec.space.fields import FIELDS
from orchestrator.spec.sweep import SweepSpec
from trainers.backbones import BACKBONES
from trainers.heads import HEADS
from trainers.images.augment import RECIPES
from trainers.images.policies import MOST_CROPS, POLICIES, policy

PAGE = ROOT / "docs" / "file.md"
MARKED = re.compile(r"(<!-- table (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NEEDED = "required"
WRONG = ("?", object())
"""Wrong values; every field rejects at least one. The text is first: its error lists names. Text fields accept it."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def plain(value: Any) -> str:
    """Format a default as YAML."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {plain(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    return value if isinstance(value, str) else quoted(value)


def allowed(sentence: str) -> str:
    """Extract the allowed values from a field's error message. Raises ValueError if the message does not name them."""
    found = re.search(r"[aA]llowed: (.*)\.$", sentence)
    if found is None:
        raise ValueError(f"this refusal does not say what is allowed: {sentence}")
    return found[1]


def refusal(model: type[BaseModel], name: str) -> str:
    """Return the error message of ``model`` about a wrong value of ``name``. Raises ValueError if it takes any."""
    for wrong in WRONG:
        try:
            model.model_validate({name: wrong})
        except ValidationError as error:
            texts = [mistake.text for mistake in mistakes_of(error, model) if mistake.keys[0] == name]
            if texts:
                return texts[0]
    raise ValueError(f"{model.__name__}.{name} takes any value")


def fields(model: type[BaseModel]) -> str:
    """Return the table of the fields of a section."""
    rows = [
        (f"`{name}`", str(field.description), _default(field), _allowed(model, name, field))
        for name, field in model.model_fields.items()
    ]
    return table(("field", "description", "default", "allowed"), rows)


def _default(field: FieldInfo) -> str:
    return NEEDED if field.is_required() else f"`{plain(field.get_default(call_default_factory=True))}`"


def _allowed(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    words = allowed(refusal(model, name))
    if field.annotation in (SchedulerSpec, SamplerSpec):
        words += ", or a mapping with a name and its options"
    return words + (", or null" if NoneType in get_args(field.annotation) else "")


def parts() -> str:
    """Return the table of the top-level fields."""
    rows = []
    for name, field in SweepSpec.model_fields.items():
        whole = field.is_required()
        is_part = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        default = NEEDED if whole else "its fields' defaults" if is_part else _default(field)
        rows.append((f"`{name}`", str(field.description), default))
    return table(("field", "description", "default"), rows)


def search() -> str:
    """Return the table of the fields of ``search``."""
    rows = []
    for name, rule in FIELDS.items():
        words = allowed(str(rule.problem(WRONG[0])))
        rows.append((f"`{name}`", rule.description, f"`{plain(PRACTICE.get(name, DEFAULTS[name]))}`", words))
    return table(("field", "description", "default", "allowed"), rows)


def backbones() -> str:
    """Return the table of backbones."""
    rows = [
        (
            f"`{row.name}`",
            str(row.layers),
            f"{row.native_size} px",
            f"{row.smallest_size} px",
            "yes" if row.imagenet else "to convert" if row.files else "none: random",
            " or ".join(f"`{pattern}`" for pattern in row.files.split()),
        )
        for row in BACKBONES.values()
    ]
    return table(
        ("backbone", "layers", "native size", "minimum size", "ImageNet weights", "file in a weights folder"), rows
    )


def heads() -> str:
    """Return the table of heads and their parameters."""
    rows = [
        (
            f"`{row.name}`",
            "yes" if row.has_scale else "no",
            "yes" if row.has_margin else "no",
            "" if row.default_margin is None else plain(row.default_margin),
        )
        for row in HEADS.values()
    ]
    return table(("head", "scale", "margin", "default margin"), rows)


def recipes() -> str:
    """Return the table of recipes; descriptions are the docstrings of their functions."""
    rows = [(f"`{name}`", " ".join(str(inspect.getdoc(row.apply)).split())) for name, row in RECIPES.items()]
    return table(("recipe", "copies"), rows)


def policies() -> str:
    """Return the table of crop policies."""
    rows = [(f"`{row.name}`", str(len(row.crops)), row.description) for row in POLICIES.values()]
    shown = policy("random_5").description.replace("5", "K", 1)
    return table(("policy", "crops", "what the network sees"), [*rows, ("`random_K`", f"K, 1 to {MOST_CROPS}", shown)])


TABLES: dict[str, Callable[[], str]] = {
    "parts": parts,
    "data": lambda: fields(DataSpec),
    "splits": lambda: fields(SplitRatios),
    "search": search,
    "backbones": backbones,
    "heads": heads,
    "recipes": recipes,
    "budget": lambda: fields(BudgetSpec),
    "scheduler": lambda: fields(SchedulerSpec),
    "sampler": lambda: fields(SamplerSpec),
    "distillation": lambda: fields(DistillationSpec),
    "final": lambda: fields(FinalSpec),
    "policies": policies,
    "resources": lambda: fields(ResourcesSpec),
    "tracking": lambda: fields(TrackingSpec),
}
"""Name in the marker -> function that returns the table."""


def filled(page: str) -> str:
    """Return ``page`` with its tables generated anew. Raises ValueError unless it has each of ``TABLES`` once."""
    found = [match["name"] for match in MARKED.finditer(page)]
    if sorted(found) != sorted(TABLES):
        raise ValueError(f"the page has the tables {', '.join(found)}; it needs each of {', '.join(TABLES)} once")
    return MARKED.sub(lambda match: f"{match[1]}{TABLES[match['name']]()}\n{match[3]}", page)


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(filled(page), encoding="utf-8")
        return 0
    if page == filled(page):
        return 0
    print(f"{PAGE.relative_to(ROOT)} differs from the code; run `make docs`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
