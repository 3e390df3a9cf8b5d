"""Class weights and balanced sampling, as numbers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.places import ROOT
from trainers.training.balance import (
    class_weights,
    draws_per_class,
    effective_counts,
    epoch_order,
    example_order,
    occurrences,
)

COUNTS = st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any).map(np.array)


@given(COUNTS)
def test_every_class_weighs_the_same_and_an_example_one_on_average(counts):
    weights = class_weights(counts)
    totals = (weights * counts)[counts > 0]
    np.testing.assert_allclose(totals, totals[0])
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert (weights[counts == 0] == 0).all()
    assert draws_per_class(counts) == pytest.approx(totals[0])


def test_weights_and_draws_by_hand():
    counts = np.array([10, 20, 30])
    np.testing.assert_allclose(class_weights(counts), [2, 1, 2 / 3])
    assert draws_per_class(counts) == 20
    np.testing.assert_allclose(class_weights(np.array([5, 0, 15])), [2, 0, 2 / 3])
    assert draws_per_class(np.array([5, 0, 15])) == 10
    np.testing.assert_array_equal(class_weights(np.zeros(2)), [0, 0])


@pytest.mark.parametrize(
    ("balance", "expected"), [("none", [10, 0, 30]), ("class_weights", [20, 0, 20]), ("sampling", [20, 0, 20])]
)
def test_the_prior_that_training_sees(balance, expected):
    np.testing.assert_array_equal(effective_counts(np.array([10, 0, 30]), balance), expected)


@settings(max_examples=50)
@given(COUNTS, st.integers(0, 5), st.integers(0, 9))
def test_an_epoch_draws_each_class_equally_often(counts, seed, epoch):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    order = epoch_order(labels, seed, epoch)
    assert len(order) == len(labels)
    drawn = np.bincount(labels[order], minlength=len(counts))[counts > 0]
    assert set(drawn) <= {int(np.floor(draws_per_class(counts))), int(np.ceil(draws_per_class(counts)))}
    times = np.bincount(order, minlength=len(labels))
    for label in np.flatnonzero(counts):
        among = times[labels == label]
        assert among.max() - among.min() <= 2  # a pass may end and another begin within the epoch, at both its ends
    np.testing.assert_array_equal(order, epoch_order(labels, seed, epoch))


@settings(max_examples=50)
@given(COUNTS, st.integers(0, 5), st.integers(1, 8))
def test_no_example_comes_again_before_its_class_is_through_also_over_epochs(counts, seed, epochs):
    labels = np.repeat(np.arange(len(counts)), counts)
    times = np.zeros(len(labels), int)
    for epoch in range(epochs):
        times += np.bincount(epoch_order(labels, seed, epoch), minlength=len(labels))
    for label in np.flatnonzero(counts):
        among = times[labels == label]
        assert among.max() - among.min() <= 1
    drawn = np.array([times[labels == label].sum() for label in np.flatnonzero(counts)])
    assert drawn.max() - drawn.min() <= 1  # the remainder goes round


def test_epochs_and_seeds_differ_and_classes_are_mingled():
    labels = np.repeat([0, 1], [5, 95])
    orders = {tuple(epoch_order(labels, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    halves = [(labels[epoch_order(labels, 0, epoch)][:50] == 0).sum() for epoch in range(40)]
    assert 20 < np.mean(halves) < 30


@pytest.mark.parametrize("balance", ["none", "class_weights"])
def test_without_sampling_an_epoch_is_the_permutation_it_always_was(balance):
    labels = np.repeat([0, 1], [5, 30])
    for seed, epoch in ((0, 0), (3, 7)):
        before = np.random.default_rng((seed, 2, epoch)).permutation(35)
        np.testing.assert_array_equal(example_order(labels, balance, seed, epoch), before)
    np.testing.assert_array_equal(example_order(labels, "sampling", 3, 7), epoch_order(labels, 3, 7))


@pytest.mark.parametrize("balance", ["none", "class_weights", "sampling"])
def test_epochs_of_fewer_draws_take_every_example_in_turn(balance):
    labels = np.repeat([0, 1], 15)
    times = np.zeros(30, int)
    for epoch in range(6):
        order = example_order(labels, balance, 3, epoch, 10)
        assert len(order) == 10
        times += np.bincount(order, minlength=30)
        assert times.max() - times.min() <= 1
    assert times.tolist() == [2] * 30
    whole = example_order(labels, balance, 3, 2, 30)
    np.testing.assert_array_equal(whole, example_order(labels, balance, 3, 2))


@given(st.lists(st.integers(0, 5), max_size=30))
def test_occurrences_are_counted(order):
    assert occurrences(np.array(order, np.int64)).tolist() == [order[:i].count(each) for i, each in enumerate(order)]


def test_it_imports_without_tensorflow():
    code = "import sys, trainers.training.balance; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    root = ROOT
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert answer.split() == ["False", "False"]
