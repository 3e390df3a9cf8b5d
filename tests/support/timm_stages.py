"""Compare a Keras network with what the stages of timm's gave for the same weights, from the fixtures."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from tests.support.parity import ends
from tests.support.places import FIXTURES
from trainers.networks.conversion.convert import fill
from trainers.networks.conversion.published import PUBLISHED
from trainers.networks.conversion.state_dict import read_state_dict


def require_timms_stages(
    fixture: str, backbone: str, build: Callable[[tuple[int, int, int]], keras.Model], left: tuple[str, ...]
) -> None:
    """Fill the network that ``build`` makes for a shape of images with ``fixture``, and compare all its stages.

    ``backbone``: one of the same family, whose rules for names are taken. ``left``: tensors that the network lacks.
    """
    expected = dict(np.load(FIXTURES / f"{fixture}_features.npz"))
    images = expected.pop("images")
    model = build(images.shape[1:])
    tensors = read_state_dict(FIXTURES / f"{fixture}.safetensors")
    used, ignored, warnings = fill(model, tensors, "the fixture", PUBLISHED[backbone])
    assert (len(used), ignored, warnings) == (len(model.weights), left, ())
    outputs = ends(backbone, [layer.name for layer in model.layers])
    found = keras.Model(model.input, {stage: model.get_layer(name).output for stage, name in outputs.items()})(images)
    assert sorted(found) == sorted(expected)
    assert len(expected) >= 5
    for stage, features in expected.items():
        assert np.abs(features).max() > 1  # a comparison of zeros would say nothing
        np.testing.assert_allclose(np.asarray(found[stage]), features, atol=1e-4, rtol=0, err_msg=stage)
