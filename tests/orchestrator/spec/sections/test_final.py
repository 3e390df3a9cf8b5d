"""The `final` section."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.errors import SpecError
from orchestrator.spec.sections.final import ChooseSpec, FinalSpec
from tests.support.sweep_files import Load, sweep


def test_policies_always_hold_whole_first(load: Load) -> None:
    assert load(sweep(rest="final: {policies: [flip, whole]}\n")).final.policies == ("whole", "flip")
    assert load(sweep(rest="final: {policies: []}\n")).final.policies == ("whole",)


def test_policies_of_ones_own_are_looked_up(load: Load) -> None:
    own = "tests.support.tiny_fits:OWN_POLICY"
    assert load(sweep(rest=f"final: {{policies: [{own}]}}\n")).final.policies == ("whole", own)
    with pytest.raises(SpecError) as refused:
        load(sweep(rest="final: {policies: [tests.support.tiny_fits:CLASSES]}\n"))
    assert "final.policies.0" in str(refused.value)
    assert "not a policy" in str(refused.value)


def test_the_rule_names_every_metric_once() -> None:
    rule = ChooseSpec(best="images_per_s", at_least={"val_accuracy": 0.9, "images_per_s": 50}, at_most={"val_loss": 1})
    assert rule.figures == ("images_per_s", "val_accuracy", "val_loss")
    assert rule.at_least == {"val_accuracy": 0.9, "images_per_s": 50.0}
    assert FinalSpec().choose.figures == ()


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"at_least": {"val_loss": 1}}, "a lower val_loss is better, so its bound belongs in at_most."),
        ({"at_most": {"val_accuracy": 1}}, "a higher val_accuracy is better, so its bound belongs in at_least."),
        ({"at_least": {"val_macro_f1": 90}}, "found 90; allowed: a fraction from 0 to 1."),
        ({"at_least": {"images_per_s": True}}, "found true; allowed: a number, at least 0."),
    ],
)
def test_a_bound_that_makes_no_sense_is_a_sentence(rule: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        ChooseSpec(**rule)
