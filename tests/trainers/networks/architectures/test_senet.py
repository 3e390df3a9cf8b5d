"""senet50: the stored features of timm's blocks, and the whole network's names and shapes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.support.places import FIXTURES
from trainers.networks.architectures.senet import build_se_resnet, build_senet50, reduced
from trainers.networks.conversion.convert import fill
from trainers.networks.conversion.published import PUBLISHED
from trainers.networks.conversion.state_dict import read_state_dict

NARROW_ENDS = {
    "stem": "stem_pool",
    "layer1": "stage1_block2_out",
    "layer2": "stage2_block1_out",
    "layer3": "stage3_block1_out",
    "layer4": "stage4_block1_out",
}
"""timm's name of a stage of the narrow network in tests/support/torch_models.py -> the Keras layer that ends it."""


def test_every_stage_gives_what_timms_gives():
    expected = dict(np.load(FIXTURES / "narrow_seresnet_features.npz"))
    images = expected.pop("images")
    model = build_se_resnet(images.shape[1:], depths=(2, 1, 1, 1), widths=(4, 4, 8, 8))
    tensors = read_state_dict(FIXTURES / "narrow_seresnet.safetensors")
    used, ignored, warnings = fill(model, tensors, "the fixture", PUBLISHED["senet50"])
    assert (len(used), ignored, warnings) == (len(model.weights), ("fc.bias", "fc.weight"), ())
    outputs = {stage: model.get_layer(layer).output for stage, layer in NARROW_ENDS.items()}
    found = keras.Model(model.input, outputs)(images)
    assert sorted(expected) == sorted(NARROW_ENDS)
    for stage, features in expected.items():
        assert np.abs(features).max() > 1  # a comparison of zeros would say nothing
        np.testing.assert_allclose(np.asarray(found[stage]), features, atol=1e-4, rtol=0, err_msg=stage)


def test_the_network_is_the_papers():
    model = build_senet50((64, 64, 3))
    assert model.output.shape == (None, 2, 2, 2048)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == 26_039_024  # timm's seresnet50 has 28,088,024 with its classifier's 2,049,000
    assert sum(layer.name.endswith("_se_scale") for layer in model.layers) == 16
    assert [layer.name for layer in model.layers][-3:] == [
        "stage4_block3_se_scale",
        "stage4_block3_add",
        "stage4_block3_out",
    ]


@pytest.mark.parametrize(("channels", "middle"), [(256, 16), (512, 32), (2048, 128), (64, 8), (16, 8), (192, 16)])
def test_a_gate_leaves_a_sixteenth(channels, middle):
    assert reduced(channels) == middle


def test_a_top_or_weights_are_refused():
    with pytest.raises(ValueError, match="senet50 is built without a top and without weights; load a converted"):
        build_senet50((32, 32, 3), include_top=True)
