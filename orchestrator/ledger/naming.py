"""Names of trials as people see them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.ledger.state import TrialRecord
from trainers.config import TrialConfig

CARD = ("backbone", "unfrozen_layers", "dropout", "multiplier", "head", "smoothing")
"""Fields that a name always shows where they differ from the defaults."""

SHORT_FORMS = {
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
    "copies": "copies={}",
    "steps": "steps={}",
    "batch_norm": "bn={}",
    "bottom_rate": "bottom={}",
    "margin_warmup": "mwarm={}",
    "ema": "ema={}",
    "warm_head": "warm={}",
    "accumulation_steps": "accumulate={}",
    "draws": "draws={}",
    "decode": "decode={}",
    "epochs": "{}ep",
}
"""Field -> template of its value in a run's name; other fields show the bare value."""


def run_name(number: int, config: Mapping[str, Any], varied: Sequence[str] = CARD, given: str = "") -> str:
    """Return a name such as ``003 mobilenet_1.0 n=13 cosface x2``, or the number and ``given``, a named trial's name.

    Shows the backbone, and those of ``varied`` that are not at their default.
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
        words.append(SHORT_FORMS.get(name, "{}").format(text))
    return " ".join([f"{number:03d}", *words])


def legend(names: Iterable[str]) -> str:
    """Explain the abbreviations in ``names`` (from ``run_name``) as "n: unfrozen_layers, x: multiplier"; "" if none.

    Parts of the field's own name, as in ``mixup=0.2`` and ``drop=0.2``, are not explained.
    """
    words = {word for name in names for word in name.split()}
    found = []
    for field_name, template in SHORT_FORMS.items():
        short = template.replace("{}", "").rstrip("=")
        value = "[^ ]+" if "=" in template else r"[0-9][0-9.e+-]*"
        pattern = re.compile(value.join(re.escape(part) for part in template.split("{}")))
        is_plain = len(short) > 2 and short in field_name
        if not is_plain and any(pattern.fullmatch(word) for word in words):
            found.append(f"{short}: {field_name}")
    return ", ".join(found)


def varied_fields(created: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the card's fields and those that the sampler chose; ``created``: payload of the trial's first event."""
    proposal = created.get("proposal") or {}
    chosen = [name.partition("@")[0] for name in proposal.get("parameters") or ()]
    return tuple(dict.fromkeys([*CARD, *chosen]))


def given_name(record: TrialRecord) -> str:
    """Return the trial's name from the file or the refit; "" if it has only its id."""
    return "" if record.name == record.id else record.name


def label(record: TrialRecord) -> str:
    """Return ``run_name`` of a recorded trial."""
    return run_name(record.number, record.config, varied_fields(record.created), given_name(record))
