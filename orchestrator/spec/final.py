"""The sections ``final``, ``resources`` and ``tracking``: what comes after the search, and where it all runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, field_validator

from orchestrator.objectives import ACCURACY, MACRO_F1, OBJECTIVES
from orchestrator.spec.base import Section
from orchestrator.spec.mistakes import Mistake, Mistakes, quoted, unknown_field
from trainers.images.policies import valid_policy

LARGEST_MEMORY_GB = 10_000


def _read_policies(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"found {quoted(value)}; allowed: a list of crop policies, as in [whole, flip, random_5].")
    found = []
    for i, name in enumerate(value):
        problem = valid_policy(name) if isinstance(name, str) else f"found {quoted(name)}; allowed: a policy's name."
        if problem or name in value[:i]:
            found.append(Mistake((i,), problem or f"found {quoted(name)} twice in the list."))
    if found:
        raise Mistakes(found)
    return ("whole", *(name for name in value if name != "whole"))


def _read_bounds(value: Any, minimised: bool) -> dict[str, float]:
    if not isinstance(value, Mapping):
        example = "{val_loss: 0.5}" if minimised else "{images_per_s: 50}"
        raise ValueError(f"found {quoted(value)}; allowed: a mapping of figures to bounds, as in {example}.")
    known = [name for name, row in OBJECTIVES.items() if row.minimised == minimised]
    other = "at_least" if minimised else "at_most"
    found = []
    for name, bound in value.items():
        if name in OBJECTIVES and name not in known:
            way = "higher" if minimised else "lower"
            text = f"{name} is better the {way} it is, so its bound belongs to {other}."
            found.append(Mistake((name,), text, at_key=True))
        elif name not in known:
            found.append(Mistake((name,), unknown_field(name, known), at_key=True))
        elif not isinstance(bound, int | float) or isinstance(bound, bool) or bound < 0:
            found.append(Mistake((name,), f"found {quoted(bound)}; allowed: a number, at least 0."))
        elif name in (ACCURACY, MACRO_F1) and bound > 1:
            found.append(Mistake((name,), f"found {quoted(bound)}; allowed: a share, from 0 to 1."))
    if found:
        raise Mistakes(found)
    return {name: float(bound) for name, bound in value.items()}


def _read_least(value: Any) -> dict[str, float]:
    return _read_bounds(value, minimised=False)


def _read_most(value: Any) -> dict[str, float]:
    return _read_bounds(value, minimised=True)


class ChooseSpec(Section):
    """The rule that picks the winner, on validation."""

    best: Literal["val_accuracy", "val_macro_f1", "val_loss", "images_per_s"] | None = Field(
        default=None,
        description="What the winner is best in among the trials within the bounds; null: the first objective.",
    )
    at_least: Annotated[dict[str, float], PlainValidator(_read_least, json_schema_input_type=dict[str, float])] = Field(
        default={}, description="Bounds from below, as in {images_per_s: 50}."
    )
    at_most: Annotated[dict[str, float], PlainValidator(_read_most, json_schema_input_type=dict[str, float])] = Field(
        default={}, description="Bounds from above, for val_loss."
    )

    @property
    def figures(self) -> tuple[str, ...]:
        """Every figure that the rule looks at."""
        return tuple(dict.fromkeys([*([self.best] if self.best else []), *self.at_least, *self.at_most]))


class FinalSpec(Section):
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
        description="Crop policies to compare: whole, centre, flip, ten_crop, pyramid, random_K, or your own as "
        "my_module:NAME. whole is always among them.",
    )
    runners_up: int = Field(
        default=1, ge=0, le=100, description="Further configurations that are retrained the same way."
    )
    winner_form: Literal["ensemble", "single"] = Field(
        default="ensemble", description="What is registered: all seeds' networks together, or the first one."
    )
    choose: ChooseSpec = Field(
        default=ChooseSpec(),
        description="Which trial wins: the best in one figure among those within bounds, as in {best: val_accuracy, "
        "at_least: {images_per_s: 50}}; left out, the best in the first objective.",
    )


def _read_gpus(value: Any) -> float | str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto":
        return "auto"
    if number and (0 <= value <= 1 or (1 < value <= 1024 and float(value).is_integer())):
        return float(value)
    allowed = "a share of one GPU from 0 to 1, a whole number, or auto for one where there is one"
    raise ValueError(f"found {quoted(value)}; allowed: {allowed}.")


def _read_memory(value: Any) -> float | str:
    if value == "auto":
        return "auto"
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST_MEMORY_GB:
        return float(value)
    raise ValueError(f"found {quoted(value)}; allowed: a number of GB, at least 0, or auto to measure it.")


class ResourcesSpec(Section):
    """What one trial gets."""

    cpus: float = Field(default=1, gt=0, le=4096, description="CPUs of one trial.")
    gpus: Annotated[
        float | Literal["auto"], PlainValidator(_read_gpus, json_schema_input_type=float | Literal["auto"])
    ] = Field(default="auto", description="GPUs of one trial: a share from 0 to 1, a whole number, or auto.")
    gpu_memory_gb: Annotated[
        float | Literal["auto"], PlainValidator(_read_memory, json_schema_input_type=float | Literal["auto"])
    ] = Field(
        default="auto",
        description="GPU memory of one trial in GB of 10^9 bytes, for the cases of the search that ask for it; auto: "
        "what nvidia-smi finds on this machine times the trial's share of a GPU, 0 without one. On a cluster of other "
        "machines give the number.",
    )
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = Field(
        default="auto", description="Number format of the network; auto: what the device is good at."
    )
    store_dtype: Literal["float32", "float16"] = Field(
        default="float32",
        description="What features of the frozen part are kept in; float16 takes half the disk and the reading, and "
        "changes losses by some thousandths of themselves at most.",
    )


def _text_tags(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: quoted(tag) if isinstance(tag, int | float) else tag for key, tag in value.items()}


class TrackingSpec(Section):
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
            raise ValueError(f'found {quoted(value)}; the name of a registered model holds no "/" and no ":".')
        return value
