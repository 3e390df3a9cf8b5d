"""The ``budget`` section: number of trials, sampler, scheduler, and when the search stops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from orchestrator.spec.mistakes import Mistake, Mistakes, quoted
from orchestrator.spec.sections.base import LARGEST_SEED, Section
from orchestrator.spec.space.section import read_configuration


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class _Named(Section):
    """A name and its options, of which ``taken`` lists those of each name; rejects and omits those of other names."""

    taken: ClassVar[Mapping[str, tuple[str, ...]]]
    name: str

    @model_validator(mode="after")
    def _fits(self) -> Self:
        taken = self.taken[self.name]
        wrong = [key for key in type(self).model_fields if key in self.model_fields_set and key not in ("name", *taken)]
        if wrong:
            has = f"it takes {', '.join(taken)}" if taken else "it takes no options"
            raise Mistakes(Mistake((key,), f"{self.name} has no {key}; {has}.", at_key=True) for key in wrong)
        return self

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key in ("name", *self.taken[self.name])}


SCHEDULERS = {  # name -> its options
    "asha": ("grace_epochs", "reduction_factor"),
    "hyperband": ("reduction_factor",),
    "median": ("grace_epochs", "min_trials"),
    "none": (),
}
SAMPLERS = {  # name -> its options
    "tpe": ("startup_trials",),
    "random": (),
    "grid": (),
    "cmaes": ("startup_trials",),
    "gp": ("startup_trials",),
}
SAMPLER_PACKAGES = {"cmaes": "cmaes", "gp": "torch"}
"""Sampler -> optional package that it needs."""


class SchedulerSpec(_Named):
    """Scheduler, which stops trials early, and its options."""

    taken: ClassVar[Mapping[str, tuple[str, ...]]] = SCHEDULERS

    name: Literal["asha", "hyperband", "median", "none"] = Field(
        default="asha", description="Algorithm that stops trials early."
    )
    grace_epochs: int = Field(
        default=1, ge=1, description="Minimum epochs before a trial can be stopped (asha, median)."
    )
    reduction_factor: float = Field(
        default=3.0,
        gt=1,
        le=100,
        description="At each rung, one trial in reduction_factor continues (asha, hyperband).",
    )
    min_trials: int = Field(
        default=3, ge=1, description="Minimum number of other trials to compute the median from (median)."
    )


class SamplerSpec(_Named):
    """Sampler, which proposes configurations, and its options."""

    taken: ClassVar[Mapping[str, tuple[str, ...]]] = SAMPLERS

    name: Literal["tpe", "random", "grid", "cmaes", "gp"] = Field(
        default="tpe", description="Algorithm that proposes configurations."
    )
    startup_trials: int = Field(
        default=10, ge=1, description="Random trials before the sampler starts to learn (tpe, cmaes, gp)."
    )


def _read_first(value: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"found {quoted(value)}; allowed: a list of configurations, each a mapping of fields.")
    read = [read_configuration(item, (i,)) for i, item in enumerate(value)]
    mistakes = [mistake for _, found in read for mistake in found]
    if mistakes:
        raise Mistakes(mistakes)
    return tuple(values for values, _ in read)


def _read_concurrent(value: Any) -> int | str:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"found {quoted(value)}; allowed: a whole number, at least 1, or auto for as many as fit.")


class BudgetSpec(Section):
    """Number of trials and epochs, sampler, scheduler, and when the search stops."""

    trials: int = Field(
        ge=1,
        le=1_000_000,
        description="Number of distinct configurations to try; with search.configurations, how many of the list to "
        "run, from the first.",
    )
    epochs: int = Field(ge=1, le=10_000, description="Epochs of a trial that is not stopped early.")
    hours: float | None = Field(default=None, gt=0, description="Maximum hours of search; null: no limit.")
    target_accuracy: float | None = Field(
        default=None, gt=0, le=1, description="Validation accuracy at which the search stops; null: none."
    )
    concurrent: Annotated[
        int | Literal["auto"], PlainValidator(_read_concurrent, json_schema_input_type=int | Literal["auto"])
    ] = Field(default="auto", description="Maximum concurrent trials; auto: as many as the CPUs and GPUs allow.")
    retries: int = Field(default=2, ge=0, le=100, description="Maximum retries of a trial that crashes.")
    scheduler: Annotated[
        SchedulerSpec,
        BeforeValidator(
            _by_name, json_schema_input_type=Literal["asha", "hyperband", "median", "none"] | SchedulerSpec
        ),
    ] = Field(default=SchedulerSpec(), description="What stops trials early: a name, or a mapping of name and options.")
    sampler: Annotated[
        SamplerSpec,
        BeforeValidator(_by_name, json_schema_input_type=Literal["tpe", "random", "grid", "cmaes", "gp"] | SamplerSpec),
    ] = Field(
        default=SamplerSpec(), description="What proposes configurations: a name, or a mapping of name and options."
    )
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of the sampler and of every trial.")
    first: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_read_first)] = Field(
        default=(), description="Configurations to try first. Each must lie in the space; fixed fields can be omitted."
    )

    @property
    def most_at_once(self) -> int | None:
        """Maximum concurrent trials; None for "auto"."""
        return None if self.concurrent == "auto" else int(self.concurrent)

    @model_validator(mode="after")
    def _fits(self) -> BudgetSpec:
        found = []
        grace = self.scheduler.grace_epochs
        if "grace_epochs" in SCHEDULERS[self.scheduler.name] and grace > self.epochs:
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
