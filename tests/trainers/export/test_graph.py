"""The winner as one graph: the same probabilities as the networks one by one, from crops and from encoded photos."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.support.tiny_fits import CLASSES, config, picture
from trainers.config import TrialConfig
from trainers.export.graph import bytes_graph, crop_graph
from trainers.networks.network import Architecture, Network
from trainers.training.steps import prefix_of


def served(trial: TrialConfig, policy: str = "whole", view: str = "squash") -> Any:
    """Two untrained networks, as a served model holds them."""
    architecture = Architecture.of(trial, "none", len(CLASSES))
    prefix = prefix_of(architecture.prefix)
    networks = [Network(architecture, prefix) for _ in range(2)]
    for seed, network in enumerate(networks):
        network.reset(trial, seed)
    return SimpleNamespace(prefix=prefix, networks=networks, image_size=16, view=view, policy=policy)


def one_by_one(model: Any, pixels: np.ndarray) -> np.ndarray:
    return np.mean([network.predict(model.prefix(pixels)) for network in model.networks], 0)


@pytest.mark.parametrize("unfrozen", ["all", 3])
def test_the_graph_gives_the_mean_of_the_networks(unfrozen: int | str) -> None:
    model = served(config(unfrozen_layers=unfrozen))
    pixels = np.stack([picture(label, 0, (16, 16)) for label in range(3)])
    expected = one_by_one(model, pixels)
    assert not np.allclose(expected, model.networks[0].predict(model.prefix(pixels)))
    found = crop_graph(model, tf.uint8, None)(tf.constant(pixels))["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    floats = crop_graph(model, tf.float32, 1)(tf.constant(pixels[:1], tf.float32))["probabilities"]
    np.testing.assert_allclose(floats, expected[:1], atol=1e-6)


@pytest.mark.parametrize(("policy", "view"), [("whole", "squash"), ("flip", "centre_crop")])
def test_photos_of_the_networks_size_are_read_as_they_are(policy: str, view: str) -> None:
    model = served(config(), policy, view)
    pixels = np.stack([picture(label, 1, (16, 16)) for label in range(2)])
    photos = []
    for image in pixels:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        photos.append(out.getvalue())
    expected = one_by_one(model, pixels)
    if policy == "flip":
        expected = (expected + one_by_one(model, pixels[:, :, ::-1])) / 2
    np.testing.assert_allclose(bytes_graph(model)(tf.constant(photos))["probabilities"], expected, atol=1e-6)
