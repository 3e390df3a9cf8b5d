"""Whatever groups, caches or prices trials by their frozen part tells the same ones apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable

import pytest

from orchestrator.plan.calibration import PartKey
from orchestrator.plan.workload import _feature_shelf
from orchestrator.search.next_step import feature_set_of, trace_key
from orchestrator.sweep.leaderboard import _prefix_of
from trainers.config import PrefixConfig, TrialConfig
from trainers.contract import FitJob

CONFIG = TrialConfig(backbone="mobilenet_v2", unfrozen_layers=5)
CHANGES: dict[str, dict[str, object]] = {
    "backbone": {"backbone": "mobilenet_v2_0.75"},
    "image_size": {"image_size": 96},
    "unfrozen_layers": {"unfrozen_layers": 20},
    "output_stride": {"output_stride": 16},
    "feature_fusion": {"feature_fusion": "concat"},
    "pooling": {"pooling": "max"},
    "precision": {},
    "mixes": {"mixup": 0.2},
}
"""Field of ``PrefixConfig`` -> a change of ``CONFIG`` that changes it; the precision is a job's."""


def job(config: TrialConfig, precision: str) -> FitJob:
    return FitJob("id", config, 0, "manifest", precision=precision)


KEYS: dict[str, Callable[[TrialConfig, str], Hashable]] = {
    "the prefix's key": lambda config, precision: config.prefix_key("none", precision),
    "the part's speed": PartKey.of,
    "the rows to wait for": lambda config, precision: feature_set_of(job(config, precision)),
    "the traced step": lambda config, precision: trace_key(job(config, precision)),
    "the models judged together": lambda config, precision: (_prefix_of(config), precision),
}


def test_every_field_of_the_prefix_is_changed_here() -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(PrefixConfig)}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("field", CHANGES)
def test_a_field_that_decides_the_prefix_is_part_of_every_key(field: str, key: str) -> None:
    other = dataclasses.replace(CONFIG, **CHANGES[field])  # type: ignore[arg-type]
    precision = "mixed_float16" if field == "precision" else "float32"
    assert getattr(other.prefix(precision), field) != getattr(CONFIG.prefix(), field)
    assert KEYS[key](other, precision) != KEYS[key](CONFIG, "float32")
    assert KEYS[key](CONFIG, "float32") == KEYS[key](dataclasses.replace(CONFIG, dropout=0.5), "float32")


def test_planned_shelves_are_equal_if_the_features_are() -> None:
    """A field that no rule of the plan names separates shelves; one that changes no feature does not."""
    whole = TrialConfig(backbone="mobilenet_v2")
    plain = _feature_shelf(PartKey.of(whole), "squash", 4)
    assert _feature_shelf(PartKey.of(whole, "mixed_float16"), "squash", 4) != plain
    assert _feature_shelf(PartKey.of(dataclasses.replace(whole, pooling="max")), "squash", 4) != plain
    assert _feature_shelf(PartKey.of(dataclasses.replace(whole, batch_size=8, hidden=9)), "squash", 4) == plain
    map_rows = _feature_shelf(PartKey.of(CONFIG), "squash", 4)
    assert _feature_shelf(PartKey.of(dataclasses.replace(CONFIG, pooling="max")), "squash", 4) == map_rows
