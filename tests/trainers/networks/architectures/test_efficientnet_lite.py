"""EfficientNet-Lite: sizes, names, and what published weights make of photos."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.networks.architectures.efficientnet_lite import build_efficientnet_lite, rounded, torch_name
from trainers.networks.backbone import build_backbone
from trainers.networks.fusion import stage_layers

SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}


@pytest.mark.parametrize(("number", "blocks", "weights"), [(0, 16, 4_652_008), (1, 21, 5_416_680), (2, 21, 6_092_072)])
def test_the_networks_are_the_published_ones(number, blocks, weights):
    """The published state dicts hold this many weights, the classifier's 1,281,000 included."""
    model = build_efficientnet_lite((64, 64, 3), False, None, *SCALES[number])
    assert sum(layer.name.endswith("_dwconv") for layer in model.layers) == blocks
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) + 1_281_000 == weights
    assert model.output.shape == (None, 2, 2, 1280)
    assert stage_layers(model)[-1] == "top_relu"


@pytest.mark.parametrize(("filters", "expected"), [(32, 32), (17.6, 16), (26.4, 24), (44, 48), (88, 88), (123.2, 120)])
def test_filters_are_multiples_of_eight(filters, expected):
    assert rounded(filters) == expected


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("stem_bn", "_bn0"),
        ("top_conv", "_conv_head"),
        ("block0_dw_bn", "_blocks.0._bn1"),
        ("block15_expand_conv", "_blocks.15._expand_conv"),
    ],
)
def test_layers_have_the_published_names(layer, name):
    assert torch_name(layer) == name


def test_published_weights_are_found_and_tell_photos_apart(orch_data, orch_weights):
    from PIL import Image

    folders = sorted(
        folder for folder in (orch_data / "trashnet").rglob("*") if folder.is_dir() and any(folder.glob("*.jpg"))
    )
    photos = [sorted(folder.glob("*.jpg"))[n] for folder in folders[:3] for n in (0, 1)]
    images = np.stack([np.asarray(Image.open(p).convert("RGB").resize((224, 224)), np.float32) for p in photos])
    model = build_backbone("efficientnet_lite0", str(orch_weights), 224)
    features = np.asarray(model(images / 127.5 - 1)).mean((1, 2))
    assert features.shape == (6, 1280)
    # Random weights, or a wrong preprocessing, give every photo nearly the same features.
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert (unit @ unit.T)[~np.eye(6, dtype=bool)].max() < 0.9


def test_a_top_or_weights_are_refused():
    with pytest.raises(ValueError, match="EfficientNet-Lite is built without a top and without weights"):
        build_efficientnet_lite((32, 32, 3), True, None, 1.0, 1.0)
