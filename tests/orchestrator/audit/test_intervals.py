"""The audit's intervals on small cases that can be worked out by hand; the rest is compared in ``test_figures``."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.audit.intervals import grouped_photos, smoothed_classes


def answers(*hits: int) -> tuple[np.ndarray, np.ndarray]:
    """Certain answers of two classes, right where ``hits`` is 1."""
    labels = np.zeros(len(hits), int)
    return np.eye(2)[1 - np.array(hits)], labels


def test_one_photo_an_object_is_wilsons_interval_and_mcnemars_test() -> None:
    first, labels = answers(*[1] * 8, 0, 0)
    second, _ = answers(*[1] * 10)
    found = grouped_photos(first, first, labels, [*"abcdefghij"])
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert grouped_photos(second, first, labels, [*"abcdefghij"])["p_value"] == pytest.approx(0.5)  # 2 of 2 changed


def test_two_photos_of_each_object_know_half_as_much() -> None:
    hits = [1, 1] * 10 + [0, 0] * 4
    first, labels = answers(*hits)
    objects = [str(i // 2) for i in range(28)]
    alone = grouped_photos(first, first, labels, [str(i) for i in range(28)])
    found = grouped_photos(first, first, labels, objects)
    assert found["groups"] == 14
    assert found["accuracy_high"] - found["accuracy_low"] > 1.3 * (alone["accuracy_high"] - alone["accuracy_low"])


def test_too_few_objects_have_no_difference() -> None:
    first, labels = answers(*[1, 0] * 6)
    second, _ = answers(*[1] * 12)
    assert np.isnan(grouped_photos(second, first, labels, [str(i // 4) for i in range(12)])["p_value"])


def test_version_3_adds_two_rights_and_two_wrongs() -> None:
    """10 photos, 8 right, as if z^2 = 3.84 more were half right: 9.92 of 13.84."""
    first, labels = answers(*[1] * 8, 0, 0)
    found = smoothed_classes(first, first, labels, [*"abcdefghij"])
    middle, half = 9.92073 / 13.84146, 1.959964 * (9.92073 * 3.92073 / 13.84146**3) ** 0.5
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx((middle - half, middle + half), abs=1e-6)


def test_version_3_has_an_interval_for_single_photos_and_a_pair() -> None:
    first, labels = answers(*[1] * 7, 0, 0)
    second, _ = answers(*[1] * 9)
    objects = [*"aabcdefgh"]
    assert np.isnan(grouped_photos(second, first, labels, objects)["difference_low"])
    found = smoothed_classes(second, first, labels, objects)
    assert -1 <= found["difference_low"] < 0 < found["difference_high"] <= 1
    assert found["macro_f1_low"] < 0.7
