"""Batch norms folded into the convolutions before them: the same function of the images in fewer passes over the maps.

A frozen batch norm runs in inference mode, where it is a factor and a shift a channel (Ioffe & Szegedy 2015, algorithm
2): y = gamma (x - mean) / sqrt(variance + epsilon) + beta. Where x is the output of a convolution and of no use to
anybody else, the factor can be multiplied into the convolution's kernel and the shift becomes its bias. What changes is
rounding, in the last digits of float32.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from trainers.graph import producer, refresh, steps
from trainers.strides import AlignedConv2D, AlignedDepthwiseConv2D

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, AlignedConv2D, AlignedDepthwiseConv2D)


def foldable(model: keras.Model) -> dict[str, str]:
    """Batch norm -> the convolution that it can be folded into, by the names of their layers.

    Float32 layers of Keras' own kinds alone: a subclass may compute anything. None in a model that has a layer whose
    class is neither Keras' nor this package's, for ``folded`` could not be sure to copy it.
    """
    calls = list(steps(model))
    if not all(_can_be_copied(operation) for operation, _ in calls):
        return {}
    uses: dict[str, int] = {}
    for name in [producer(t) for _, inputs in calls for t in inputs] + [producer(t) for t in model.outputs]:
        uses[name] = uses.get(name, 0) + 1
    times = [operation.name for operation, _ in calls]
    layers = {operation.name: operation for operation, _ in calls}
    found: dict[str, str] = {}
    for operation, inputs in calls:
        if type(operation) is not keras.layers.BatchNormalization or operation.axis not in (-1, 3):
            continue
        convolution = layers[producer(inputs[0])]
        plain = type(convolution) in CONVOLUTIONS and convolution.activation is keras.activations.linear
        once = times.count(operation.name) == times.count(convolution.name) == uses[convolution.name] == 1
        float32 = convolution.compute_dtype == operation.compute_dtype == "float32"
        if plain and once and float32 and convolution.data_format == "channels_last":
            found[operation.name] = convolution.name
    return found


def _can_be_copied(layer: Any) -> bool:
    known = type(layer).__module__.split(".")[0] in ("keras", __name__.split(".")[0])
    if isinstance(layer, keras.Model):
        return known and all(_can_be_copied(inner) for inner in layer.layers)
    return known and not isinstance(layer, keras.layers.Lambda)


def folded(model: keras.Model) -> keras.Model:
    """A copy of ``model`` for inference, each foldable batch norm an identity of the same name.

    ``model`` itself where there is none.
    """
    pairs = foldable(model)
    if not pairs:
        return model
    convolutions = set(pairs.values())

    def clone(layer: Any) -> Any:
        if layer.name in pairs:
            return keras.layers.Identity(name=layer.name)
        changes = {"use_bias": True} if layer.name in convolutions else {}
        return type(layer).from_config(layer.get_config() | changes)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return layer(args[0]) if layer.name in pairs else layer(*args, **kwargs)  # a batch norm's mask is nobody's

    copy = keras.models.clone_model(model, call_function=call, clone_function=clone)
    for layer in model.layers:
        if layer.weights and layer.name not in pairs and layer.name not in convolutions:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    for norm, convolution in pairs.items():
        layer = copy.get_layer(convolution)
        layer.set_weights(_merged(model.get_layer(convolution), model.get_layer(norm)))
    refresh(copy)
    return copy


def _merged(convolution: Any, norm: Any) -> list[np.ndarray]:
    """The convolution's kernel and bias with the batch norm's factor and shift; worked out in float64."""

    def values(weight: Any) -> np.ndarray:
        return np.asarray(weight, np.float64)

    factor = 1.0 / np.sqrt(values(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        factor = factor * values(norm.gamma)
    shift = -values(norm.moving_mean) * factor
    if norm.center:
        shift = shift + values(norm.beta)
    kernel = values(convolution.kernel)
    if convolution.use_bias:
        shift = shift + values(convolution.bias) * factor
    # A depthwise kernel is (h, w, channels, multiplier); its outputs are ordered by channel, then by multiplier.
    by_output = factor.reshape(kernel.shape[2:]) if hasattr(convolution, "depth_multiplier") else factor
    return [(kernel * by_output).astype(np.float32), shift.astype(np.float32)]
