"""naming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.ledger.ledger import TrialRecord
from trainers.config import TrialConfig

CARD = ("backbone", "unfrozen_layers", "dropout", "multiplier", "head", "smoothing")
"""The card's six fields: a run's name shows those that differ from a plain trial, and whatever else was searched."""


_SHORT = {
    "unfrozen_layers": "n={}",
    "dropout": "drop={}",
    "multiplier": "x{}",
    "smoothing": "smooth={}",
    "image_size": "{}px",
    "learning_rate": "lr={}",
    "weight_decay": "wd={}",
    "batch_size": "batch={}",
    "clip_norm": "clip={}",
    "hidden": "hidden={}",
    "scale": "s={}",
    "margin": "m={}",
    "warmup": "warmup={}",
    "output_stride": "stride={}",
    "feature_fusion": "fusion={}",
    "mixup": "mixup={}",
    "cutmix": "cutmix={}",
    "balance": "balance={}",
    "epochs": "{}ep",
}


def run_name(number: int, config: Mapping[str, Any], varied: Sequence[str] = CARD, given: str = "") -> str:
    """What the UI lists: ``003 mobilenet_1.0 n=13 cosface x2``. ``given`` is a named trial's name and comes instead.

    Of ``varied``, fields left at their default are not mentioned; the backbone always is.
    """
    if given:
        return f"{number:03d} {given}"
    plain = TrialConfig().to_dict()
    words = [str(config.get("backbone", plain["backbone"]))]
    for name in varied:
        value = config.get(name)
        if name == "backbone" or value is None or value == plain.get(name):
            continue
        text = f"{value:.3g}" if isinstance(value, int | float) else str(value)
        words.append(_SHORT.get(name, "{}").format(text))
    return " ".join([f"{number:03d}", *words])


def varied_fields(created: Mapping[str, Any]) -> tuple[str, ...]:
    """The card's fields and those that the trial's proposal had to choose; ``created``: the payload that created it."""
    proposal = created.get("proposal") or {}
    chosen = [name.partition("@")[0] for name in proposal.get("parameters") or ()]
    return tuple(dict.fromkeys([*CARD, *chosen]))


def given_name(record: TrialRecord) -> str:
    """The name that a person, or the refit, gave the trial; "" where it has none but its id."""
    return "" if record.name == record.id else record.name


def label(record: TrialRecord) -> str:
    """``run_name`` of what the ledger knows of a trial."""
    return run_name(record.number, record.config, varied_fields(record.created), given_name(record))
