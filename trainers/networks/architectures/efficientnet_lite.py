"""EfficientNet-Lite 0 to 2: EfficientNet for CPUs and integer accelerators (tensorflow/tpu, efficientnet/lite).

The stages of EfficientNet-B0 (Tan & Le 2019, table 1) without squeeze and excitation and with ReLU6 instead of swish.
Width and depth are scaled as in equation 3 of that paper, except for the stem, the head, and the repeats of the first
and the last stage. An inverted residual block (Sandler et al. 2018, figure 3d) expands, filters and projects:

    y = bn(project(relu6(bn(depthwise(relu6(bn(expand(x))))))))        plus x if both have the same shape
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers

from trainers.networks.architectures.resnet import refuse_top

EPSILON, MOMENTUM = 1e-3, 0.99
STEM, HEAD = 32, 1280
INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}
"""Kernels' random values, as in Keras' EfficientNet; by Keras' default images would get nearly the same features."""
STAGES = (
    *((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3)),
    *((5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1)),
)
"""Kernel, stride, expansion, filters and repeats of each stage."""


def build_efficientnet_lite(
    input_shape: tuple[int, int, int], include_top: bool, weights: None, width: float, depth: float
) -> keras.Model:
    """Build an EfficientNet-Lite from preprocessed images ("tf") to a map of 1,280 channels.

    ``width``, ``depth``: factors of the filters and of the repeats. Layers are named stem_conv, stem_bn, then
    block0_expand_conv and so on, blocks counted from 0 over all stages, and top_conv, top_bn, top_relu. Raises
    ValueError for a top or for weights; load a converted weight file instead.
    """
    refuse_top("EfficientNet-Lite", include_top, weights)
    inputs = keras.Input(input_shape, name="images")
    x = layers.Conv2D(
        STEM, 3, strides=2, padding="same", use_bias=False, kernel_initializer=INITIALIZER, name="stem_conv"
    )(inputs)
    x = layers.ReLU(6.0, name="stem_relu")(_norm(x, "stem_bn"))
    number = 0
    for stage, (kernel, stride, expansion, filters, repeats) in enumerate(STAGES):
        is_scaled = 0 < stage < len(STAGES) - 1
        for repeat in range(math.ceil(depth * repeats) if is_scaled else repeats):
            step = stride if repeat == 0 else 1
            x = _block(x, kernel, step, expansion, rounded(filters * width), f"block{number}")
            number += 1
    x = layers.Conv2D(HEAD, 1, use_bias=False, kernel_initializer=INITIALIZER, name="top_conv")(x)
    return keras.Model(inputs, layers.ReLU(6.0, name="top_relu")(_norm(x, "top_bn")), name="efficientnet_lite")


def rounded(filters: float) -> int:
    """Round to the nearest multiple of 8, but never below nine tenths of ``filters``."""
    nearest = max(8, int(filters + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * filters else nearest


def torch_name(layer: str) -> str:
    """Translate a layer's name to efficientnet-lite-pytorch's: block3_dwconv -> _blocks.3._depthwise_conv."""
    if not layer.startswith("block"):
        return {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head", "top_bn": "_bn1"}[layer]
    block, part = layer.removeprefix("block").split("_", 1)
    return f"_blocks.{block}.{_TORCH_PARTS[part]}"


_TORCH_PARTS = {
    **{"expand_conv": "_expand_conv", "expand_bn": "_bn0", "dwconv": "_depthwise_conv", "dw_bn": "_bn1"},
    **{"project_conv": "_project_conv", "project_bn": "_bn2"},
}


def _block(x: Any, kernel: int, stride: int, expansion: int, filters: int, name: str) -> Any:
    """An inverted residual block."""
    y = x
    if expansion != 1:
        y = layers.Conv2D(
            x.shape[-1] * expansion, 1, use_bias=False, kernel_initializer=INITIALIZER, name=f"{name}_expand_conv"
        )(y)
        y = layers.ReLU(6.0, name=f"{name}_expand_relu")(_norm(y, f"{name}_expand_bn"))
    y = layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, depthwise_initializer=INITIALIZER, name=f"{name}_dwconv"
    )(y)
    y = layers.ReLU(6.0, name=f"{name}_dw_relu")(_norm(y, f"{name}_dw_bn"))
    y = _norm(
        layers.Conv2D(filters, 1, use_bias=False, kernel_initializer=INITIALIZER, name=f"{name}_project_conv")(y),
        f"{name}_project_bn",
    )
    return layers.Add(name=f"{name}_add")([y, x]) if stride == 1 and x.shape[-1] == filters else y


def _norm(x: Any, name: str) -> Any:
    return layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)(x)
