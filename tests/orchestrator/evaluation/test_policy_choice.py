"""The crop policy: the cheapest that is as good as the best within chance, whatever order it comes in."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from orchestrator.evaluation.policy_choice import FormScore, PolicyScore, choose_form, choose_policy

TOTAL = 495


def score(policy: str, correct: int, crops: int, log_loss: float = 0.3) -> PolicyScore:
    return PolicyScore(policy, correct, TOTAL, log_loss, crops)


def nested(scores: list[PolicyScore]) -> dict[str, np.ndarray]:
    """Each policy is right on the first of the images, so that they differ in as few as they can."""
    return {s.policy: np.arange(s.total) < s.correct for s in scores}


POLICIES = [
    (
        [score("whole", 453, 1), score("ten_crop", 467, 10)],
        "ten_crop",
        "ten_crop has the highest validation accuracy of 2 crop policies, 94.34 % (467 of 495 images), against 453 "
        "with whole (+14); no cheaper one is as good within chance.",
    ),
    (
        [score("whole", 463, 1), score("ten_crop", 465, 10)],
        "whole",
        "whole, 93.54 % (463 of 495 images) on validation, is the cheapest (1 crop) of 2 crop policies that are "
        "as good as the best within chance, ten_crop with 465 (10 crops).",
    ),
    (
        [score("ten_crop", 463, 10, 0.1), score("whole", 463, 1, 0.2), score("flip", 460, 2)],
        "whole",
        "whole has the highest validation accuracy of 3 crop policies, 93.54 % (463 of 495 images), and none needs "
        "fewer crops (1).",
    ),
    (
        [score("whole", 440, 1), score("ten_crop", 467, 10), score("flip", 465, 2)],
        "flip",
        "flip, 93.94 % (465 of 495 images) on validation, is the cheapest (2 crops) of 3 crop policies that are "
        "as good as the best within chance, ten_crop with 467 (10 crops).",
    ),
    (
        [score("whole", 463, 1, 0.2), score("centre", 464, 1, 0.1)],
        "whole",
        "whole, 93.54 % (463 of 495 images) on validation, is the cheapest (1 crop) of 2 crop policies that are "
        "as good as the best within chance, centre with 464 (1 crop).",
    ),
    (
        [score("whole", 463, 1)],
        "whole",
        "whole is the only crop policy, with 93.54 % (463 of 495 images) on validation.",
    ),
]


@pytest.mark.parametrize(("scores", "policy", "reason"), POLICIES)
def test_the_crop_policy(scores, policy, reason):
    for order in itertools.permutations(scores):
        choice = choose_policy(order, nested(scores))
        assert (choice.policy, choice.reason) == (policy, reason)


def test_a_choice_of_policies_needs_whole_and_the_same_images():
    flip = [score("flip", 1, 2)]
    with pytest.raises(ValueError, match=r"`whole` must be among the policies; got \['flip'\]"):
        choose_policy(flip, nested(flip))
    mixed = [score("whole", 100, 1), PolicyScore("flip", 9, 10, 0.1, 2)]
    with pytest.raises(ValueError, match=r"same images, at least 1; got \[495, 10\]"):
        choose_policy(mixed, nested(mixed))


def chosen(gain: float, repetitions: int, copies: int = 1) -> Counter[str]:
    """Choose among six policies in truth equal but for ``gain`` of ten_crop; ``copies`` photos of each object."""
    rng, found = np.random.default_rng(0), Counter()
    crops = {"whole": 1, "flip": 2, "five_crop": 5, "random_5": 5, "ten_crop": 10, "random_16": 16}
    objects = 400 // copies
    for _ in range(repetitions):
        photo = np.sqrt(0.985) * rng.standard_normal(objects)
        correct = {
            name: (photo + np.sqrt(0.015) * rng.standard_normal(objects) < 1.28 + gain * (name == "ten_crop")).repeat(
                copies
            )
            for name in crops
        }
        scores = [PolicyScore(n, int(c.sum()), len(c), 0.3, crops[n]) for n, c in correct.items()]
        groups = [str(i // copies) for i in range(objects * copies)]
        found[choose_policy(scores, correct, groups).policy] += 1
    return found


@pytest.mark.parametrize("copies", [1, 4])
def test_six_equal_policies_keep_whole(copies):
    """It was kept in 8 %, at 4 crops on average."""
    assert chosen(0.0, 100, copies)["whole"] >= 85


def test_a_policy_that_is_better_by_3_points_is_chosen():
    assert chosen(0.2, 60)["whole"] <= 12


def form(name: str, correct: int, networks: int, log_loss: float = 0.3) -> FormScore:
    return FormScore(name, correct, TOTAL, log_loss, networks)


@pytest.mark.parametrize(
    ("scores", "name", "reason"),
    [
        (
            [form("ensemble", 465, 3), form("soup", 463, 1)],
            "soup",
            "soup, 93.54 % (463 of 495 images) on validation, is the cheapest (1 network) of 2 forms that are as good "
            "as the best within chance, ensemble with 465 (3 networks).",
        ),
        (
            [form("ensemble", 467, 3), form("soup", 440, 1), form("distilled", 441, 1)],
            "ensemble",
            "ensemble has the highest validation accuracy of 3 forms, 94.34 % (467 of 495 images), and no cheaper one "
            "is as good within chance.",
        ),
        (
            [form("ensemble", 460, 3), form("soup", 463, 1, 0.3), form("distilled", 463, 1, 0.2)],
            "distilled",
            "distilled has the highest validation accuracy of 3 forms, 93.54 % (463 of 495 images), and none needs "
            "fewer than 1 network.",
        ),
        ([form("soup", 463, 1)], "soup", "soup is the only form, with 93.54 % (463 of 495 images) on validation."),
    ],
)
def test_the_cheapest_form_as_good_as_the_best_within_chance(scores: list[FormScore], name: str, reason: str) -> None:
    correct = {s.form: np.arange(s.total) < s.correct for s in scores}
    for order in itertools.permutations(scores):
        choice = choose_form(order, correct)
        assert (choice.form, choice.reason) == (name, reason)


def test_forms_need_the_same_images() -> None:
    for scores in ([], [form("soup", 3, 1), form("ensemble", 3, 2)]):
        with pytest.raises(ValueError, match="all forms need the same images"):
            choose_form(scores, {"soup": np.ones(4, bool), "ensemble": np.ones(TOTAL, bool)})
