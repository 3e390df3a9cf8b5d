"""The gate: what is refused, in which words, and what an override changes."""

import dataclasses

import pytest

from orchestrator.errors import OrchError
from orchestrator.evaluation.promotion_gate import FORCE, REFUSALS, Contender, Decision, JudgedImages, comparable
from orchestrator.evaluation.promotion_gate import decide as decide_on

CLASSES = ("glass", "metal", "paper")
IMAGES = [f"{i:03d}" for i in range(200)]
LABELS = {image: CLASSES[i % 3] for i, image in enumerate(IMAGES)}
OTHER = dict(zip(CLASSES, (*CLASSES[1:], CLASSES[0]), strict=True))
JUDGED = JudgedImages(LABELS, {})


def decide(challenger: Contender, champion: Contender | None, overrides=frozenset(), **more) -> Decision:
    return decide_on(challenger, champion, JUDGED, overrides, **more)


def contender(version: str, right: int, *, classes=CLASSES, trained_on=(), wrong_from_end=True) -> Contender:
    """Right on ``right`` of the 200 images: the first ones, or the last ones."""
    order = IMAGES if wrong_from_end else IMAGES[::-1]
    answers = {i: LABELS[i] if place < right else OTHER[LABELS[i]] for place, i in enumerate(order)}
    return Contender("trash", version, classes, answers, frozenset(trained_on))


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
    assert codes(decision) == [("unseen", False), ("not-lower", False)]
    assert decision.reasons[0].sentence == "Compared on 200 test photos that neither has seen."
    assert (decision.compared, decision.left_out) == (200, 0)
    assert decision.reasons[1].sentence == (
        "The accuracy is not lower by more than the margin of 3 points: trash version 2 has 95.0 % (90.9 to 97.4), the "
        "champion trash version 1 has 90.0 % (85.0 to 93.5) on the same 200 test images: +5.0 points (95 % +1.8 to "
        "+8.1), p = 0.00195, with 98.5 % confidence at least +1.5. At this test size the gate passes a model 3 points "
        "better in 91 %, an equal one in 28 % and one 3 points worse in 0.9 % of cases."
    )
    assert decision.comparison.difference == pytest.approx(0.05)


def test_the_same_answers_are_allowed_if_they_exclude_a_loss():
    decision = decide(contender("2", 190), contender("1", 190))
    assert decision.allowed
    assert decision.reasons[1].sentence.startswith("The accuracy is the same, and so is every answer: ")
    assert decision.comparison.p_value == 1


def test_a_test_that_is_too_small_for_equal_answers_says_what_would_do():
    few = JudgedImages({image: LABELS[image] for image in IMAGES[:50]}, {})
    decision = decide_on(contender("2", 190), contender("1", 190), few)
    assert not decision.allowed
    assert (
        "On 50 test images even equal answers do not exclude a loss of 3 points, which takes 153 such images or, on "
        "these, `--margin 8.7`. At this test size the gate passes a model 3 points better in "
    ) in decision.text
    assert decision.text.endswith("add `--allow lower-accuracy` or `--force`. The override is recorded.")
    assert decide_on(contender("2", 190), contender("1", 190), few, margin=0.087).allowed
    objects = JudgedImages(few.labels, {image: str(i // 5) for i, image in enumerate(IMAGES)})
    text = decide_on(contender("2", 190), contender("1", 190), objects).text
    assert (
        "On 50 test images of 10 objects even equal answers do not exclude a loss of 3 points, which takes 762" in text
    )
    tiny = JudgedImages({image: LABELS[image] for image in IMAGES[:3]}, {})
    text = decide_on(contender("2", 190), contender("1", 190), tiny).text
    assert "which takes 153 such images. At this" in text


@pytest.mark.parametrize("images", [12, 40, 64])
def test_the_same_networks_are_allowed_though_a_photo_is_left_out(images):
    """As calibrated anew where own splits tear one copy; alike answers of other networks show nothing at that size."""
    few = JudgedImages({image: LABELS[image] for image in IMAGES[:images]}, {})
    new, old = (
        dataclasses.replace(contender(version, images - 3), copies=frozenset(IMAGES[:1]), networks=("run", "flip", "a"))
        for version in "21"
    )
    decision = decide_on(new, old, few)
    assert (decision.allowed, decision.left_out) == (True, 1)
    assert decision.reasons[1].sentence.startswith(
        "Both are the same networks with the same crop policy and differ at most in the calibration of their "
        "probabilities, which changes no answer: trash version 2 has "
    )
    for networks in ((), ("run", "flip", "b"), ("other", "flip", "a")):
        other = decide_on(dataclasses.replace(new, networks=networks), old, few)
        assert codes(other) == [("unseen", False), ("lower-accuracy", False)]
    unknown = dataclasses.replace(old, networks=())
    assert not decide_on(dataclasses.replace(new, networks=()), unknown, few).allowed
    more = decide_on(dataclasses.replace(new, classes=(*CLASSES, "trash")), old, few)
    assert codes(more) == [("different-classes", False), ("unseen", False), ("not-lower", False)]
    retrained = dataclasses.replace(new, answers=contender("2", images - 9).answers)
    assert not decide_on(retrained, old, few).allowed


def test_a_test_that_cannot_exclude_the_margin_refuses_and_says_how_often_it_errs():
    """10 images each that only one of them has right: the same accuracy, but the difference is not known well."""
    decision = decide(contender("2", 190, wrong_from_end=False), contender("1", 190))
    assert not decision.allowed
    assert codes(decision) == [("unseen", False), ("lower-accuracy", False)]
    assert decision.text == (
        "The promotion is refused.\n"
        "- Compared on 200 test photos that neither has seen.\n"
        "- The accuracy may be lower by more than the margin of 3 points: trash version 2 has 95.0 % (90.9 to 97.4), "
        "the champion trash version 1 has 95.0 % (90.9 to 97.4) on the same 200 test images: 0.0 points (95 % "
        "\N{MINUS SIGN}4.4 to +4.4), p = 1, with 98.5 % confidence at least \N{MINUS SIGN}5.3. At this test size the "
        "gate passes a model 3 points better in 65 %, an equal one in 17 % and one 3 points worse in 1.3 % of cases.\n"
        "To promote it anyway, add `--allow lower-accuracy` or `--force`. The override is recorded."
    )


def test_one_image_fewer_of_200_is_within_a_margin_of_3_3_points_but_not_of_3():
    decision = decide(contender("2", 189), contender("1", 190), margin=0.033)
    assert decision.allowed
    assert codes(decision) == [("unseen", False), ("not-lower", False)]
    assert "\N{MINUS SIGN}0.5 points (95 % \N{MINUS SIGN}1.9 to +0.9), p = 1, with" in decision.reasons[1].sentence


def test_a_margin_is_an_option_of_the_decision():
    assert not decide(contender("2", 189), contender("1", 190), margin=0.03).allowed
    with pytest.raises(ValueError, match="the margin must be a fraction between 0 and 1; got 3"):
        decide(contender("2", 189), contender("1", 190), margin=3)


def test_one_that_is_significantly_worse_is_refused_within_any_margin():
    decision = decide(contender("2", 184), contender("1", 190), margin=0.2)
    assert not decision.allowed
    assert decision.reasons[1].sentence.startswith("The accuracy is lower: ")


def test_the_gate_speaks_of_the_sweeps_objective():
    """Right on fewer images, but on those of the rare class."""
    labels = {f"{i:03d}": "rare" if i < 20 else "common" for i in range(400)}
    classes = ("common", "rare")
    frequent = Contender("m", "1", classes, dict.fromkeys(labels, "common"), frozenset())
    answers = {i: "rare" if i < "040" else "common" for i in labels}
    rare = Contender("m", "2", classes, answers, frozenset())
    by_accuracy = decide_on(rare, frequent, JudgedImages(labels, {}))
    by_f1 = decide_on(rare, frequent, JudgedImages(labels, {}), objective="val_macro_f1")
    assert not by_accuracy.allowed
    assert by_f1.allowed
    assert by_f1.reasons[1].sentence.startswith("The macro F1 is not lower by more than the margin of 3 points: ")
    by_loss = decide_on(rare, frequent, JudgedImages(labels, {}), objective="val_loss")
    assert "accuracy (the objective, validation loss, cannot be computed from answers)" in by_loss.reasons[1].sentence


def test_photos_of_the_same_objects_are_worth_less():
    """As +5 points above, but all of it on one object."""
    groups = {image: str(i // 10) for i, image in enumerate(IMAGES)}
    decision = decide_on(contender("2", 190), contender("1", 180), JudgedImages(LABELS, groups))
    assert not decision.allowed
    assert "on the same 200 test images of 20 objects: +5.0 points" in decision.reasons[1].sentence
    few = {image: str(i // 40) for i, image in enumerate(IMAGES)}
    decision = decide_on(contender("2", 190), contender("1", 180), JudgedImages(LABELS, few))
    assert not decision.allowed
    assert "cannot be compared on so few objects: " in decision.reasons[1].sentence


def test_a_first_model_that_may_only_have_learned_the_largest_class_is_warned_of():
    decision = decide(contender("1", 70), None)
    assert decision.allowed
    assert codes(decision) == [("no-champion", False), ("largest-class", False)]
    assert decision.reasons[1].sentence == (
        "Warning: trash version 1 has 35.0 % right on 200 test images, which is not shown to be better than always "
        "answering 'glass' (33.5 %)."
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
    assert codes(decision) == [("different-classes", False), ("unseen", False), ("not-lower", False)]
    assert not decision.allowed
    assert decision.reasons[0].sentence == f"The classes of trash version 2 {end}"


def test_images_that_the_champion_saw_are_left_out_and_counted():
    """It is right on all that it saw: with them the challenger, right on 180 of the other 180, would be refused."""
    seen = IMAGES[:20]
    challenger = contender("2", 180, wrong_from_end=False)
    decision = decide(challenger, contender("1", 190, trained_on=[*seen, "elsewhere"]))
    assert codes(decision) == [("unseen", False), ("not-lower", False)]
    assert decision.reasons[0].sentence == (
        "Compared on 180 test photos that neither has seen; 20 more were left out, which trash version 1 (20) was "
        "trained or chosen on."
    )
    assert "100.0 %" in decision.reasons[1].sentence
    assert "on the same 180 test images: +5.6 points" in decision.reasons[1].sentence
    assert (decision.compared, decision.left_out) == (180, 20)
    assert not decide(challenger, contender("1", 190)).allowed


def test_images_known_by_content_alone_are_left_out_for_both():
    challenger = dataclasses.replace(contender("2", 190), copies=frozenset(IMAGES[:1]))
    decision = decide(challenger, dataclasses.replace(contender("1", 180), copies=frozenset(IMAGES[:9])))
    assert decision.left_out == 9
    decision = decide(challenger, dataclasses.replace(contender("1", 180), copies=frozenset(IMAGES[1:10])))
    assert decision.reasons[0].sentence == (
        "Compared on 190 test photos that neither has seen; 10 more were left out, which trash version 1 (9) and trash "
        "version 2 (1) were trained or chosen on."
    )


def test_what_was_left_out_needs_no_answer():
    champion = contender("1", 180, trained_on=IMAGES[:20])
    fewer = dataclasses.replace(champion, answers={i: champion.answers[i] for i in IMAGES[20:]})
    assert decide(contender("2", 190), fewer).compared == 180
    assert comparable(contender("2", 190), fewer, JUDGED).labels.keys() == {*IMAGES[20:]}


def test_equal_answers_to_the_few_that_are_left_show_nothing():
    few, many = contender("1", 200, trained_on=IMAGES[:180]), contender("1", 200, trained_on=IMAGES[:10])
    decision = decide(contender("2", 200), few)
    assert codes(decision) == [("unseen", False), ("lower-accuracy", False)]
    assert "on the same 20 test images: 0.0 points" in decision.reasons[1].sentence
    assert decide(contender("2", 200), many).allowed


@pytest.mark.parametrize(("left", "more"), [(9, "; on those 9 the challenger has 88.9 % right and the champion 0.0 %")])
def test_too_few_that_neither_has_seen_are_a_refusal_with_its_flag(left, more):
    decision = decide(contender("2", 199), contender("1", 180, trained_on=IMAGES[: 200 - left]))
    assert codes(decision) == [("champion-saw-test", False), ("not-lower", False)]
    assert decision.reasons[0].sentence == (
        f"Only {left} of the 200 test images were seen by neither, too few to compare on: trash version 1 "
        f"({200 - left}) was trained or chosen on the others. So the comparison is on all of them, which favours the "
        f"one that saw more{more}."
    )
    assert decision.text.endswith("add `--allow champion-saw-test` or `--force`. The override is recorded.")
    assert (decision.compared, decision.left_out) == (200, 0)
    assert decide(contender("2", 199), contender("1", 180, trained_on=IMAGES[:191]), {"champion-saw-test"}).allowed


def test_a_champion_that_saw_every_test_image():
    decision = decide(contender("2", 190), contender("1", 180, trained_on=IMAGES))
    assert decision.reasons[0].sentence == (
        "Only 0 of the 200 test images were seen by neither, too few to compare on: trash version 1 (200) was trained "
        "or chosen on the others. So the comparison is on all of them, which favours the one that saw more."
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
    return decide(challenger, contender("1", 190, trained_on=IMAGES[:195]), overrides)


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
    assert codes(decide(contender("2", 190), contender("1", 180), frozenset({FORCE})))[1:] == [("not-lower", False)]


def test_an_unknown_override_is_answered_with_the_known_ones():
    with pytest.raises(OrchError) as error:
        decide(contender("2", 190), None, frozenset({"lower-acuracy"}))
    assert str(error.value) == (
        "there is no override lower-acuracy; known are lower-accuracy, different-classes, champion-saw-test, "
        "trained-on-test, and all for all of them."
    )


def test_the_champion_must_have_been_asked_about_every_test_image():
    champion = Contender("trash", "1", CLASSES, {IMAGES[0]: "glass"}, frozenset())
    with pytest.raises(ValueError, match="trash version 1 lacks predictions for 199 of the 200 test images"):
        decide(contender("2", 190), champion)


def test_no_test_image_is_an_error():
    with pytest.raises(ValueError, match="trash version 2 has no test images"):
        decide_on(Contender("trash", "2", CLASSES, {}, frozenset()), None, JudgedImages({}, {}))
