"""Class balancing: weights in the loss, or balanced sampling. Imports no TensorFlow.

Counts are of training examples, augmented copies included: the multiplier acts first. Classes without examples are
left out of every formula.
"""

from __future__ import annotations

import numpy as np


def class_weights(counts: np.ndarray) -> np.ndarray:
    """Counts (classes,) -> loss weight of an example of each class, float64 (classes,).

    n / (k count), where k is the number of non-empty classes: every class weighs the same in an epoch, and the mean
    weight of the n examples is 1. An empty class has weight 0.
    """
    counts = np.asarray(counts, np.float64)
    present = counts > 0
    share = counts.sum() / max(present.sum(), 1)
    return np.divide(share, counts, out=np.zeros_like(counts), where=present)


def draws_per_class(counts: np.ndarray) -> float:
    """Mean number of draws per non-empty class in an epoch of ``epoch_order``: n / k."""
    counts = np.asarray(counts)
    return float(counts.sum() / max((counts > 0).sum(), 1))


def effective_counts(counts: np.ndarray, balance: str) -> np.ndarray:
    """Example counts as the loss weighs them, float64 (classes,): the class prior that a network is trained under.

    Uniform under class weights and sampling, which both equalise the classes; otherwise a correction by the prior
    (logit adjustment, Menon et al. 2021, theorem 1) would correct twice.
    """
    counts = np.asarray(counts, np.float64)
    return counts if balance == "none" else np.where(counts > 0, draws_per_class(counts), 0.0)


def example_order(labels: np.ndarray, balance: str, seed: int, epoch: int, draws: int | None = None) -> np.ndarray:
    """Indices of the examples of ``epoch`` (from 0), in training order, int64 (draws,).

    ``draws``: at most n, the number of examples; None for n. Examples are drawn without replacement until all have
    been drawn, across epochs: of n draws each epoch is a permutation. With ``balance`` "sampling": ``epoch_order``. A
    pure function of its arguments.
    """
    draws = len(labels) if draws is None else draws
    if balance == "sampling":
        return epoch_order(labels, seed, epoch, draws)
    turns = np.arange(epoch * draws, (epoch + 1) * draws)
    passes = [
        np.random.default_rng((seed, 2, int(number))).permutation(len(labels))[
            turns[turns // len(labels) == number] % len(labels)
        ]
        for number in np.unique(turns // len(labels))
    ]
    return np.concatenate(passes)


def occurrences(order: np.ndarray) -> np.ndarray:
    """Return how often each of ``order``, int (n,), came before it in ``order``, int64 (n,)."""
    by_value = np.argsort(order, kind="stable")
    ordered, places = np.asarray(order)[by_value], np.arange(len(order))
    is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(order)]
    found = np.empty(len(order), np.int64)
    found[by_value] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return found


def epoch_order(labels: np.ndarray, seed: int, epoch: int, draws: int | None = None) -> np.ndarray:
    """Indices of ``draws`` (None: n = len(labels) >= 1) examples with balanced classes, in random order.

    Classes take turns. Each class draws its examples without replacement until all have been drawn, across epochs. So
    each class gets floor or ceil of draws / k draws per epoch; an example of a large class is drawn in one epoch of
    several, one of a small class several times in each. A pure function.
    """
    size = len(labels) if draws is None else draws
    labels = np.asarray(labels)
    classes = np.random.default_rng((seed, 21)).permutation(np.unique(labels))
    turns = np.arange(epoch * size, (epoch + 1) * size)
    chosen = []
    for place, label in enumerate(classes):
        members = np.flatnonzero(labels == label)
        own = turns[turns % len(classes) == place] // len(classes)
        for number in np.unique(own // len(members)):
            order = np.random.default_rng((seed, 22, int(label), int(number))).permutation(members)
            chosen.append(order[own[own // len(members) == number] % len(members)])
    return np.random.default_rng((seed, 23, epoch)).permutation(np.concatenate(chosen))
