"""Feature fusion: the head takes pooled features of the last three stages instead of the last one alone.

Vectors of different stages differ in magnitude by orders, so each is first divided by its root mean square (ParseNet,
Liu et al. 2016, section 3.3: L2 normalisation before features of several layers are combined; here times the root of
the width, which keeps the magnitude that a head expects, and without a learnt factor, which the weights above absorb).

``concat`` concatenates them. ``sum`` maps each linearly to one width, adds them and rectifies: the lateral connections
of a feature pyramid (FPN, Lin et al. 2017, section 3) on vectors instead of maps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from trainers.networks.graph import carries_all, edges, layer_strides

SUM_WIDTH = 256
"""Units of the neck of ``sum``, equal to the channels of FPN's maps."""
STAGES = 3
"""Number of stages that are fused."""
_SMALL = 1e-6
_NO_STAGE_ENDS = (
    keras.layers.ZeroPadding2D,
    keras.layers.Cropping2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.Dropout,
    keras.layers.InputLayer,
)


def stage_layers(model: keras.Model) -> tuple[str, ...]:
    """Name the layers that end the last three stages, the model's output last.

    A stage is all layers of one stride: 8, 16 and 32 for the networks of the table. It ends at the deepest layer
    through which all data passes (not a padding or pooling on the way to the next stage), or, without such a layer
    (NASNet), at the last sum or concatenation. Strides are the original ones, so an output stride changes no name.
    """
    strides = layer_strides(model)
    last = model.output._keras_history.operation.name
    levels = sorted({s for s in strides.values() if s < strides[last]})[1 - STAGES :]
    model_edges = edges(model)
    ends = []
    for level in levels:
        stage = [
            i
            for i, layer in enumerate(model.layers)
            if strides.get(layer.name) == level and not isinstance(layer, _NO_STAGE_ENDS)
        ]
        whole = [i for i in stage if carries_all(model_edges, i + 1)]
        merging = [i for i in stage if isinstance(model.layers[i], keras.layers.Add | keras.layers.Concatenate)]
        if stage:
            ends.append(model.layers[(whole or merging or stage)[-1]].name)
    return (*ends, last)


@dataclass(frozen=True)
class Packing:
    """Layout of one row: a map, flattened row by row, then the pooled features of earlier stages.

    ``shape``: (height, width, channels) of the map, None if rows hold pooled features alone. ``widths``: lengths of the
    pooled features, earliest stage first.
    """

    shape: tuple[int, int, int] | None
    widths: tuple[int, ...]

    @property
    def width(self) -> int:
        return sum(self.widths) + (math.prod(self.shape) if self.shape else 0)

    def pack(self, image_map: tf.Tensor | None, pooled: Sequence[tf.Tensor]) -> tf.Tensor:
        """Flatten and concatenate to float32 (n, width)."""
        flat = [] if self.shape is None else [tf.reshape(tf.cast(image_map, "float32"), (-1, math.prod(self.shape)))]
        return tf.concat([*flat, *pooled], 1)

    def unpack(self, rows: tf.Tensor) -> tuple[tf.Tensor | None, list[tf.Tensor]]:
        """Invert ``pack``."""
        if self.shape is None:
            return None, tf.split(rows, self.widths, 1)
        image_map, *pooled = tf.split(rows, [math.prod(self.shape), *self.widths], 1)
        return tf.reshape(image_map, (-1, *self.shape)), pooled


def comparable(vectors: tf.Tensor) -> tf.Tensor:
    """Divide each row of (n, width) by its root mean square; a row of zeros stays."""
    return vectors * tf.math.rsqrt(tf.reduce_mean(tf.square(vectors), 1, keepdims=True) + _SMALL)


def fused_width(fusion: str, widths: Sequence[int]) -> int:
    """Length of a fused vector."""
    return SUM_WIDTH if fusion == "sum" else sum(widths)


def fuse(vectors: Sequence[tf.Tensor], kernels: Sequence[Any]) -> tf.Tensor:
    """Fuse pooled features of each stage, (n, width_k), to (n, width). ``kernels``: (width_k, units) for a sum."""
    even = [comparable(v) for v in vectors]
    if not kernels:
        return tf.concat(even, 1)
    mapped = [tf.matmul(v, tf.convert_to_tensor(kernel)) for v, kernel in zip(even, kernels, strict=True)]
    return tf.nn.relu(tf.add_n(mapped))
