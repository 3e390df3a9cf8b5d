"""Splits go by a hash of the group: whole groups only, near the ratios, and unmoved by what is added."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.stratify import (
    SPLITS,
    _Table,
    assign,
    assign_folds,
    check_ratios,
    lend_validation,
    too_small,
    train_or_validation,
)
from trainers.errors import TrainerError

RATIO = st.floats(0.02, 1)
RATIOS = st.tuples(RATIO, RATIO, RATIO)
SEEDS = st.integers(0, 5)


def names(n: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest()[:16] for i in range(n)]


@given(st.lists(st.integers(3, 60), min_size=1, max_size=8), RATIOS, SEEDS)
@settings(max_examples=60, deadline=None)
def test_every_class_is_in_every_split_and_keeps_its_shares_within_the_noise_of_a_hash(
    counts: list[int], ratios: tuple[float, float, float], seed: int
) -> None:
    labels = [f"c{c}" for c, count in enumerate(counts) for _ in range(count)]
    splits = assign(labels, names(len(labels)), ratios, seed)
    got = Counter(zip(labels, splits, strict=True))
    for c, count in enumerate(counts):
        for split, share in zip(SPLITS, check_ratios(ratios), strict=True):
            noise = 5 * math.sqrt(count * share * (1 - share))
            assert 1 <= got[f"c{c}", split] <= count * share + noise + 2


def test_many_images_meet_the_ratio() -> None:
    labels = [f"c{c:02d}" for c in range(40) for _ in range(250)]
    got = Counter(assign(labels, names(10_000), (0.7, 0.15, 0.15), 0))
    assert all(abs(got[split] / 10_000 - share) < 0.012 for split, share in zip(SPLITS, (0.7, 0.15, 0.15), strict=True))


@pytest.mark.parametrize("more", [1, 25, 250])
def test_photos_that_are_added_move_no_other(more: int) -> None:
    labels = [f"c{i % 6}" for i in range(2500 + more)]
    before = assign(labels[:2500], names(2500), (0.7, 0.15, 0.15), 0)
    assert assign(labels, names(2500 + more), (0.7, 0.15, 0.15), 0)[:2500] == before
    folds = assign_folds(labels[:2500], names(2500), 5, 0)
    assert assign_folds(labels, names(2500 + more), 5, 0)[:2500] == folds


def test_a_class_that_is_missing_in_a_split_moves_its_nearest_group_alone() -> None:
    labels, groups = ["a"] * 400 + ["b"] * 3, names(403)
    alone = dict(zip(groups[:400], assign(labels[:400], groups[:400], (0.7, 0.15, 0.15), 0), strict=True))
    both = dict(zip(groups, assign(labels, groups, (0.7, 0.15, 0.15), 0), strict=True))
    assert {group: both[group] for group in groups[:400]} == alone
    assert {both[group] for group in groups[400:]} == set(SPLITS)


def test_what_is_fixed_stays_even_if_a_class_is_missing_then() -> None:
    groups = names(60)
    fixed = dict.fromkeys(groups[:40], "train")
    splits = assign(["a"] * 40 + ["b"] * 20, groups, (0.5, 0.25, 0.25), 0, fixed)
    assert splits[:40] == ["train"] * 40
    assert set(splits[40:]) == set(SPLITS)


def test_train_or_validation_is_what_the_hash_says_without_test() -> None:
    chosen = [train_or_validation(name, (0.6, 0.2, 0.2), 0) for name in names(4000)]
    assert chosen.count("train") / 4000 == pytest.approx(0.75, abs=0.03)
    assert set(chosen) == {"train", "validation"}


@given(st.data(), RATIOS, SEEDS)
@settings(max_examples=150, deadline=None)
def test_groups_are_never_torn_and_every_class_is_in_every_split(
    data: st.DataObject, ratios: tuple[float, float, float], seed: int
) -> None:
    """Wild groups that may hold several classes: a good split, or the sentence where a search finds none either."""
    n_classes, n_groups = data.draw(st.integers(1, 5)), data.draw(st.integers(3, 7))
    labels, groups = [], []
    for c in range(n_classes):
        held = data.draw(st.dictionaries(st.sampled_from(names(n_groups)), st.integers(1, 6), min_size=3))
        for group, images in held.items():
            labels += [f"c{c}"] * images
            groups += [group] * images
    try:
        splits = assign(labels, groups, ratios, seed)
    except TrainerError:
        splits = []
    if not splits:
        assert not can_be_split(labels, groups)
        return
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    for label in set(labels):
        assert {s for c, s in zip(labels, splits, strict=True) if c == label} == set(SPLITS)


def can_be_split(labels: list[str], groups: list[str]) -> bool:
    """Whether any sharing of the groups puts every class into every split, by trying all."""
    units = sorted(set(groups))
    inside = [[units.index(g) for c, g in zip(labels, groups, strict=True) if c == label] for label in set(labels)]
    return any(
        all(len({sharing[u] for u in members}) == 3 for members in inside)
        for sharing in itertools.product(range(3), repeat=len(units))
    )


@given(st.lists(st.integers(1, 9), min_size=3, max_size=40), RATIOS, SEEDS)
@settings(max_examples=100, deadline=None)
def test_a_class_with_three_groups_of_its_own_can_always_be_split(
    sizes: list[int], ratios: tuple[float, float, float], seed: int
) -> None:
    groups = [name for name, size in zip(names(len(sizes)), sizes, strict=True) for _ in range(size)]
    splits = assign(["a"] * len(groups), groups, ratios, seed)
    assert set(splits) == set(SPLITS)


@given(SEEDS, st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_order_of_the_images_does_not_matter(seed: int, shuffler: random.Random) -> None:
    labels = ["a"] * 20 + ["b"] * 9 + ["c"] * 31
    groups = [names(40)[i * 7 % 40] for i in range(60)]
    expected = dict(zip(groups, assign(labels, groups, (0.6, 0.2, 0.2), seed), strict=True))
    order = list(range(60))
    shuffler.shuffle(order)
    splits = assign([labels[i] for i in order], [groups[i] for i in order], (0.6, 0.2, 0.2), seed)
    assert {groups[i]: s for i, s in zip(order, splits, strict=True)} == expected


def test_seeds_give_different_splits_and_the_same_seed_the_same() -> None:
    labels, groups = ["a"] * 50, names(50)
    first = assign(labels, groups, (0.6, 0.2, 0.2), 0)
    assert first == assign(labels, groups, (0.6, 0.2, 0.2), 0)
    assert first != assign(labels, groups, (0.6, 0.2, 0.2), 1)


def test_ratios_may_have_any_sum() -> None:
    assert check_ratios((8, 1, 1)) == pytest.approx((0.8, 0.1, 0.1))
    labels, groups = ["a"] * 50, names(50)
    assert assign(labels, groups, (8, 1, 1), 0) == assign(labels, groups, (0.8, 0.1, 0.1), 0)


@pytest.mark.parametrize("ratios", [(1, 0, 0), (0.7, 0.4, -0.1), (float("nan"), 1, 1), (0.9, 0.1)])
def test_ratios_that_leave_a_split_empty_are_refused(ratios: tuple[float, float, float]) -> None:
    with pytest.raises(TrainerError, match="give three positive ratios of train, validation and test"):
        check_ratios(ratios)


def test_class_that_is_too_small_is_named_with_what_it_has_and_needs() -> None:
    labels = ["a"] * 4 + ["b"] * 2 + ["c"] * 5
    groups = [*names(6), "x", "x", "x", "y", "y"]
    assert too_small(labels, groups) == {"b": 2, "c": 2}
    with pytest.raises(TrainerError) as caught:
        assign(labels, groups, (0.6, 0.2, 0.2), 0)
    needed = "at least 3 are needed, one each for train, validation, test. Add images to it, or take the class out."
    assert str(caught.value) == (
        f"class 'b' has 2 images; {needed} "
        f"class 'c' has 5 images, which by their duplicates and groups count as 2; {needed}"
    )


def test_groups_too_entangled_to_split_are_a_sentence() -> None:
    # Each class lies in another three of four groups; two of the four share a split, and some class needs both apart.
    labels = [c for c, out in zip("abcd", range(4), strict=True) for g in range(4) if g != out]
    groups = [f"g{g}" for out in range(4) for g in range(4) if g != out]
    assert not can_be_split(labels, groups)
    with pytest.raises(TrainerError, match=r"class '.' cannot have an image in each split: its groups also hold other"):
        assign(labels, groups, (0.6, 0.2, 0.2), 0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(2, 20), SEEDS)
@settings(max_examples=40, deadline=None)
def test_every_class_is_in_every_fold(extra: list[int], folds: int, seed: int) -> None:
    labels = [f"c{c}" for c, more in enumerate(extra) for _ in range(folds - 1 + more)]
    numbers = assign_folds(labels, names(len(labels)), folds, seed)
    for label in set(labels):
        assert {n for c, n in zip(labels, numbers, strict=True) if c == label} == set(range(1, folds + 1))


@given(st.lists(st.integers(1, 9), min_size=5, max_size=40), st.integers(2, 5), SEEDS)
@settings(max_examples=100, deadline=None)
def test_groups_lie_in_one_fold_and_folds_do_not_depend_on_the_order(sizes: list[int], folds: int, seed: int) -> None:
    groups = [name for name, size in zip(names(len(sizes)), sizes, strict=True) for _ in range(size)]
    numbers = assign_folds(["a"] * len(groups), groups, folds, seed)
    assert len(set(zip(groups, numbers, strict=True))) == len(sizes)
    assert set(numbers) == set(range(1, folds + 1))
    assert assign_folds(["a"] * len(groups), groups[::-1], folds, seed) == numbers[::-1]


def test_folds_differ_by_seed_and_are_about_even() -> None:
    labels = [f"c{c:02d}" for c in range(40) for _ in range(70)]
    sizes = Counter(assign_folds(labels, names(2800), 5, 0)).values()
    assert 480 < min(sizes) <= max(sizes) < 640
    assert assign_folds(labels, names(2800), 5, 0) != assign_folds(labels, names(2800), 5, 1)


def test_folds_that_cannot_be_are_sentences() -> None:
    for folds in (-1, 1, 21):
        with pytest.raises(TrainerError, match=f"folds is {folds}; it must be 0 for one split, or 2 to 20 for"):
            assign_folds(["a"] * 30, names(30), folds, 0)
    with pytest.raises(TrainerError) as caught:
        assign_folds(["a"] * 9 + ["b"] * 4, [*names(9), "x", "x", "y", "z"], 5, 0)
    assert str(caught.value) == (
        "class 'b' has, outside test, 4 images, which by their duplicates and groups count as 3; at least 5 are "
        "needed, one for each fold. Add images to it, use fewer folds, or take the class out."
    )
    labels = [c for c, out in zip("abcd", range(4), strict=True) for g in range(4) if g != out]
    groups = [f"g{g}" for out in range(4) for g in range(4) if g != out]
    with pytest.raises(TrainerError, match=r"class '.' cannot have an image in each of 3 folds: its groups also hold"):
        assign_folds(labels, groups, 3, 0)


def covered_slowly(table: _Table) -> tuple[str, dict[str, int]]:
    """What ``table.cover()`` is to do: look at all moves before each, and take the one of least distance."""
    part, classes = dict(table.part), table._classes
    places = range(len(table._ranges))

    def found(label: str, place: int) -> list[str]:
        return [group for group, inside in classes.items() if label in inside and part[group] == place]

    while True:
        labels = sorted({label for inside in classes.values() for label in inside})
        empty = [(label, place) for label in labels for place in places if not found(label, place)]
        moves = [
            (table._distance(group, place), group, place)
            for label, place in empty
            for group, inside in classes.items()
            if label in inside and group not in table._fixed and all(len(found(c, part[group])) > 1 for c in inside)
        ]
        if not moves:
            return (empty[0][0] if empty else ""), part
        _, group, place = min(moves)
        part[group] = place


def test_the_queue_of_moves_takes_those_that_looking_at_all_of_them_takes() -> None:
    chance, moved, stuck, freed = random.Random(3), 0, 0, 0
    for _ in range(600):
        labels = [f"c{c}" for c in range(chance.randint(1, 8))]
        classes = {
            f"g{chance.random()}": set(chance.sample(labels, min(len(labels), chance.choice([1, 1, 1, 2, 3]))))
            for _ in range(chance.randint(1, 14))
        }
        shares = [chance.random() + 0.02 for _ in range(chance.choice([2, 3, 3, 5]))]
        fixed = {g: chance.randrange(len(shares)) for g in classes if chance.random() < chance.choice([0, 0.2])}
        table = _Table(classes, [(i, share / sum(shares)) for i, share in enumerate(shares)], "s", fixed)
        first, before = {g: table._may_leave(g) for g in classes}, dict(table.part)
        expected = covered_slowly(table)
        assert (table.cover(), table.part) == expected
        moved += before != table.part
        stuck += bool(expected[0])
        freed += any(before[g] != table.part[g] and not first[g] for g in classes)
    assert (moved > 200, 200 < stuck < 500, freed > 5) == (True, True, True)


def test_a_thousand_classes_are_divided_in_a_second() -> None:
    labels, groups = [f"c{i % 1000}" for i in range(10_000)], names(10_000)
    began = time.thread_time()
    splits = assign(labels, groups, (0.7, 0.15, 0.15), 0)
    assert time.thread_time() - began < 1
    assert len(set(zip(labels, splits, strict=True))) == 3000


@given(st.data(), st.floats(0.05, 0.6), SEEDS)
@settings(max_examples=150, deadline=None)
def test_what_is_lent_leaves_every_class_in_train(data: st.DataObject, share: float, seed: int) -> None:
    """Wild groups of several classes, down to a single group of a class."""
    labels, groups = [], []
    for c in range(data.draw(st.integers(1, 5))):
        for group in data.draw(st.sets(st.sampled_from(names(7)), min_size=1)):
            labels, groups = [*labels, f"c{c}"], [*groups, group]
    splits = lend_validation(labels, groups, share, seed)
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    assert {c for c, s in zip(labels, splits, strict=True) if s == "train"} == set(labels)
    several = {c for c in labels if len({g for k, g in zip(labels, groups, strict=True) if k == c}) > 1}
    own = {c for c in several if all(k == c for k, g in zip(labels, groups, strict=True) if g in of(c, labels, groups))}
    assert {c for c, s in zip(labels, splits, strict=True) if s == "validation"} >= own


def of(label: str, labels: list[str], groups: list[str]) -> set[str]:
    return {group for other, group in zip(labels, groups, strict=True) if other == label}


def test_photos_added_to_train_change_nothing_that_was_lent() -> None:
    labels = [f"c{i % 6}" for i in range(2600)]
    before = lend_validation(labels[:2500], names(2500), 0.176, 0)
    assert lend_validation(labels, names(2600), 0.176, 0)[:2500] == before
    assert before.count("validation") / 2500 == pytest.approx(0.176, abs=0.02)
