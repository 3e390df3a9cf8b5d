"""The parts of a sweep's file as frozen values, and what must fit together among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from orchestrator.mistakes import Mistake, Mistakes, mistakes_of, nearest, show
from orchestrator.searchpart import Search, plain_search, read_configuration, read_search
from orchestrator.space import Space, sampler_refusal
from trainers.policies import valid_policy

BUILTIN = "builtin:"
BUILTINS = ("builtin:digits",)
TABLES = (".csv", ".parquet")
LARGEST_SEED = 2**31 - 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SplitRatios(_Part):
    """Shares of the images."""

    train: float = Field(default=0.7, gt=0, lt=1, description="Share of the images that is trained on.")
    validation: float = Field(default=0.15, gt=0, lt=1, description="Share on which everything is chosen.")
    test: float = Field(default=0.15, gt=0, lt=1, description="Share that is read once, for the final leaderboard.")

    @model_validator(mode="after")
    def _add_up(self) -> SplitRatios:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test add up to {total:g}; they must add up to 1.")
        return self


def _read_splits(value: Any) -> SplitRatios | str:
    if value == "own" or isinstance(value, SplitRatios):
        return value
    if not isinstance(value, Mapping):
        allowed = "{train: 0.7, validation: 0.15, test: 0.15}, or own for the table's own split column"
        raise ValueError(f"found {show(value)}; allowed: {allowed}.")
    try:
        return SplitRatios.model_validate(value)
    except ValidationError as error:
        raise Mistakes(mistakes_of(error, SplitRatios)) from error


class DataSpec(_Part):
    """The photos and how they are divided."""

    source: str = Field(
        min_length=1,
        description="A folder per class, a .csv or .parquet table, or builtin:digits. Relative to the current folder; "
        "${ORCH_DATA} and other environment variables are filled in.",
    )
    splits: Annotated[
        SplitRatios | Literal["own"],
        PlainValidator(_read_splits, json_schema_input_type=SplitRatios | Literal["own"]),
        PlainSerializer(lambda splits: splits if splits == "own" else splits.model_dump()),
    ] = Field(
        default=SplitRatios(), description="Ratios of train, validation and test; or own: the table's own split column."
    )
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of the splits and of the augmented copies.")
    duplicates: Literal["group", "drop", "keep"] = Field(
        default="group",
        description="Duplicates stay in one split (group), only the first is used (drop), or near ones may fall "
        "where they do (keep).",
    )

    @model_validator(mode="after")
    def _source_fits(self) -> DataSpec:
        if self.source.startswith(BUILTIN) and self.source not in BUILTINS:
            text = f"found {show(self.source)}{nearest(self.source, BUILTINS)} Built in: {', '.join(BUILTINS)}."
            raise Mistakes([Mistake(("source",), text)])
        if self.splits == "own" and not self.source.lower().endswith(TABLES):
            text = f"own needs a table with a split column ({' or '.join(TABLES)}); the source is {show(self.source)}."
            raise Mistakes([Mistake(("splits",), text)])
        return self


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class _Named(_Part):
    """A name and the numbers that go with it; those of other names are refused."""

    def _refuse_others(self, taken: Mapping[str, tuple[str, ...]]) -> None:
        name = self.name  # type: ignore[attr-defined]
        allowed = ("name", *taken[name])
        wrong = [key for key in type(self).model_fields if key in self.model_fields_set and key not in allowed]
        if wrong:
            has = f"it takes {', '.join(taken[name])}" if taken[name] else "it takes no numbers"
            raise Mistakes(Mistake((key,), f"{name} has no {key}; {has}.", at_key=True) for key in wrong)


_SCHEDULERS = {
    "asha": ("grace_epochs", "reduction_factor"),
    "hyperband": ("reduction_factor",),
    "median": ("grace_epochs", "min_trials"),
    "none": (),
}
_SAMPLERS = {
    "tpe": ("startup_trials",),
    "random": (),
    "grid": (),
    "cmaes": ("startup_trials",),
    "gp": ("startup_trials",),
}
SAMPLER_PACKAGES = {"cmaes": "cmaes", "gp": "torch"}
"""Samplers that come as extras, and the package that each needs."""


class SchedulerSpec(_Named):
    """What stops a trial early."""

    name: Literal["asha", "hyperband", "median", "none"] = Field(
        default="asha", description="Which rule stops trials early."
    )
    grace_epochs: int = Field(default=1, ge=1, description="No trial is stopped before (asha, median).")
    reduction_factor: float = Field(
        default=3.0, gt=1, le=100, description="One trial in so many goes on at each rung (asha, hyperband)."
    )
    min_trials: int = Field(
        default=3, ge=1, description="Other trials that the median is taken over, at least (median)."
    )

    @model_validator(mode="after")
    def _fits(self) -> SchedulerSpec:
        self._refuse_others(_SCHEDULERS)
        return self

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key in ("name", *_SCHEDULERS[self.name])}


class SamplerSpec(_Named):
    """What proposes the next configuration."""

    name: Literal["tpe", "random", "grid", "cmaes", "gp"] = Field(default="tpe", description="Which rule proposes.")
    startup_trials: int = Field(default=10, ge=1, description="Random ones before it begins to learn (tpe, cmaes, gp).")

    @model_validator(mode="after")
    def _fits(self) -> SamplerSpec:
        self._refuse_others(_SAMPLERS)
        return self

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key in ("name", *_SAMPLERS[self.name])}


def _read_first(value: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"found {show(value)}; allowed: a list of configurations, each a mapping of fields.")
    read = [read_configuration(item, (i,)) for i, item in enumerate(value)]
    mistakes = [mistake for _, found in read for mistake in found]
    if mistakes:
        raise Mistakes(mistakes)
    return tuple(values for values, _ in read)


def _read_concurrent(value: Any) -> int | str:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"found {show(value)}; allowed: a whole number, at least 1, or auto for as many as fit.")


class BudgetSpec(_Part):
    """How much is tried, in which order, and when it ends."""

    trials: int = Field(
        ge=1, le=1_000_000, description="Distinct configurations to try; of `configurations`, the first so many."
    )
    epochs: int = Field(ge=1, le=10_000, description="Epochs of a trial that is not stopped early.")
    hours: float | None = Field(default=None, gt=0, description="The search ends after so many hours.")
    target_accuracy: float | None = Field(
        default=None, gt=0, le=1, description="The search ends when a validation accuracy reaches it."
    )
    concurrent: Annotated[
        int | Literal["auto"], PlainValidator(_read_concurrent, json_schema_input_type=int | Literal["auto"])
    ] = Field(default="auto", description="Trials at once; auto: as many as the machine takes.")
    retries: int = Field(default=2, ge=0, le=100, description="How often a trial that crashed is tried again.")
    scheduler: Annotated[
        SchedulerSpec,
        BeforeValidator(
            _by_name, json_schema_input_type=Literal["asha", "hyperband", "median", "none"] | SchedulerSpec
        ),
    ] = Field(default=SchedulerSpec(), description="What stops trials early: a name, or a mapping of name and numbers.")
    sampler: Annotated[
        SamplerSpec,
        BeforeValidator(_by_name, json_schema_input_type=Literal["tpe", "random", "grid", "cmaes", "gp"] | SamplerSpec),
    ] = Field(
        default=SamplerSpec(), description="What proposes configurations: a name, or a mapping of name and numbers."
    )
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of the sampler and of every trial.")
    first: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_read_first)] = Field(
        default=(), description="Configurations to try first; each lies inside the space. Fixed fields may be left out."
    )

    @model_validator(mode="after")
    def _fits(self) -> BudgetSpec:
        found = []
        grace = self.scheduler.grace_epochs
        if "grace_epochs" in _SCHEDULERS[self.scheduler.name] and grace > self.epochs:
            text = (
                f"found {grace}, which is more than budget.epochs ({self.epochs}), so no trial would ever be stopped."
            )
            found.append(Mistake(("scheduler", "grace_epochs"), text))
        if len(self.first) > self.trials:
            text = f"holds {len(self.first)} configurations, more than budget.trials ({self.trials})."
            found.append(Mistake(("first",), text, at_key=True))
        if found:
            raise Mistakes(found)
        return self


def _read_policies(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"found {show(value)}; allowed: a list of crop policies, as in [whole, flip, random_5].")
    found = []
    for i, name in enumerate(value):
        problem = valid_policy(name) if isinstance(name, str) else f"found {show(name)}; allowed: a policy's name."
        if problem or name in value[:i]:
            found.append(Mistake((i,), problem or f"found {show(name)} twice in the list."))
    if found:
        raise Mistakes(found)
    return ("whole", *(name for name in value if name != "whole"))


class FinalSpec(_Part):
    """How the winner is retrained and judged."""

    seeds: int = Field(
        default=3, ge=1, le=100, description="How many times the winner is retrained, each with its own seed."
    )
    epochs: int | None = Field(
        default=None, ge=1, le=10_000, description="Epochs of the retraining; null: budget.epochs."
    )
    refit: Literal["train", "train+validation"] = Field(
        default="train+validation", description="What it is retrained on."
    )
    policies: Annotated[tuple[str, ...], BeforeValidator(_read_policies)] = Field(
        default=("whole", "flip", "ten_crop"),
        description="Crop policies to compare: whole, centre, flip, ten_crop, pyramid, random_K. whole is always among "
        "them.",
    )
    runners_up: int = Field(
        default=1, ge=0, le=100, description="Further configurations that are retrained the same way."
    )
    winner_form: Literal["ensemble", "single"] = Field(
        default="ensemble", description="What is registered: all seeds' networks together, or the first one."
    )


def _read_gpus(value: Any) -> float | str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto":
        return "auto"
    if number and (0 <= value <= 1 or (1 < value <= 1024 and float(value).is_integer())):
        return float(value)
    allowed = "a share of one GPU from 0 to 1, a whole number, or auto for one where there is one"
    raise ValueError(f"found {show(value)}; allowed: {allowed}.")


class ResourcesSpec(_Part):
    """What one trial gets."""

    cpus: float = Field(default=1, gt=0, le=4096, description="CPUs of one trial.")
    gpus: Annotated[
        float | Literal["auto"], PlainValidator(_read_gpus, json_schema_input_type=float | Literal["auto"])
    ] = Field(default="auto", description="GPUs of one trial: a share from 0 to 1, a whole number, or auto.")
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = Field(
        default="auto", description="Number format of the network; auto: what the device is good at."
    )


def _text_tags(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: show(tag) if isinstance(tag, int | float) else tag for key, tag in value.items()}


class TrackingSpec(_Part):
    """Where MLflow shows the sweep."""

    enabled: bool = Field(default=True, description="Whether MLflow shows the sweep at all.")
    uri: str | None = Field(
        default=None, description="MLflow's address; null: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db."
    )
    experiment: str | None = Field(
        default=None, min_length=1, description="The experiment's name; null: the sweep's name."
    )
    tags: Annotated[dict[str, str], BeforeValidator(_text_tags)] = Field(
        default={}, description="Tags of the parent run."
    )
    model: str | None = Field(
        default=None, min_length=1, description="The registered model's name; null: the data's name."
    )

    @field_validator("model")
    @classmethod
    def _model_name(cls, value: str | None) -> str | None:
        if value and ("/" in value or ":" in value):
            raise ValueError(f'found {show(value)}; the name of a registered model holds no "/" and no ":".')
        return value


def with_trials(data: Any) -> Any:
    """The raw file with ``budget.trials`` counted from ``search.configurations`` where it is left out."""
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


class SweepSpec(_Part):
    """One sweep, complete and checked."""

    name: str = Field(description="The sweep's name, and its folder's below runs.")
    data: DataSpec = Field(description="The photos and how they are divided.")
    search: Annotated[
        Search, PlainValidator(read_search), PlainSerializer(plain_search), WithJsonSchema({"type": "object"})
    ] = Field(description="What may vary.")
    budget: BudgetSpec = Field(description="How much is tried, in which order, and when it ends.")
    final: FinalSpec = Field(default=FinalSpec(), description="How the winner is retrained and judged.")
    resources: ResourcesSpec = Field(default=ResourcesSpec(), description="What one trial gets.")
    tracking: TrackingSpec = Field(default=TrackingSpec(), description="Where MLflow shows the sweep.")
    weights: str = Field(
        default="imagenet",
        description="imagenet (Keras downloads them), none, or a folder of weight files; ${ORCH_WEIGHTS} is filled in. "
        "A backbone without ImageNet weights starts at random.",
    )

    @property
    def space(self) -> Space:
        return self.search.space

    @property
    def configurations(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Name and values of the named trials to run; () for a search."""
        return self.search.configurations[: self.budget.trials]

    @model_validator(mode="before")
    @classmethod
    def _count_configurations(cls, data: Any) -> Any:
        return with_trials(data)

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value, re.ASCII):
            allowed = "letters, digits, dots, dashes and underscores, the first a letter or a digit (it names a folder)"
            raise ValueError(f"found {show(value)}; allowed: {allowed}.")
        return value

    @field_validator("weights", mode="before")
    @classmethod
    def _names_weights(cls, value: Any) -> Any:
        if not isinstance(value, str) or not value:
            raise ValueError(f"found {show(value)}; allowed: imagenet, none, or a folder of weight files.")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> SweepSpec:
        found = cross_mistakes({name: getattr(self, name) for name in type(self).model_fields})
        if found:
            raise Mistakes(found)
        return self


def cross_mistakes(parts: Mapping[str, Any]) -> list[Mistake]:
    """What does not fit together among ``parts``, the top-level fields that are right by themselves. Pure."""
    search, budget = parts.get("search"), parts.get("budget")
    if search is None or budget is None:
        return []
    if search.named:
        return _mistakes_beside_configurations(search, budget)
    found = []
    refusal = sampler_refusal(budget.sampler.name, search.space)
    if refusal:
        found.append(Mistake(("budget", "sampler"), refusal))
    for i, values in enumerate(budget.first):
        outside = search.space.contains(values)
        if outside:
            found.append(Mistake(("budget", "first", i), f"lies outside the space: {outside}."))
    return found


def _mistakes_beside_configurations(search: Search, budget: BudgetSpec) -> list[Mistake]:
    found = []
    if budget.sampler.name not in ("tpe", "grid"):
        text = f"{budget.sampler.name} has nothing to propose beside search.configurations; leave the sampler out."
        found.append(Mistake(("budget", "sampler"), text))
    if budget.first:
        text = "configurations run in the order of their list; leave `first` out."
        found.append(Mistake(("budget", "first"), text, at_key=True))
    if budget.trials > len(search.named):
        count = len(search.named)
        text = f"found {budget.trials}, but search.configurations holds {count}; leave it out, or at most {count}."
        found.append(Mistake(("budget", "trials"), text))
    return found
