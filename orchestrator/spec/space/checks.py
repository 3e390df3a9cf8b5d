"""Check that the fields of the ``search`` section are consistent, and that a sampler supports the space. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.spec.mistakes import Keys, Mistake, quoted
from orchestrator.spec.space.domains import DEFAULTS, Choice, Constant, Uniform, Value
from orchestrator.spec.space.fields import HIGHEST_MARGIN
from orchestrator.spec.space.space import Case, Space
from trainers.backbones import BACKBONES, Backbone, backbone, fusion_refusal, pooling_refusal, size_refusal
from trainers.config import TrialConfig, canonical
from trainers.heads import Head, head

REFUSALS = {"pooling": pooling_refusal, "feature_fusion": fusion_refusal}
"""Field -> why a backbone's output does not allow a word of it; None if it does."""


class SpaceMistakes:
    """Collect the mistakes below ``keys``."""

    def __init__(self, keys: Keys = (), found: list[Mistake] | None = None) -> None:
        self.keys = keys
        self.found = [] if found is None else found

    def at(self, *keys: str | int) -> SpaceMistakes:
        return SpaceMistakes((*self.keys, *keys), self.found)

    def add(self, text: str, at_key: bool = False) -> None:
        self.found.append(Mistake(self.keys, text, at_key))


def check_conditions(space: Space, notes: SpaceMistakes) -> None:
    """Reject conditions on continuous ranges; a condition compares with listed values."""
    for field in space.fields:
        for i, case in enumerate(field.cases):
            here = notes.at(field.name, i) if len(field.cases) > 1 else notes.at(field.name)
            for other, _ in case.when:
                if any(isinstance(domain, Uniform) for domain in space.domains(other)):
                    here.at("when", other).add(
                        f"{other} is a continuous range, which no single value can match; a condition needs a field "
                        "with a value, a list or an int range.",
                        at_key=True,
                    )


def check_nothing_varies(space: Space, notes: SpaceMistakes) -> None:
    """Reject fields that vary next to named configurations."""
    for field in space.fields:
        if any(not isinstance(case.domain, Constant) for case in field.cases):
            notes.at(field.name).add(
                "varies, but next to `configurations` every field takes a single value.", at_key=True
            )


def check_named(
    configurations: Sequence[tuple[str, Mapping[str, Any]]], given: Sequence[Mapping[str, Value]], notes: SpaceMistakes
) -> None:
    """Check each named configuration by itself, and that no two are the same.

    ``configurations``: name and complete values of each. ``given``: its own values, without the file's constants.
    """
    seen: dict[TrialConfig, str] = {}
    for i, (name, values) in enumerate(configurations):
        here = notes.at("configurations", i)
        row = backbone(values.get("backbone", TrialConfig.backbone))
        top = head(values.get("head", TrialConfig.head))
        _check_named_backbone(values, row, here)
        if not _check_named_head(values, given[i], top, here):
            continue
        twin = seen.setdefault(canonical(values), name)
        if twin != name:
            here.add(f'"{name}" is the same configuration as "{twin}", and would not be trained again.')


def _check_named_backbone(values: Mapping[str, Any], row: Backbone, here: SpaceMistakes) -> None:
    size, stride = values.get("image_size"), values.get("output_stride", DEFAULTS["output_stride"])
    if size is not None and size < row.smallest_size:
        here.add(f"image_size is {size}, but {row.name} needs at least {row.smallest_size} pixels.")
    elif size is not None and (why := size_refusal(row, size)):
        here.add(f"image_size is {size}: {why}")
    for name, refusal in REFUSALS.items():
        if why := refusal(row, values.get(name, DEFAULTS[name])):
            here.add(f"{name} is {values[name]}: {why}")
    if stride not in row.output_strides:
        allowed = " or ".join(map(str, row.output_strides))
        here.add(f"output_stride is {stride}, but {row.name} only takes {allowed}.")


def _check_named_head(values: Mapping[str, Any], given: Mapping[str, Value], top: Head, here: SpaceMistakes) -> bool:
    """Check scale and margin; return False if one of them is given that the head ``top`` does not have."""
    for effect, has in (("scale", top.has_scale), ("margin", top.has_margin)):
        if not has and given.get(effect) is not None:
            here.at(effect).add(f"the head {top.name} has no {effect}; leave it out.", at_key=True)
            return False
    margin = values.get("margin")
    if top.has_margin and margin is not None and not top.smallest_margin <= margin <= top.largest_margin:
        here.add(f"margin is {quoted(margin)}, but {top.name} takes {' to '.join(_margins(top))}.")
    return True


def check_space(space: Space, notes: SpaceMistakes) -> None:
    """Check every case against the backbones and heads that it can be combined with."""
    _check_sizes(space, notes)
    _check_strides(space, notes)
    _check_outputs(space, notes)
    _check_effects(space, notes)
    _check_margins(space, notes)


def _cases(space: Space, name: str, notes: SpaceMistakes) -> Iterator[tuple[Case, SpaceMistakes]]:
    """Yield each case of the field ``name``, and where to add its mistakes."""
    field = space.field(name)
    for i, case in enumerate(field.cases if field else ()):
        yield case, notes.at(name, i) if field and len(field.cases) > 1 else notes.at(name)


def _names(space: Space, name: str, case: Case) -> list[str]:
    """Return the values that the field ``name`` can have if ``case`` applies."""
    wanted = dict(case.when).get(name)
    names = [str(value) for domain in space.domains(name) for value in domain.values() or ()]
    return [value for value in dict.fromkeys(names) if wanted is None or value in wanted]


def _met(space: Space, field: str, other: str, notes: SpaceMistakes) -> Iterator[tuple[Case, list[str], SpaceMistakes]]:
    """Yield each case of ``field``, the values of ``other`` that can reach it, and where to add its mistakes.

    A value cannot reach a case if an earlier one applies whenever ``other`` has it.
    """
    taken: set[str] = set()
    for case, here in _cases(space, field, notes):
        yield case, [name for name in _names(space, other, case) if name not in taken], here
        if [name for name, _ in case.when] == [other] and not case.gpu_memory_gb:
            taken.update(map(str, case.when[0][1]))


def _check_sizes(space: Space, notes: SpaceMistakes) -> None:
    """Reject image sizes that are too small for a backbone that they can be combined with."""
    for case, met, here in _met(space, "image_size", "backbone", notes):
        options = case.domain.values() or ()
        smallest = min((size for size in options if isinstance(size, int)), default=None)
        small = [row for row in map(backbone, met) if smallest is not None and smallest < row.smallest_size]
        if small:
            names = ", ".join(row.name for row in small)
            need = max(row.smallest_size for row in small)
            here.add(f"{smallest} pixels are too few for {names}; use at least {need}.")
        _check_patches([int(size) for size in options if isinstance(size, int)], met, here)


def _check_patches(sizes: Sequence[int], names: Sequence[str], here: SpaceMistakes) -> None:
    """Reject the first image size that is no multiple of the side of a transformer's patches."""
    for row in map(backbone, names):
        why = next(filter(None, (size_refusal(row, size) for size in sizes if size >= row.smallest_size)), None)
        if why:
            own = (
                ""
                if len(names) == 1
                else f" Give it sizes of its own with a condition, when: {{backbone: {row.name}}}."
            )
            here.add(f"{why}{own}")
            return


def _check_outputs(space: Space, notes: SpaceMistakes) -> None:
    """Reject ways to pool and to fuse that the output of a backbone does not allow."""
    for name, refusal in REFUSALS.items():
        for case, met, here in _met(space, name, "backbone", notes):
            rows, words = [backbone(each) for each in met], [str(word) for word in case.domain.values() or ()]
            for word in words:
                cannot = [row for row in rows if refusal(row, word)]
                if not cannot:
                    continue
                if len(cannot) == len(rows):
                    here.add(str(refusal(rows[0], word)))
                    continue
                names = ", ".join(row.name for row in cannot)
                kept = [each for each in words if each != word and not any(refusal(row, each) for row in cannot)]
                kept = kept or [each for each in (str(DEFAULTS[name]),) if each != word]
                remedy = f"value: {kept[0]}" if len(kept) == 1 else f"choice: [{', '.join(kept)}]"
                here.add(
                    f"{word} is not possible with {names}; add an earlier case, such as "
                    f"{{{remedy}, when: {{backbone: [{names}]}}}}."
                )


def _check_strides(space: Space, notes: SpaceMistakes) -> None:
    """Reject output strides that a backbone does not support with which they can be combined."""
    for case, met, here in _met(space, "output_stride", "backbone", notes):
        rows = [backbone(name) for name in met]
        for stride in case.domain.values() or ():
            cannot = [row.name for row in rows if stride not in row.output_strides]
            can = [row.name for row in rows if stride in row.output_strides]
            if not cannot:
                continue
            if can:
                listed = can[0] if len(can) == 1 else f"[{', '.join(can)}]"
                remedy = f"add a condition, such as {{choice: [{stride}, 32], when: {{backbone: {listed}}}}}."
            else:
                able = ", ".join(row.name for row in BACKBONES.values() if stride in row.output_strides)
                remedy = f"leave it out, or add a backbone that supports it: {able}."
            here.add(f"{stride} is not supported by {', '.join(cannot)}; {remedy}")


def _check_effects(space: Space, notes: SpaceMistakes) -> None:
    """Reject a scale or a margin that none of the heads has."""
    for effect in ("scale", "margin"):
        for case, here in _cases(space, effect, notes):
            heads = _names(space, "head", case)
            having = [name for name in heads if getattr(head(name), f"has_{effect}")]
            if heads and not having and case.domain != Constant(None):
                subject = "the head" if len(heads) == 1 else "the heads"
                has = "has" if len(heads) == 1 else "have"
                here.add(f"{subject} {', '.join(heads)} {has} no {effect}; leave it out, or add a head that has one.")


def _check_margins(space: Space, notes: SpaceMistakes) -> None:
    """Reject margins outside the range of a head that they can be combined with."""
    for case, met, here in _met(space, "margin", "head", notes):
        domain = case.domain
        options = (domain.low, domain.high) if isinstance(domain, Uniform) else domain.values()
        margins = [value for value in options if isinstance(value, int | float)]
        for top in [head(name) for name in met]:
            if not top.has_margin or all(top.smallest_margin <= m <= top.largest_margin for m in margins):
                continue
            low, high = _margins(top)
            own = f"{{uniform: [{low}, {high}], when: {{head: {top.name}}}}}"
            here.add(
                f"found {domain}, but {top.name} takes margins from {low} to {high}; add an earlier case, such as "
                f"{own}."
            )


def _margins(top: Head) -> tuple[str, str]:
    """Return the bounds of the margins of ``top`` as text; the upper one is rounded down to three decimals."""
    highest = min(top.largest_margin, HIGHEST_MARGIN)
    return quoted(top.smallest_margin), quoted(math.floor(highest * 1000) / 1000)


def sampler_refusal(sampler: str, space: Space) -> str | None:
    """Return why ``sampler`` does not support ``space``, and what to do; None if it does."""
    parameters = space.parameters()

    def first(*kinds: type) -> str:
        return next((name.partition("@")[0] for name, domain in parameters.items() if isinstance(domain, kinds)), "")

    if sampler == "grid" and first(Uniform):
        return (
            f"the grid sampler cannot enumerate {first(Uniform)}, a continuous range; give it a list or an int range "
            "with a step, or use tpe or random."
        )
    if sampler in ("cmaes", "gp") and space.is_conditional:
        return f"the {sampler} sampler does not support conditions (`when`); remove them, or use tpe or random."
    if sampler == "cmaes" and first(Choice):
        return (
            f"the cmaes sampler supports numeric ranges only, and {first(Choice)} is a list; "
            "give it one value or a range, or use tpe or random."
        )
    if sampler == "cmaes" and len(parameters) < 2:
        return "the cmaes sampler needs at least two numeric ranges; use tpe or random."
    return None
