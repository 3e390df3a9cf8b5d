"""Feature fusion: the head sees pooled features of the last three stages, not of the last one alone.

The vectors of different stages differ in size by orders of magnitude, so each is first divided by the root of its mean
square (ParseNet, Liu et al. 2016, section 3.3: L2 normalisation before features of several layers are put together;
here times the root of the width, so that a fused vector is as large as a head expects, and without a learnt factor,
which the weights above can take over).

``concat`` puts them side by side. ``sum`` gives each a linear map to one width, adds them and rectifies: the lateral
connections of a feature pyramid (FPN, Lin et al. 2017, section 3) on vectors instead of maps.
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
"""Units of the neck of ``sum``: the width of FPN's maps."""
STAGES = 3
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
    """The names of the layers that end the last three stages, the model's output last.

    A stage is all layers of one stride: 8, 16 and 32 for the networks of the table, others where the whole has fewer.
    Its end is the deepest layer through which all data passes (not a padding or pooling on the way to the next stage);
    where data never passes through one layer (NASNet), the last sum or concatenation. The strides are the original
    ones, so a model with another output stride gives the same names.
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
    """How a map and pooled features of earlier stages lie in one row: the map first, row by row.

    ``shape`` is the map's (height, width, channels), None where the rows hold pooled features alone. ``widths``: of the
    pooled features, earliest stage first.
    """

    shape: tuple[int, int, int] | None
    widths: tuple[int, ...]

    @property
    def width(self) -> int:
        return sum(self.widths) + (math.prod(self.shape) if self.shape else 0)

    def pack(self, image_map: tf.Tensor | None, pooled: Sequence[tf.Tensor]) -> tf.Tensor:
        """float32 (n, width)."""
        flat = [] if self.shape is None else [tf.reshape(tf.cast(image_map, "float32"), (-1, math.prod(self.shape)))]
        return tf.concat([*flat, *pooled], 1)

    def unpack(self, rows: tf.Tensor) -> tuple[tf.Tensor | None, list[tf.Tensor]]:
        """What ``pack`` was given."""
        if self.shape is None:
            return None, tf.split(rows, self.widths, 1)
        image_map, *pooled = tf.split(rows, [math.prod(self.shape), *self.widths], 1)
        return tf.reshape(image_map, (-1, *self.shape)), pooled


def comparable(vectors: tf.Tensor) -> tf.Tensor:
    """(n, width), each row divided by the root of its mean square; a row of zeros stays."""
    return vectors * tf.math.rsqrt(tf.reduce_mean(tf.square(vectors), 1, keepdims=True) + _SMALL)


def fused_width(fusion: str, widths: Sequence[int]) -> int:
    """The width of a fused vector."""
    return SUM_WIDTH if fusion == "sum" else sum(widths)


def fuse(vectors: Sequence[tf.Tensor], kernels: Sequence[Any]) -> tf.Tensor:
    """Pooled features of each stage, (n, width_k) -> one vector an image; ``kernels`` (width_k, units) for a sum."""
    even = [comparable(v) for v in vectors]
    if not kernels:
        return tf.concat(even, 1)
    mapped = [tf.matmul(v, tf.convert_to_tensor(kernel)) for v, kernel in zip(even, kernels, strict=True)]
    return tf.nn.relu(tf.add_n(mapped))
