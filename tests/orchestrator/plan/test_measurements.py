"""What of a space is measured, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.plan.measurements import measurement_plan
from tests.support.plan_files import SPACE, SPEED, calibration, spec_of


def test_a_space_asks_for_every_part_that_its_trials_have(tmp_path: Path) -> None:
    asked = measurement_plan(spec_of(tmp_path, SPACE))
    assert len(asked.parts) == 2 * 3
    assert sum(part.share for part in asked.parts.values()) == pytest.approx(1.0)
    assert set(asked.decode) == {(f"{view}+needed", 224) for view in ("squash", "random_crop", "centre_crop")}
    assert set(asked.recipes) == {("flips", 224), ("rich", 224)}
    order = [(key.backbone, key.unfrozen_layers) for key in asked.parts]
    assert order[0][0] == "resnet50"
    assert order.index(("resnet50", "all")) < order.index(("mobilenet_0.25", "all"))
    assert {part.weights for part in asked.parts.values()} == {"none"}


def test_it_is_the_same_every_time(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, SPACE)
    assert measurement_plan(spec) == measurement_plan(spec)
    assert measurement_plan(spec).digest == measurement_plan(spec).digest
    other = spec_of(tmp_path, "backbone: [mobilenet_0.25, resnet50]\nunfrozen_layers: [0, 5]")
    assert measurement_plan(other).digest != measurement_plan(spec).digest


def test_named_configurations_are_asked_for(tmp_path: Path) -> None:
    listed = "configurations:\n- {name: one, dropout: 0.2}\n- {name: two, unfrozen_layers: 5, batch_size: 16}"
    asked = measurement_plan(spec_of(tmp_path, listed, "budget: {epochs: 3}"))
    assert {key.batch_size for key in asked.parts} == {16, 32}


def test_what_is_known_is_not_asked_again(tmp_path: Path) -> None:
    asked = measurement_plan(spec_of(tmp_path, SPACE))
    first = next(iter(asked.parts))
    there = calibration(parts={first: SPEED}, decode_s={"squash+needed/224": 1e-3}, augment_s={"rich/224": 1e-3})
    missing = asked.missing(there)
    assert len(missing.parts) == len(asked.parts) - 1
    assert ("squash+needed", 224) not in missing.decode
    assert missing.recipes == (("flips", 224),)
    assert asked.missing(None) == asked
