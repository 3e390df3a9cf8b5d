"""ConvNeXt V2 (Woo et al. 2023), as timm's ``convnextv2_*``: ConvNeXt with global response normalisation.

A block (figure 5) is a 7x7 depthwise convolution, a layer norm and two dense layers around GELU, added to its input.
Between the dense layers stands GRN (algorithm 1), which makes the channels compete: with X (h, w, c),

    g_i = ||X_i||_2 over h and w                   aggregation, equation 1
    n_i = g_i / mean of g over the channels        normalisation, equation 2
    X_i = gamma * X_i * n_i + beta + X_i           calibration and residual, equation 3

The last layer norm is applied to each position of the map, as in Keras' ConvNeXt; timm applies it to the map's mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from trainers.networks.architectures.resnet import refuse_top

EPSILON = 1e-6
EXPANSION = 4
LEAST_SQUARES = 1e-12
"""Minimum sum of squares of a channel whose root GRN takes."""


@keras.saving.register_keras_serializable("orch")
class GlobalResponseNormalization(layers.Layer):
    """GRN of a map (n, h, w, c), in float32 whatever the precision: squares overflow float16."""

    def build(self, input_shape: Any) -> None:
        """Create ``gamma`` and ``beta``, (c,), both 0: at first the layer changes nothing."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="zeros")
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        self.built = True

    def call(self, inputs: Any) -> Any:
        """(n, h, w, c) -> the same shape."""
        x = ops.cast(inputs, "float32")
        # Above 0, where the root has a gradient: a channel may be 0 over the whole map.
        g = ops.sqrt(ops.maximum(ops.sum(ops.square(x), axis=(1, 2), keepdims=True), LEAST_SQUARES))
        n = g / (ops.mean(g, axis=-1, keepdims=True) + EPSILON)
        gamma, beta = ops.cast(self.gamma, "float32"), ops.cast(self.beta, "float32")
        return ops.cast(gamma * (x * n) + beta + x, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape


def build_convnext_v2(
    input_shape: tuple[int, int, int], include_top: bool, weights: None, depths: Sequence[int], widths: Sequence[int]
) -> keras.Model:
    """Build a ConvNeXt V2 from preprocessed images ("torch") to the normalised map of its last stage.

    ``depths``, ``widths``: blocks and channels of each stage. Layers are named stem_conv, stem_norm,
    stage1_block1_dwconv and so on, stage2_downsample_norm, stage2_downsample_conv, and last norm. Raises ValueError for
    a top or for weights; load a converted weight file instead.
    """
    refuse_top("ConvNeXt V2", include_top, weights)
    inputs = keras.Input(input_shape, name="images")
    x = layers.Conv2D(widths[0], 4, strides=4, name="stem_conv")(inputs)
    x = _norm(x, "stem_norm")
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        if stage > 1:
            x = _norm(x, f"stage{stage}_downsample_norm")
            x = layers.Conv2D(width, 2, strides=2, name=f"stage{stage}_downsample_conv")(x)
        for block in range(1, depth + 1):
            x = _block(x, f"stage{stage}_block{block}")
    return keras.Model(inputs, _norm(x, "norm"), name="convnext_v2")


def timm_name(layer: str) -> str:
    """Translate a layer's name to timm's: stage2_block1_expand -> stages.1.blocks.0.mlp.fc1."""
    if not layer.startswith("stage"):
        return {"stem_conv": "stem.0", "stem_norm": "stem.1", "norm": "head.norm"}[layer]
    stage, block, part = layer.removeprefix("stage").split("_")
    start = f"stages.{int(stage) - 1}"
    if block == "downsample":
        return f"{start}.downsample.{('norm', 'conv').index(part)}"
    return f"{start}.blocks.{int(block.removeprefix('block')) - 1}.{_TIMM_PARTS[part]}"


_TIMM_PARTS = {"dwconv": "conv_dw", "norm": "norm", "expand": "mlp.fc1", "grn": "mlp.grn", "project": "mlp.fc2"}


def _block(x: Any, name: str) -> Any:
    """The block of figure 5."""
    width = x.shape[-1]
    y = layers.DepthwiseConv2D(7, padding="same", name=f"{name}_dwconv")(x)
    y = _norm(y, f"{name}_norm")
    y = layers.Dense(EXPANSION * width, name=f"{name}_expand")(y)
    y = layers.Activation("gelu", name=f"{name}_gelu")(y)
    y = GlobalResponseNormalization(name=f"{name}_grn")(y)
    y = layers.Dense(width, name=f"{name}_project")(y)
    return layers.Add(name=f"{name}_add")([x, y])


def _norm(x: Any, name: str) -> Any:
    return layers.LayerNormalization(epsilon=EPSILON, name=name)(x)
