"""The `final` section."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.errors import SpecError
from orchestrator.spec.sections.final import ChooseSpec, FinalSpec
from tests.support.sweep_files import Load, mistakes, sweep


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


def test_forms_are_chosen_among_only_where_the_file_says_so(load: Load) -> None:
    plain = load(sweep(rest="final: {seeds: 3}\n")).final
    assert (plain.forms, plain.makes_forms, plain.shares_start, plain.trains_held_out) == (("ensemble",), *3 * [False])
    some = load(sweep(rest="final: {forms: [ensemble, distilled]}\n")).final
    assert (some.makes_forms, some.shares_start, some.trains_held_out) == (True, False, True)
    assert some.splits == ("train", "validation")
    soup = load(sweep(rest="final: {forms: [soup], refit: train}\n")).final
    assert (soup.makes_forms, soup.shares_start, soup.trains_held_out, soup.splits) == (True, True, False, ("train",))


@pytest.mark.parametrize(
    ("final", "sentence"),
    [
        (
            "forms: [soop]",
            '5:17: final.forms.0: found "soop"; did you mean "soup"? Allowed: ensemble, soup, distilled.',
        ),
        ("forms: [soup, soup]", 'final.forms.1: found "soup" twice in the list.'),
        ("forms: []", "allowed: a list of forms, as in [ensemble, soup]."),
        ("forms: [soup], seeds: 1", "found [soup], which are made of several networks, but final.seeds is 1; write at"),
        (
            "forms: [soup], winner_form: single",
            "final.winner_form: found single, but final.forms [soup] lets validation",
        ),
        (
            "distillation: {temperature: 0.5}",
            "final.distillation.temperature: found 0.5; allowed: a number, at least 1",
        ),
    ],
)
def test_forms_that_make_no_sense_are_a_sentence(load: Load, final: str, sentence: str) -> None:
    (found,) = mistakes(load, sweep(rest=f"final: {{{final}}}\n"))
    assert sentence in found
