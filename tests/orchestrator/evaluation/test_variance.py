"""Groups and the crossed components of variance, against sums written out and against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.evaluation.variance import (
    Groups,
    components,
    difference_components,
    gain_components,
    groups_of_hashes,
)


def test_groups_by_name():
    groups = Groups.of(["b", "a", "b", "c"], 4)
    assert (groups.images, groups.count, groups.are_single) == (4, 3, False)
    assert groups.sizes.tolist() == [1, 2, 1]
    assert groups.sums(np.array([[1, 10, 100, 1000]])).tolist() == [[10, 101, 1000]]
    assert groups.weighted_size == (1 + 4 + 1) / 4
    assert groups.words == "4 photos of 3 objects"
    assert Groups.of(None, 1200).words == "1,200 photos"
    assert Groups.of(["x"] * 1, 1).words == "1 photo"
    for names, images in ((["a"], 2), (None, 0)):
        with pytest.raises(ValueError, match="one name per image, at least 1"):
            Groups.of(names, images)


def test_groups_are_found_by_hash_in_any_order():
    assert groups_of_hashes(["c", "a", "new"], ["a", "b", "c"], ["g", "g", "h"]) == ["h", "g", "new"]


def written_out(values: np.ndarray, names: np.ndarray) -> tuple[float, float, float]:
    """V_P, V_N and V_I by their definitions, in loops."""
    networks, images = values.shape
    mean, own = values.mean(), values.mean(axis=1)
    objects = sorted(set(names))
    g = len(objects)
    photos = sum((values.mean(axis=0) - mean)[names == o].sum() ** 2 for o in objects) * g / (g - 1) / images**2
    between = ((own - mean) ** 2).sum() / (networks - 1) / networks
    rest = values - own[:, None] - values.mean(axis=0) + mean
    cells = sum(rest[s, names == o].sum() ** 2 for s in range(networks) for o in objects)
    return photos, between, cells * g / (g - 1) / (networks - 1) / networks / images**2


def test_the_components_are_those_of_the_formulas():
    rng = np.random.default_rng(0)
    values, names = (rng.random((3, 40)) < 0.8).astype(float), rng.integers(0, 9, 40)
    parts = components(values, Groups.of(names, 40))
    assert (parts.photos, parts.networks, parts.interaction) == pytest.approx(written_out(values, names))
    assert (parts.network_df, float(parts.mean)) == (2, pytest.approx(values.mean()))
    other = (rng.random((2, 40)) < 0.8).astype(float)
    apart = difference_components(other, values, Groups.of(names, 40))
    first, second = components(other, Groups.of(names, 40)), parts
    assert apart.networks == pytest.approx(first.networks + second.networks)
    assert apart.interaction == pytest.approx(first.interaction + second.interaction)
    assert (apart.network_df, float(apart.mean)) == (3, pytest.approx(values.mean() - other.mean()))


def test_many_data_sets_at_once_are_each_computed_as_alone():
    rng = np.random.default_rng(1)
    values, groups = rng.random((5, 3, 60)) < 0.9, Groups.of(np.arange(60) // 4, 60)
    together = components(values, groups)
    for i in range(5):
        alone = components(values[i], groups)
        assert together.photos[i] == pytest.approx(alone.photos)
        assert together.photo_df(groups, 4.0)[i] == pytest.approx(alone.photo_df(groups, 4.0))


def test_the_components_estimate_the_variance_of_the_mean():
    """Groups, networks and their interaction planted; 4,000 data sets."""
    rng, (r, s, g, m) = np.random.default_rng(2), (4000, 3, 20, 5)
    values = rng.normal(size=(r, s, 1, 1)) + rng.normal(size=(r, 1, g, 1)) + 2 * rng.normal(size=(r, s, g, m))
    values = values.reshape(r, s, g * m)
    parts = components(values, Groups.of(np.arange(g * m) // m, g * m))
    estimate = (parts.photos + parts.networks - parts.interaction).mean()
    assert estimate == pytest.approx(values.mean(axis=(1, 2)).var(), rel=0.06)


def test_a_network_compared_with_itself_is_one_sample_of_differences():
    rng = np.random.default_rng(3)
    a, b = rng.random((4, 50)) < 0.9, rng.random((4, 50)) < 0.9
    groups = Groups.of(None, 50)
    parts = gain_components(a, b, groups)
    assert parts.network_df == 3
    assert parts.photos == pytest.approx(components(b.astype(float) - a, groups).photos)
