"""Copies are planned evenly and monotonically, and copy k is always the same picture."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.places import ROOT
from trainers.errors import TrainerError
from trainers.images.augment import RECIPES, Recipe, augment, plan_copies

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)
MULTIPLIERS = st.floats(1, 12)


def picture(side: int = 48, width: int | None = None) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (side, width or side, 3), np.uint8)


@pytest.mark.parametrize(
    ("labels", "multiplier", "expected"),
    [
        ([0, 0, 0, 1], 1, [0, 0, 0, 0]),
        ([0, 0, 0, 1], 1.5, [0, 0, 0, 2]),
        ([0, 0, 0, 1], 2, [1, 0, 0, 3]),
        ([0, 1, 1, 2, 2, 2], 7 / 6, [1, 0, 0, 0, 0, 0]),
        ([0, 1, 1, 2, 2, 2], 8 / 6, [2, 0, 0, 0, 0, 0]),
        ([0, 1, 1, 2, 2, 2], 9 / 6, [2, 1, 0, 0, 0, 0]),
        ([7, 7, 7], 5, [4, 4, 4]),
        ([], 5, []),
    ],
)
def test_plan_raises_the_smallest_classes_first(labels: list[int], multiplier: float, expected: list[int]) -> None:
    assert plan_copies(np.array(labels, np.int32), multiplier).tolist() == expected


@pytest.mark.parametrize(
    ("labels", "multiplier", "expected"),
    [
        ([0, 0, 0, 0, 1, 1], 2, [1, 1, 1, 1, 1, 1]),
        ([0, 0, 0, 0, 1, 1], 1.5, [1, 1, 0, 0, 1, 0]),
        ([0, 0, 0, 0, 1, 1], 2.5, [2, 2, 1, 1, 2, 1]),
        ([], 5, []),
    ],
)
def test_proportional_copies_keep_the_classes_proportions(
    labels: list[int], multiplier: float, expected: list[int]
) -> None:
    assert plan_copies(np.array(labels, np.int32), multiplier, "proportional").tolist() == expected


@given(LABELS, MULTIPLIERS, MULTIPLIERS)
@settings(max_examples=200, deadline=None)
def test_proportional_copies_have_the_exact_total_and_are_among_those_of_a_larger_multiplier(
    labels: np.ndarray, one: float, other: float
) -> None:
    few, many = (plan_copies(labels, multiplier, "proportional") for multiplier in sorted((one, other)))
    assert (few <= many).all()
    assert len(labels) + many.sum() == round(max(one, other) * len(labels))
    share = many.sum() / len(labels)
    for label in np.unique(labels):
        own = many[labels == label]
        assert own.max() - own.min() <= 1
        assert abs(own.sum() - share * len(own)) <= 1.5


@given(LABELS, MULTIPLIERS)
@settings(max_examples=200, deadline=None)
def test_plan_has_the_exact_total_and_is_as_even_as_can_be(labels: np.ndarray, multiplier: float) -> None:
    copies = plan_copies(labels, multiplier)
    assert copies.min() >= 0
    assert len(labels) + copies.sum() == round(multiplier * len(labels))
    totals = {c: int((labels == c).sum() + copies[labels == c].sum()) for c in np.unique(labels)}
    for label in totals:
        inside = copies[labels == label]
        assert inside.max() - inside.min() <= 1
        if inside.sum():  # a class that got copies is not larger than any other by more than the last unit
            assert totals[label] - min(totals.values()) <= 1


@given(LABELS, MULTIPLIERS, MULTIPLIERS)
@settings(max_examples=200, deadline=None)
def test_plan_is_monotone_so_copies_of_a_smaller_multiplier_serve_a_larger(
    labels: np.ndarray, a: float, b: float
) -> None:
    assert (plan_copies(labels, min(a, b)) <= plan_copies(labels, max(a, b))).all()


@pytest.mark.parametrize("multiplier", [0.5, 0, -1, float("nan"), float("inf")])
def test_plan_refuses_a_multiplier_below_one(multiplier: float) -> None:
    with pytest.raises(TrainerError, match="it must be at least 1, for no original is ever dropped"):
        plan_copies(np.array([0, 1]), multiplier)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("shape", [(48, 48), (8, 8), (20, 33), (1, 1)])
def test_copy_is_a_pure_function_of_image_number_recipe_and_data_seed(recipe: str, shape: tuple[int, int]) -> None:
    image = picture(*shape)
    before = image.copy()
    for k in (1, 2, 3, 7):
        copy = augment(image, "ab" * 32, k, recipe, seed=3)
        assert (copy.shape, copy.dtype) == (image.shape, np.uint8)
        assert copy.flags.c_contiguous
        np.random.seed(k)  # global state must not matter
        assert np.array_equal(copy, augment(image.copy(), "ab" * 32, k, recipe, seed=3))
    assert np.array_equal(image, before)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_copy_zero_is_the_original(recipe: str) -> None:
    image = picture()
    assert augment(image, "a", 0, recipe, 0) is image


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - {"none"}))
def test_copies_differ_from_each_other_and_by_image_and_seed(recipe: str) -> None:
    image = picture()
    copies = [augment(image, "a", k, recipe, 0) for k in range(12)]
    # A colour jitter or a warp that happens to repeat would be a collision of random numbers: none in twelve. The
    # published recipes draw from a few operations, of which one changes nothing.
    assert len({c.tobytes() for c in copies}) >= (7 if recipe in ("trivial", "rand") else 12)
    k = 5
    others = [augment(image, sha, k, recipe, seed) for sha, seed in (("a", 0), ("b", 0), ("a", 1))]
    assert len({o.tobytes() for o in others}) == 3


COPIES_IN_ANOTHER_PROCESS = """
import hashlib, sys
import numpy as np
from trainers.images.augment import RECIPES, augment
image = np.random.default_rng(1).integers(0, 256, (33, 20, 3), np.uint8)
order = [(name, k) for name in sorted(RECIPES) for k in range(1, 9)]
made = {(name, k): augment(image, "ab" * 32, k, name, 7).tobytes() for name, k in sorted(order, reverse=REVERSED)}
assert not {"tensorflow", "keras"} & set(sys.modules)
print(len(made), hashlib.sha256(b"".join(made[each] for each in order)).hexdigest())
"""


def test_another_process_makes_the_same_copies_in_any_order_without_tensorflow() -> None:
    answers = []
    for backwards, hash_seed in ((False, "1"), (True, "2")):
        code = COPIES_IN_ANOTHER_PROCESS.replace("REVERSED", str(backwards))
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        answers.append(ran.stdout.split())
    assert answers[0] == answers[1]
    assert int(answers[0][0]) == 8 * len(RECIPES)


def test_threads_make_the_same_copies() -> None:
    image = picture()
    tasks = [(k, recipe) for k in range(1, 6) for recipe in RECIPES]
    alone = [augment(image, "a", k, recipe, 0).tobytes() for k, recipe in tasks]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda task: augment(image, "a", *task, 0).tobytes(), tasks)) == alone
    assert len(alone) == 5 * len(RECIPES)


def test_none_repeats() -> None:
    image = picture()
    assert np.array_equal(augment(image, "a", 4, "none", 0), image)


def test_flips_begin_with_the_mirror_and_then_shift() -> None:
    image = picture()
    first = [augment(image, "a", k, "flips", 0) for k in (1, 2, 3)]
    for copy, expected in zip(first, (image[:, ::-1], image[::-1], image[::-1, ::-1]), strict=True):
        assert np.array_equal(copy, expected)
    shifted = augment(image, "a", 4, "flips", 0)
    far = [d for d in range(1, 6) if np.array_equal(shifted[:, d:], image[:, :-d])]
    assert len(far) == 1


def test_flips_of_scanned_digits_do_not_repeat_for_thirty_copies() -> None:
    image = picture(8)
    assert len({augment(image, "a", k, "flips", 0).tobytes() for k in range(36)}) == 36


@pytest.mark.parametrize("recipe", ["contest", "rich"])
def test_warps_stay_near_the_picture_and_show_no_blank_edge(recipe: str) -> None:
    bright = np.full((64, 64, 3), 200, np.uint8)
    bright[24:40, 24:40] = 120  # a dark square in the middle
    for k in range(1, 30):
        copy = augment(bright, "a", k, recipe, 0).astype(int)
        assert copy.min() > 60  # black fill would be 0
        ys, xs = np.nonzero(copy[..., 0] < copy[..., 0].max() * 0.8)
        assert 12 <= ys.mean() <= 52
        assert 12 <= xs.mean() <= 52


def test_colour_changes_no_shapes() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :8] = 180
    for k in range(1, 10):
        copy = augment(image, "a", k, "colour", 0)
        left, right = copy[:, :8].reshape(-1, 3), copy[:, 8:].reshape(-1, 3)
        assert len(np.unique(left, axis=0)) == len(np.unique(right, axis=0)) == 1
        assert left.sum() != right.sum()


def test_unknown_recipe_names_the_nearest_and_a_dotted_name_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainerError, match=r"no recipe 'flip'; did you mean flips\? Known are colour, contest"):
        augment(picture(), "a", 0, "flip", 0)
    module = types.ModuleType("my_recipes")
    module.INVERT = Recipe("invert", lambda image, k, random: 255 - image)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_recipes", module)
    assert np.array_equal(augment(picture(), "a", 1, "my_recipes:INVERT", 0), 255 - picture())


def test_negative_copy_is_refused() -> None:
    with pytest.raises(TrainerError, match="copies are counted from 1"):
        augment(picture(), "a", -1, "flips", 0)
