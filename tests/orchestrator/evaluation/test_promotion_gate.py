"""The gate: what is refused, in which words, and what an override changes."""

import pytest

from orchestrator.errors import OrchError
from orchestrator.evaluation.promotion_gate import FORCE, REFUSALS, Contender, decide

CLASSES = ("glass", "metal", "paper")
IMAGES = [f"{i:03d}" for i in range(200)]


def contender(version: str, right: int, *, classes=CLASSES, trained_on=(), wrong_from_end=True) -> Contender:
    """Right on ``right`` of the 200 images: the first ones, or the last ones."""
    order = IMAGES if wrong_from_end else IMAGES[::-1]
    correct = {image: place < right for place, image in enumerate(order)}
    return Contender("trash", version, classes, correct, frozenset(trained_on))


def codes(decision) -> list[tuple[str, bool]]:
    return [(reason.code, reason.overridden) for reason in decision.reasons]


def test_no_champion_yet():
    decision = decide(contender("1", 100), None)
    assert decision.allowed
    assert decision.comparison is None
    assert decision.text == "The promotion is allowed.\n- There is no champion yet."


def test_the_same_model_again_is_allowed_and_says_so():
    decision = decide(contender("3", 180), contender("3", 180, trained_on=IMAGES[:5]))
    assert decision.allowed
    assert codes(decision) == [("already-champion", False)]
    assert decision.reasons[0].sentence == "trash version 3 is the champion already."


def test_a_better_one_is_allowed_with_the_figures():
    decision = decide(contender("2", 190), contender("1", 180))
    assert decision.allowed
    assert codes(decision) == [("not-lower", False)]
    assert decision.reasons[0].sentence == (
        "The accuracy is higher: trash version 2 has 95.0 % (91.0 to 97.3), the champion trash version 1 has 90.0 % "
        "(85.1 to 93.4) on the same 200 test images: +5.0 points (95 % +1.8 to +8.1), p = 0.00195."
    )
    assert decision.comparison.difference == pytest.approx(0.05)


def test_an_equal_one_is_allowed():
    decision = decide(contender("2", 190, wrong_from_end=False), contender("1", 190))
    assert decision.allowed
    assert decision.reasons[0].sentence.startswith("The accuracy is the same: ")
    assert decision.comparison.p_value == 1


def test_one_image_fewer_is_refused_with_the_paired_interval():
    decision = decide(contender("2", 189), contender("1", 190))
    assert not decision.allowed
    assert codes(decision) == [("lower-accuracy", False)]
    assert decision.text == (
        "The promotion is refused.\n"
        "- The accuracy is lower: trash version 2 has 94.5 % (90.4 to 96.9), the champion trash version 1 has 95.0 % "
        "(91.0 to 97.3) on the same 200 test images: \N{MINUS SIGN}0.5 points "
        "(95 % \N{MINUS SIGN}1.9 to +0.9), p = 1.\n"
        "To promote it anyway, add `--allow lower-accuracy` or `--force`. The override is recorded."
    )


CLASS_CHANGES = [
    (
        ("glass", "metal", "paper", "trash"),
        "(4) differ from those of the champion trash version 1 (3): 'trash' was added.",
    ),
    (("glass", "metal"), "(2) differ from those of the champion trash version 1 (3): 'paper' was removed."),
    (
        ("card", "glass", "other", "paper"),
        "(4) differ from those of the champion trash version 1 (3): 'card', 'other' were added and "
        "'metal' was removed.",
    ),
    (
        ("paper", "metal", "glass"),
        "(3) differ from those of the champion trash version 1 (3): the same names are in another order.",
    ),
    (
        (*CLASSES, *"abcdefg"),
        "(10) differ from those of the champion trash version 1 (3): 'a', 'b', 'c', 'd', 'e' and 2 more were added.",
    ),
]


@pytest.mark.parametrize(("classes", "end"), CLASS_CHANGES)
def test_other_classes_are_refused_by_name(classes, end):
    decision = decide(contender("2", 195, classes=classes), contender("1", 190))
    assert codes(decision) == [("different-classes", False), ("not-lower", False)]
    assert not decision.allowed
    assert decision.reasons[0].sentence == f"The classes of trash version 2 {end}"


def test_a_champion_that_saw_test_images_is_counted_and_the_rest_compared():
    decision = decide(contender("2", 190), contender("1", 180, trained_on=[*IMAGES[:20], "elsewhere"]))
    assert codes(decision) == [("champion-saw-test", False), ("not-lower", False)]
    assert decision.reasons[0].sentence == (
        "The champion trash version 1 was trained on 20 of the 200 test images (10.0 %), so the comparison favours "
        "it; on the other 180 the challenger has 94.4 % right and the champion 88.9 %."
    )


def test_a_champion_that_saw_every_test_image():
    decision = decide(contender("2", 190), contender("1", 180, trained_on=IMAGES))
    assert decision.reasons[0].sentence == (
        "The champion trash version 1 was trained on 200 of the 200 test images (100.0 %), so the comparison favours "
        "it."
    )


@pytest.mark.parametrize("champion", [None, contender("1", 100)])
def test_a_challenger_that_saw_its_own_test_images_is_refused(champion):
    decision = decide(contender("2", 190, trained_on=IMAGES[:1]), champion)
    assert not decision.allowed
    assert decision.reasons[0].code == "trained-on-test"
    assert decision.reasons[0].sentence == (
        "trash version 2 was trained on 1 of its own 200 test images (0.5 %), so its test accuracy is not valid; "
        "the manifest's splits overlap."
    )


def everything_wrong(overrides=frozenset()):
    challenger = contender("2", 150, classes=("glass",), trained_on=IMAGES[:3])
    return decide(challenger, contender("1", 190, trained_on=IMAGES[:2]), overrides)


def test_every_reason_is_reported_at_once():
    decision = everything_wrong()
    assert {reason.code for reason in decision.reasons} == set(REFUSALS)
    assert decision.text.endswith(
        "To promote it anyway, add `--allow trained-on-test --allow different-classes --allow champion-saw-test "
        "--allow lower-accuracy` or `--force`. The override is recorded."
    )


@pytest.mark.parametrize("missing", REFUSALS)
def test_every_refusal_needs_its_own_override(missing):
    decision = everything_wrong(frozenset(REFUSALS) - {missing})
    assert not decision.allowed
    assert [r.code for r in decision.reasons if r.refuses] == [missing]


@pytest.mark.parametrize("overrides", [frozenset(REFUSALS), frozenset({FORCE}), frozenset({FORCE, "lower-accuracy"})])
def test_overridden_refusals_allow_and_are_marked(overrides):
    decision = everything_wrong(overrides)
    assert decision.allowed
    assert len(decision.reasons) == 4
    assert all(reason.overridden for reason in decision.reasons)
    assert decision.text.count("(overridden: ") == 4
    assert "To promote it" not in decision.text


def test_force_marks_nothing_where_nothing_refuses():
    assert codes(decide(contender("2", 190), contender("1", 180), frozenset({FORCE}))) == [("not-lower", False)]


def test_an_unknown_override_is_answered_with_the_known_ones():
    with pytest.raises(OrchError) as error:
        decide(contender("2", 190), None, frozenset({"lower-acuracy"}))
    assert str(error.value) == (
        "there is no override lower-acuracy; known are lower-accuracy, different-classes, champion-saw-test, "
        "trained-on-test, and all for all of them."
    )


def test_the_champion_must_have_been_asked_about_every_test_image():
    champion = Contender("trash", "1", CLASSES, {IMAGES[0]: True}, frozenset())
    with pytest.raises(
        ValueError, match="trash version 1 lacks predictions for 199 of trash version 2's 200 test images"
    ):
        decide(contender("2", 190), champion)


def test_no_test_image_is_an_error():
    with pytest.raises(ValueError, match="trash version 2 has no test images"):
        decide(Contender("trash", "2", CLASSES, {}, frozenset()), None)
