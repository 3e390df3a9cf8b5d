"""What weighs the classes beside the multiplier: weights in the loss, or how often each is drawn. Free of TensorFlow.

Counts are those of the training examples, augmented copies included: a multiplier acts first, and what it leaves
uneven is balanced here. Classes without an example are left out of every formula.
"""

from __future__ import annotations

import numpy as np


def class_weights(counts: np.ndarray) -> np.ndarray:
    """Counts (classes,) -> the weight in the loss of an example of each class, float64 (classes,).

    n / (k count), where k is the number of classes that have an example: every class weighs the same in an epoch, and
    the mean weight of the n examples is 1. A class without an example has weight 0.
    """
    counts = np.asarray(counts, np.float64)
    there = counts > 0
    share = counts.sum() / max(there.sum(), 1)
    return np.divide(share, counts, out=np.zeros_like(counts), where=there)


def draws_per_class(counts: np.ndarray) -> float:
    """How many examples of each class that has any one epoch of ``epoch_order`` draws, on average: n / k."""
    counts = np.asarray(counts)
    return float(counts.sum() / max((counts > 0).sum(), 1))


def effective_counts(counts: np.ndarray, balance: str) -> np.ndarray:
    """Counts of examples as the loss weighs them, float64 (classes,): the prior that a network is trained under.

    Even under class weights and under sampling, for both make every class weigh the same; a correction by the prior
    on top (logit adjustment, Menon et al. 2021, theorem 1) would otherwise correct twice.
    """
    counts = np.asarray(counts, np.float64)
    return counts if balance == "none" else np.where(counts > 0, draws_per_class(counts), 0.0)


def example_order(labels: np.ndarray, balance: str, seed: int, epoch: int) -> np.ndarray:
    """Indices of the examples that ``epoch`` (counted from 0) trains on, in order, int64 (n,).

    A permutation of all, or under "sampling" the ``epoch_order``. A pure function of its arguments.
    """
    if balance == "sampling":
        return epoch_order(labels, seed, epoch)
    return np.random.default_rng((seed, 2, epoch)).permutation(len(labels))


def epoch_order(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Indices of n = len(labels) >= 1 examples, classes equally often, in random order; a pure function.

    Classes take turns, and each hands out its examples in passes: all of them once, in random order, before any comes
    again, also from one epoch to the next. So each class has floor or ceil of n / k draws an epoch, an example of a
    large class is drawn in one epoch of several, and one of a small class several times in one.
    """
    labels = np.asarray(labels)
    classes = np.random.default_rng((seed, 21)).permutation(np.unique(labels))
    turns = np.arange(epoch * len(labels), (epoch + 1) * len(labels))
    chosen = []
    for place, label in enumerate(classes):
        members = np.flatnonzero(labels == label)
        draws = turns[turns % len(classes) == place] // len(classes)
        for number in np.unique(draws // len(members)):
            order = np.random.default_rng((seed, 22, int(label), int(number))).permutation(members)
            chosen.append(order[draws[draws // len(members) == number] % len(members)])
    return np.random.default_rng((seed, 23, epoch)).permutation(np.concatenate(chosen))
