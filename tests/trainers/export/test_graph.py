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
from trainers.export.graph import bytes_graph, bytes_policy, crop_graph
from trainers.images.crops import cut
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


def test_photos_are_turned_upright_and_laid_on_white_as_predict_does() -> None:
    """Of the network's size, so that nothing is resized: the answers are those to ``predict``'s pixels."""
    model = served(config())
    colours = Image.fromarray(picture(1, 2, (16, 16)))
    colours.paste("yellow", (0, 0, 16, 5))
    clear = colours.copy()
    clear.putalpha(Image.linear_gradient("L").resize((16, 16)))
    photos = []
    for image, kind, value in [(clear, "PNG", 1), *((colours, "PNG", o) for o in range(1, 9)), (colours, "JPEG", 6)]:
        tags, out = Image.Exif(), io.BytesIO()
        tags[0x0112] = value
        image.save(out, kind, exif=tags)
        photos.append(out.getvalue())
    pixels = np.stack([cut(photo, 16, "squash", ("whole",), "0" * 64)[0] for photo in photos])
    expected = one_by_one(model, pixels)
    assert len(np.unique(expected.round(7), axis=0)) == 10
    np.testing.assert_allclose(bytes_graph(model)(tf.constant(photos))["probabilities"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("policy", "used"), [("whole", "whole"), ("flip", "flip"), ("ten_crop", "whole"), ("my:OWN", "whole")]
)
def test_the_policy_of_photos_is_flip_or_whole(policy: str, used: str) -> None:
    assert bytes_policy(SimpleNamespace(policy=policy)) == used  # type: ignore[arg-type]
