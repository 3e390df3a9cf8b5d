"""Wrong labels are found first; right ones are not suspected."""

from __future__ import annotations

import numpy as np

from orchestrator.commands.data.confident_learning import COLUMNS, find_suspects


def planted(seed: int, wrong: int = 12, photos: int = 400, classes: int = 4) -> tuple[np.ndarray, np.ndarray, set[int]]:
    """Labels of which ``wrong`` are not the true class, and good but not certain predictions of the true one."""
    draw = np.random.default_rng(seed)
    true = draw.integers(0, classes, photos)
    logits = draw.normal(size=(photos, classes)) + 6 * np.eye(classes)[true]
    labels = true.copy()
    places = draw.choice(photos, wrong, replace=False)
    labels[places] = (labels[places] + draw.integers(1, classes, wrong)) % classes
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), set(places.tolist())


def test_planted_errors_come_first() -> None:
    for seed in range(5):
        labels, probabilities, wrong = planted(seed)
        found = find_suspects([str(i) for i in range(400)], labels, probabilities, ["a", "b", "c", "d"])
        assert list(found.columns) == list(COLUMNS)
        first = {int(path) for path in found["path"].head(12)}
        assert len(first & wrong) >= 8
        assert len(found) <= 40
        assert (found["label"] != found["likely_label"]).all()
        assert found["label_probability"].is_monotonic_increasing


def test_right_labels_and_absent_classes_give_no_suspects() -> None:
    labels = np.array([0, 0, 2, 2] * 5)
    probabilities = np.eye(3)[labels] * 0.94 + 0.02
    found = find_suspects([str(i) for i in range(20)], labels, probabilities, ["a", "nobody", "c"])
    assert found.empty
    assert list(found.columns) == list(COLUMNS)
