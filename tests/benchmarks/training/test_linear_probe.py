"""The best linear probe of a set of features."""

import numpy as np

from benchmarks.training.linear_probe import PENALTIES, probes


def test_a_probe_learns_the_training_photos_and_is_judged_on_validation():
    draw = np.random.default_rng(0)
    labels = np.arange(300) % 3
    features = np.eye(3)[labels] * 4 + draw.normal(size=(300, 3))
    splits = np.array(["train", "validation", "test"])[draw.integers(0, 3, 300)]
    features[splits == "test"] = np.nan  # never looked at
    found = [*probes("some", features, labels, splits)]
    assert [probe.c for probe in found] == list(PENALTIES)
    assert {probe.total for probe in found} == {int((splits == "validation").sum())}
    assert max(probe.correct / probe.total for probe in found) > 0.9
