"""A sweep's file as one frozen value, and the checks across its sections."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, field_validator, model_validator

from orchestrator.objectives import ACCURACY, OBJECTIVES, SPEED
from orchestrator.spec.mistakes import Mistake, Mistakes, item_mistakes, quoted, unknown_value
from orchestrator.spec.sections.base import Section
from orchestrator.spec.sections.budget import BudgetSpec
from orchestrator.spec.sections.data import DataSpec
from orchestrator.spec.sections.final import FinalSpec
from orchestrator.spec.sections.resources import ResourcesSpec
from orchestrator.spec.sections.tracking import TrackingSpec
from orchestrator.spec.space.checks import sampler_refusal
from orchestrator.spec.space.section import Search, plain_search, read_search
from orchestrator.spec.space.space import Space
from orchestrator.spec.weights import Weights, read_weights, weights_of

ONE_OBJECTIVE_SAMPLERS = ("cmaes",)
"""Samplers that optimise a single objective only."""


def _read_objective(value: Any) -> tuple[str, ...]:
    listed = isinstance(value, list | tuple)
    names = tuple(value) if listed else (value,)
    if not names:
        raise ValueError(f"found an empty list; allowed: {', '.join(OBJECTIVES)}, or a list of them.")
    known = list(OBJECTIVES)  # a list, since an item may be unhashable
    found = item_mistakes(names, lambda name: None if name in known else unknown_value(name, known))
    found = found if listed else [dataclasses.replace(mistake, keys=()) for mistake in found]
    if not found and not OBJECTIVES[names[0]].validation:
        text = f"{names[0]} cannot come first: the scheduler stops trials by the first objective. Put {ACCURACY} first."
        found.append(Mistake((0,) if listed else (), text))
    if found:
        raise Mistakes(found)
    return names


def with_trials(data: Any) -> Any:
    """Set a missing ``budget.trials`` to the number of ``search.configurations``."""
    if not isinstance(data, Mapping):
        return data
    search, budget = data.get("search"), data.get("budget")
    named = len(search.named) if isinstance(search, Search) else 0
    if isinstance(search, Mapping) and "configurations" in search:
        listed = search["configurations"]
        named = max(len(listed), 1) if isinstance(listed, list | tuple) else 1
    if not named or not isinstance(budget, Mapping) or "trials" in budget:
        return data
    return {**data, "budget": {**budget, "trials": named}}


class SweepSpec(Section):
    """Validated spec of one sweep."""

    name: str = Field(description="Name of the sweep, and of its folder in runs.")
    data: DataSpec = Field(description="The photos and their splits.")
    search: Annotated[
        Search, PlainValidator(read_search), PlainSerializer(plain_search), WithJsonSchema({"type": "object"})
    ] = Field(description="The search space.")
    budget: BudgetSpec = Field(
        description="Number of trials and epochs, sampler, scheduler, and when the search stops."
    )
    final: FinalSpec = Field(default=FinalSpec(), description="How the winner is chosen, retrained and evaluated.")
    resources: ResourcesSpec = Field(default=ResourcesSpec(), description="Resources of one trial.")
    tracking: TrackingSpec = Field(default=TrackingSpec(), description="Where the sweep is logged in MLflow.")
    weights: Annotated[Weights, PlainValidator(read_weights, json_schema_input_type=str | dict[str, str])] = Field(
        default="imagenet",
        description="Initial weights: imagenet (from the folder ORCH_WEIGHTS if it has them, else downloaded by "
        "Keras), none (random), or a folder of weight files. A backbone that has no ImageNet weights starts from "
        "random ones. A mapping sets the weights of each backbone to one of these or to a file, as in {resnet50: "
        "my/file.h5, others: imagenet}; a backbone set to optional is left out of the search if its weights are not "
        "available.",
    )
    objective: Annotated[
        tuple[str, ...],
        PlainValidator(_read_objective, json_schema_input_type=str | list[str]),
        PlainSerializer(lambda names: names[0] if len(names) == 1 else list(names)),
    ] = Field(
        default=(ACCURACY,),
        description="Metric to optimise: val_accuracy, val_macro_f1 or val_loss (minimised); or a list of "
        "metrics, where images_per_s is allowed after the first. The scheduler stops trials by the first.",
    )

    @property
    def space(self) -> Space:
        """Search space for the GPU memory of a trial; until that is measured, the space without a GPU."""
        return self.search.space.on_gpu(self.gpu_memory_gb)

    @property
    def gpu_memory_gb(self) -> float:
        """GPU memory of a trial in GB of 10^9 bytes; 0 without a GPU, and until it is measured."""
        memory = self.resources.gpu_memory_gb
        return 0.0 if memory == "auto" else float(memory)

    @property
    def asks_for_gpu_memory(self) -> bool:
        """Whether the space depends on the GPU memory of a trial."""
        return len(gpu_memories(self.search)) > 1

    @property
    def measures_speed(self) -> bool:
        """Whether images_per_s is an objective or part of ``final.choose``."""
        return SPEED in (*self.objective, *self.final.choose.figures)

    def weights_for(self, backbone: str) -> str:
        """Return the initial weights of ``backbone``: "imagenet", "none", a folder of weight files, or one file."""
        return weights_of(self.weights, backbone)

    @property
    def configurations(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Names and values of the named trials to run; () for a search."""
        return self.search.on_gpu(self.gpu_memory_gb).configurations[: self.budget.trials]

    @model_validator(mode="before")
    @classmethod
    def _count_configurations(cls, data: Any) -> Any:
        return with_trials(data)

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value, re.ASCII):
            allowed = "up to 100 letters, digits, dots, dashes and underscores, starting with a letter or a digit"
            raise ValueError(f"found {quoted(value)}; allowed: {allowed} (it names a folder).")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> SweepSpec:
        found = cross_mistakes({name: getattr(self, name) for name in type(self).model_fields})
        if found:
            raise Mistakes(found)
        return self


def cross_mistakes(parts: Mapping[str, Any]) -> list[Mistake]:
    """Return the mistakes between sections. Pure. ``parts``: the top-level fields that are valid by themselves.

    Until the GPU memory is measured, the sampler must support the space for every memory, and each configuration of
    ``budget.first`` must lie in the space for at least one.
    """
    search, budget, resources = parts.get("search"), parts.get("budget"), parts.get("resources")
    data, final = parts.get("data"), parts.get("final")
    found = _fold_mistakes(data, final) + _form_mistakes(data, final)
    if search is None or budget is None:
        return found
    if search.named:
        return found + _configuration_mistakes(search, budget)
    memory = "auto" if resources is None else resources.gpu_memory_gb
    spaces = [search.space.on_gpu(each) for each in (gpu_memories(search) if memory == "auto" else [memory])]
    refusal = next(filter(None, (sampler_refusal(budget.sampler.name, space) for space in spaces)), None)
    objectives = parts.get("objective") or ()
    if refusal:
        found.append(Mistake(("budget", "sampler"), refusal))
    elif len(objectives) > 1 and budget.sampler.name in ONE_OBJECTIVE_SAMPLERS:
        text = f"{budget.sampler.name} optimises one objective, but there are {len(objectives)}; use tpe, gp or random."
        found.append(Mistake(("budget", "sampler"), text))
    for i, values in enumerate(budget.first):
        outside = [space.contains(values) for space in spaces]
        if all(outside):
            found.append(Mistake(("budget", "first", i), f"lies outside the space: {outside[0]}."))
    return found


def gpu_memories(search: Search) -> list[float]:
    """Return the GPU memories in GB at which the space changes, ascending from 0."""
    asked = {case.gpu_memory_gb for field in search.space.fields for case in field.cases}
    return sorted({0.0, *asked})


def _fold_mistakes(data: DataSpec | None, final: FinalSpec | None) -> list[Mistake]:
    if data is None or final is None or not data.folds or final.refit != "train":
        return []
    text = (
        f"found train, but with data.folds {data.folds} there is no separate validation split to leave out: the folds "
        "cover every image outside the test split. Write train+validation, or remove this line."
    )
    return [Mistake(("final", "refit"), text)]


def _form_mistakes(data: DataSpec | None, final: FinalSpec | None) -> list[Mistake]:
    if final is None or not final.makes_forms:
        return []
    found, forms = [], ", ".join(final.forms)
    if data is not None and data.folds:
        text = (
            f"found [{forms}], but with data.folds {data.folds} every network is retrained on all photos outside the "
            "test split, so none is left to choose a form on. Remove this line, or data.folds."
        )
        found.append(Mistake(("final", "forms"), text))
    if final.seeds < 2:
        text = f"found [{forms}], which are made of several networks, but final.seeds is 1; write at least 2."
        found.append(Mistake(("final", "forms"), text))
    if final.winner_form == "single":
        text = f"found single, but final.forms [{forms}] lets validation choose the form; remove one of the two lines."
        found.append(Mistake(("final", "winner_form"), text))
    return found


def _configuration_mistakes(search: Search, budget: BudgetSpec) -> list[Mistake]:
    found = []
    if budget.sampler.name not in ("tpe", "grid"):
        text = f"{budget.sampler.name} has nothing to propose with search.configurations; remove the sampler."
        found.append(Mistake(("budget", "sampler"), text))
    if budget.first:
        text = "search.configurations run in their listed order; remove `first`."
        found.append(Mistake(("budget", "first"), text, at_key=True))
    if budget.trials > len(search.named):
        count = len(search.named)
        text = f"found {budget.trials}, but search.configurations holds {count}; remove it, or write at most {count}."
        found.append(Mistake(("budget", "trials"), text))
    return found
