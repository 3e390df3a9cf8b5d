"""Figures of a classifier on labelled photos: one definition for the search and the leaderboard. Free of TensorFlow."""

from __future__ import annotations

import numpy as np

Z_95 = 1.959963984540054
"""The standard normal's 97.5 % quantile."""
SMALLEST_PROBABILITY = 1e-7
"""Minimum that a probability counts as in a log loss: one mistake costs at most 16.1 nats."""


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The unweighted mean of F1 = 2TP / (2TP + FP + FN) over the classes in ``labels`` or ``predicted``.

    Both int (n,), n > 0, class indices. scikit-learn's ``f1_score(average="macro", zero_division=0)``, which takes
    milliseconds where this takes microseconds: a trial asks after every epoch.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    classes = 1 + int(max(labels.max(), predicted.max()))
    hits = np.bincount(labels[labels == predicted], minlength=classes)
    occurs = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float(np.mean(2 * hits[occurs > 0] / occurs[occurs > 0]))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of -log p(true class), in nats; p counts as at least SMALLEST_PROBABILITY.

    ``probabilities``: (n, classes), rows sum to 1; computed in their dtype. ``labels``: int (n,).
    """
    true_class = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true_class, SMALLEST_PROBABILITY)).mean())


def macro_f1_influence(labels: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return macro F1 and what each image adds to it to first order, float64 (..., n); their mean is 0.

    ``labels`` and ``predicted``: int (..., n), broadcast. With F_k = 2TP_k / d_k, d_k the number of
    images labelled k plus that predicted k, image i adds n / K sum over k of (2 [y_i = p_i = k] - F_k ([y_i = k] +
    [p_i = k])) / d_k: the delta method (as in Takahashi et al. 2022, Applied Intelligence 52), whose sums over groups
    of images give a variance that respects them. Classes in neither have no part.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    shape = np.broadcast_shapes(labels.shape, predicted.shape)
    figure, influence, occurring = np.zeros(shape[:-1]), np.zeros(shape), np.zeros(shape[:-1])
    for k in range(1 + int(max(labels.max(), predicted.max()))):
        given, answered = labels == k, predicted == k
        denominator = given.sum(-1) + answered.sum(-1)
        safe = np.maximum(denominator, 1)[..., None]
        hits = given & answered
        f1 = 2 * hits.sum(-1)[..., None] / safe
        figure += f1[..., 0]
        occurring += denominator > 0
        influence += (2.0 * hits - f1 * (given + 1.0 * answered)) / safe
    return figure / occurring, influence * labels.shape[-1] / occurring[..., None]


def confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the number of images labelled k and predicted j, float64 (..., classes, classes), of those that occur.

    ``labels``: int (n,); ``predicted``: int (..., n).
    """
    names = np.unique(np.r_[np.unique(labels), np.unique(predicted)])
    given = (np.asarray(labels)[:, None] == names).astype(np.float32)
    return np.stack([(np.asarray(predicted) == j).astype(np.float32) @ given for j in names], axis=-1).astype(
        np.float64
    )


def macro_f1_variance(table: np.ndarray, photos: float) -> np.ndarray:
    """Return the variance of macro F1 by the delta method, for independent images and fixed class sizes n_k.

    ``table``: ``confusion``. Recall of class k is (hits + a x) / (n_k + a) with a = ``photos`` images more at the
    accuracy x, whose mistakes fall on the other classes evenly, so that no small class is taken for certain (Agresti &
    Min 2005 add to a table likewise). V = sum over k of n_k Var_k / K^2; a hit has the influence (2 - 2 F_k) / d_k, a
    photo of k answered j has -F_k / d_k - F_j / d_j (``macro_f1_influence``).
    """
    classes = table.shape[-1]
    sizes, diagonal = table.sum(-1), np.arange(classes)
    hits = table[..., diagonal, diagonal]
    accuracy = hits.sum(-1, keepdims=True) / sizes.sum(-1, keepdims=True)
    recall = (hits + photos * accuracy) / (sizes + photos)
    missed = table + photos * (1 - accuracy)[..., None] / max(classes - 1, 1)
    missed[..., diagonal, diagonal] = 0
    missed /= (sizes + photos)[..., None]
    answered = (sizes[..., None] * missed).sum(-2) + sizes * recall
    d = sizes + answered
    f1 = 2 * sizes * recall / d
    hit, miss = (2 - 2 * f1) / d, -(f1 / d)[..., :, None] - (f1 / d)[..., None, :]
    mean = recall * hit + (missed * miss).sum(-1)
    square = recall * hit**2 + (missed * miss**2).sum(-1)
    return np.asarray((sizes * (square - mean**2)).sum(-1) / classes**2)
