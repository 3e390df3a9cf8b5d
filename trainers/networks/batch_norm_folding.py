"""Fold batch norms into the convolutions before them: the same function of the images in fewer passes over the maps.

A frozen batch norm runs in inference mode, where it is a factor and a shift per channel (Ioffe & Szegedy 2015,
algorithm 2): y = gamma (x - mean) / sqrt(variance + epsilon) + beta. If x is the output of a convolution without
another consumer, the factor is multiplied into the convolution's kernel and the shift becomes its bias. Results differ
by rounding, in the last digits of float32.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import keras
import numpy as np

from trainers.code_digest import own_classes, own_functions
from trainers.networks.graph import producer, refresh, steps
from trainers.networks.strides import AlignedConv2D, AlignedDepthwiseConv2D

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, AlignedConv2D, AlignedDepthwiseConv2D)


def foldable(model: keras.Model) -> dict[str, str]:
    """Find which batch norms can be folded. Returns name of the batch norm -> name of the convolution.

    Only float32 layers of Keras' own classes: a subclass may compute anything. Empty if ``folded`` cannot reliably
    copy every layer: one of a user's own class, or one with a user's function that Keras cannot find by name.
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
    """Try it: only Keras knows what it can find by name. Another function under the same name does not count."""
    if not _is_known(layer):
        return False
    try:
        copy = type(layer).from_config(layer.get_config())
    except Exception:  # a user's function or object can make Keras raise anything
        return False
    return _functions(copy) == _functions(layer)


def _is_known(layer: Any) -> bool:
    if own_classes(layer) or isinstance(layer, keras.layers.Lambda):
        return False
    return not isinstance(layer, keras.Model) or all(map(_is_known, layer.layers))


def _functions(layer: Any) -> set[Any]:
    """The user's own functions in ``layer`` and in the layers inside it."""
    inside = layer._flatten_layers() if isinstance(layer, keras.layers.Layer) else [layer]
    held = [function for each in inside for function in own_functions(each)]
    return {function if isinstance(function, Hashable) else id(function) for function in held}


def folded(model: keras.Model, pairs: dict[str, str] | None = None) -> keras.Model:
    """Copy ``model`` for inference, with an identity of the same name in place of each foldable batch norm.

    ``pairs``: the result of ``foldable``, None to compute it. Returns ``model`` itself if nothing folds.
    """
    pairs = foldable(model) if pairs is None else pairs
    if not pairs:
        return model
    convolutions = set(pairs.values())

    def clone(layer: Any) -> Any:
        if layer.name in pairs:
            return keras.layers.Identity(name=layer.name)
        changes = {"use_bias": True} if layer.name in convolutions else {}
        return type(layer).from_config(layer.get_config() | changes)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return layer(args[0]) if layer.name in pairs else layer(*args, **kwargs)  # drops a batch norm's mask argument

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
    """Return the convolution's kernel and bias with the batch norm's factor and shift, computed in float64."""

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
