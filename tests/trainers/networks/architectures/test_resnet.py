"""PyTorch's ResNets: the stored features of timm's blocks, names, and the place of the stride."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.support.timm_stages import require_timms_stages
from trainers.backbones import backbone, load_builder
from trainers.networks.architectures.resnet import build_resnet, residual_network, timm_name


def test_every_stage_of_basic_blocks_gives_what_timms_gives():
    def narrow(shape: tuple[int, int, int]) -> keras.Model:
        return residual_network(shape, (2, 1, 1, 1), (4, 4, 8, 8), bottleneck=False)

    require_timms_stages("narrow_resnet", "resnet18", narrow, ("fc.bias", "fc.weight"))


@pytest.mark.parametrize(
    ("name", "weights"),
    [("resnet18", 11_176_512), ("resnet34", 21_284_672), ("resnet50v1.5", 23_508_032)],
)
def test_the_networks_are_torchvisions(name, weights):
    """torchvision counts 11,689,512, 21,797,672 and 25,557,032 with the classifier's 513,000 or 2,049,000."""
    row = backbone(name)
    model = load_builder(row)(input_shape=(64, 64, 3), include_top=False, weights=None, **row.arguments)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == weights
    assert model.output.shape == (None, 2, 2, 2048 if "v1.5" in name else 512)


def test_the_stride_is_in_the_3x3_convolution():
    model = residual_network((32, 32, 3), (1, 1), (4, 4))
    strides = {n: model.get_layer(f"stage2_block1_{n}").strides for n in ("conv1", "conv2", "shortcut_conv")}
    assert strides == {"conv1": (1, 1), "conv2": (2, 2), "shortcut_conv": (2, 2)}


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("stem_bn", "bn1"),
        ("stage1_block1_conv1", "layer1.0.conv1"),
        ("stage4_block3_shortcut_bn", "layer4.2.downsample.1"),
        ("stage1_block2_se_fc1", "layer1.1.se.fc1"),
    ],
)
def test_layers_have_timms_names(layer, name):
    assert timm_name(layer) == name


def test_a_top_or_weights_are_refused():
    with pytest.raises(ValueError, match="a ResNet is built without a top and without weights; load a converted"):
        build_resnet((32, 32, 3), True, None, (1, 1, 1, 1))
