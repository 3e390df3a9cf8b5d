"""senet50: the stored features of timm's blocks, and the whole network's names and shapes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.support.timm_stages import require_timms_stages
from trainers.networks.architectures.senet import build_se_resnet, build_senet50, reduced


def test_every_stage_gives_what_timms_gives():
    def narrow(shape: tuple[int, int, int]) -> keras.Model:
        return build_se_resnet(shape, depths=(2, 1, 1, 1), widths=(4, 4, 8, 8))

    require_timms_stages("narrow_seresnet", "senet50", narrow, ("fc.bias", "fc.weight"))


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
