"""The ``final`` section: choosing and retraining the winner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from orchestrator.objectives import ACCURACY, MACRO_F1, OBJECTIVES
from orchestrator.spec.mistakes import Mistake, Mistakes, item_mistakes, quoted, unknown_field, unknown_value
from orchestrator.spec.sections.base import Section
from trainers.images.policies import valid_policy

ENSEMBLE, SOUP, DISTILLED = FORMS = ("ensemble", "soup", "distilled")
"""Forms of the winner: the mean of the networks' probabilities, the mean of their weights, and one network that learns
the ensemble's probabilities."""


def _read_policies(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"found {quoted(value)}; allowed: a list of crop policies, as in [whole, flip, random_5].")
    if found := item_mistakes(value, _policy_problem):
        raise Mistakes(found)
    return ("whole", *(name for name in value if name != "whole"))


def _policy_problem(name: Any) -> str | None:
    return valid_policy(name) if isinstance(name, str) else f"found {quoted(name)}; allowed: a policy's name."


def _read_forms(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"found {quoted(value)}; allowed: a list of forms, as in [ensemble, soup].")
    if found := item_mistakes(value, lambda name: None if name in FORMS else unknown_value(name, FORMS)):
        raise Mistakes(found)
    return tuple(value)


def _read_bounds(value: Any, minimised: bool) -> dict[str, float]:
    if not isinstance(value, Mapping):
        example = "{val_loss: 0.5}" if minimised else "{images_per_s: 50}"
        raise ValueError(f"found {quoted(value)}; allowed: a mapping of metrics to bounds, as in {example}.")
    known = [name for name, row in OBJECTIVES.items() if row.minimised == minimised]
    other = "at_least" if minimised else "at_most"
    found = []
    for name, bound in value.items():
        if name in OBJECTIVES and name not in known:
            way = "higher" if minimised else "lower"
            text = f"a {way} {name} is better, so its bound belongs in {other}."
            found.append(Mistake((name,), text, at_key=True))
        elif name not in known:
            found.append(Mistake((name,), unknown_field(name, known), at_key=True))
        elif not isinstance(bound, int | float) or isinstance(bound, bool) or bound < 0:
            found.append(Mistake((name,), f"found {quoted(bound)}; allowed: a number, at least 0."))
        elif name in (ACCURACY, MACRO_F1) and bound > 1:
            found.append(Mistake((name,), f"found {quoted(bound)}; allowed: a fraction from 0 to 1."))
    if found:
        raise Mistakes(found)
    return {name: float(bound) for name, bound in value.items()}


def _read_least(value: Any) -> dict[str, float]:
    return _read_bounds(value, minimised=False)


def _read_most(value: Any) -> dict[str, float]:
    return _read_bounds(value, minimised=True)


class ChooseSpec(Section):
    """Rule that chooses the winner by its validation results."""

    best: Literal["val_accuracy", "val_macro_f1", "val_loss", "images_per_s"] | None = Field(
        default=None,
        description="Metric by which the best trial within the bounds wins; null: the first objective.",
    )
    at_least: Annotated[dict[str, float], PlainValidator(_read_least, json_schema_input_type=dict[str, float])] = Field(
        default={}, description="Minimum values of metrics, as in {images_per_s: 50}."
    )
    at_most: Annotated[dict[str, float], PlainValidator(_read_most, json_schema_input_type=dict[str, float])] = Field(
        default={}, description="Maximum values of metrics, as in {val_loss: 0.5}."
    )

    @property
    def figures(self) -> tuple[str, ...]:
        """Every metric that the rule uses."""
        return tuple(dict.fromkeys([*([self.best] if self.best else []), *self.at_least, *self.at_most]))


class DistillationSpec(Section):
    """How one network is trained on the ensemble's probabilities (Hinton, Vinyals and Dean 2015)."""

    temperature: float = Field(
        default=2.0,
        ge=1,
        le=100,
        description="Temperature by which the logits of the ensemble and the network are divided.",
    )
    alpha: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Share of the ensemble's probabilities in the loss; the labels have the rest.",
    )
    epochs: int | None = Field(
        default=None, ge=1, le=10_000, description="Epochs of the distilled network; null: those of each retraining."
    )


class FinalSpec(Section):
    """How the winner is chosen, retrained and evaluated."""

    seeds: int = Field(
        default=3, ge=1, le=100, description="Number of times to retrain the winner, each with a different seed."
    )
    epochs: int | None = Field(
        default=None, ge=1, le=10_000, description="Epochs of each retraining; null: budget.epochs."
    )
    refit: Literal["train", "train+validation"] = Field(default="train+validation", description="Splits to retrain on.")
    policies: Annotated[tuple[str, ...], BeforeValidator(_read_policies)] = Field(
        default=("whole", "flip", "ten_crop"),
        description="Crop policies to compare: whole, centre, flip, ten_crop, pyramid, random_K, or your own as "
        "my_module:NAME. whole is always included.",
    )
    runners_up: int = Field(
        default=1, ge=0, le=100, description="Number of next-best configurations to retrain in the same way."
    )
    winner_form: Literal["ensemble", "single"] = Field(
        default="ensemble",
        description="What is registered: the ensemble of all seeds' networks, or the first network (single).",
    )
    forms: Annotated[tuple[str, ...], BeforeValidator(_read_forms)] = Field(
        default=(ENSEMBLE,),
        description="Forms of the winner among which validation chooses the one that is registered: ensemble; soup, "
        "the average of the weights of the networks that are best together, which then all start from the same head; "
        "distilled, one network trained on the ensemble's probabilities. With refit: train+validation the winner is "
        "trained twice, also without the validation photos, to choose on those. By default nothing is chosen, and "
        "winner_form decides.",
    )
    distillation: DistillationSpec = Field(
        default=DistillationSpec(), description="How the distilled form is trained, if forms lists it."
    )
    choose: ChooseSpec = Field(
        default=ChooseSpec(),
        description="How to choose the winner: the best trial by one metric among those within bounds, as in "
        "{best: val_accuracy, at_least: {images_per_s: 50}}; by default, the best trial by the first objective.",
    )

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the networks are retrained on."""
        return ("train", "validation") if self.refit == "train+validation" else ("train",)

    @property
    def makes_forms(self) -> bool:
        """Whether there are other forms than the ensemble."""
        return self.forms != (ENSEMBLE,)

    @property
    def shares_start(self) -> bool:
        """Whether all networks of a configuration start from the same weights, so that they can be averaged."""
        return SOUP in self.forms

    @property
    def trains_held_out(self) -> bool:
        """Whether the winner is also retrained without the validation photos, to choose on them."""
        return self.makes_forms and "validation" in self.splits
