"""What a Keras model's graph says of its layers: which feeds which, where one tensor carries all, how maps shrink."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from trainers.contract import TrainerError

_WHOLE_MAP = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)


def steps(model: keras.Model) -> Iterator[tuple[Any, list[Any]]]:
    """(operation, input tensors) of each call in ``model``, producers before consumers."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            yield node.operation, list(node.input_tensors)


def producer(tensor: Any) -> str:
    """The name of the layer whose output ``tensor`` is."""
    return tensor._keras_history.operation.name


def edges(model: keras.Model) -> set[tuple[int, int]]:
    """(position of a layer, position of one that takes its output), positions in ``model.layers``.

    Raises TrainerError for a model that computes something outside its layers.
    """
    position = {layer.name: i for i, layer in enumerate(model.layers)}
    loose = sorted(operation.name for operation in model.operations if operation.name not in position)
    if loose:
        raise TrainerError(
            f"the backbone {model.name} computes {loose[0]} outside its layers; put it into a keras layer of its "
            "own, so that the layers can be counted."
        )
    return {(position[producer(t)], position[operation.name]) for operation, inputs in steps(model) for t in inputs}


def carries_all(model_edges: set[tuple[int, int]], q: int) -> bool:
    """Whether the output of layer q - 1 is all that the layers from q on need of those before."""
    return {source for source, target in model_edges if (source < q) != (target < q)} <= {q - 1}


def layer_strides(model: keras.Model) -> dict[str, int]:
    """For each layer that gives a map: the image's side over the map's, as the strides on the way multiply.

    A stride that ``trainers.strides`` has replaced counts as it was. What follows a global pooling (the gate of
    squeeze and excitation) has no map and is left out.
    """
    found: dict[str, int] = {}
    for operation, inputs in steps(model):
        if len(operation.output.shape) != 4 or isinstance(operation, _WHOLE_MAP):
            continue
        if not inputs:
            found[operation.name] = 1
        before = [found[producer(t)] for t in inputs if producer(t) in found]
        if before:
            found[operation.name] = max(before) * own_stride(operation)
    return found


def own_stride(layer: Any) -> int:
    """By how much ``layer`` divides the side of its map."""
    replaced = getattr(layer, "replaced_stride", 0)
    if replaced:
        return replaced
    if isinstance(layer, keras.Sequential):  # a small model inside, such as ConvNeXt's downsampling
        return math.prod(own_stride(inner) for inner in layer.layers)
    if isinstance(layer, keras.Model):
        return max(layer_strides(layer).values())
    strides = getattr(layer, "strides", 1)
    return int(strides if isinstance(strides, int) else strides[0])


def lasting_name(model: keras.Model, name: str) -> str:
    """The name of a layer, the same in every process: with its position where Keras has given the name and counted."""
    layer = model.get_layer(name)
    named_by_keras = re.sub(r"_\d+$", "", name).replace("_", "").lower() == type(layer).__name__.lower()
    return f"{type(layer).__name__}@{model.layers.index(layer)}" if named_by_keras else name


def assign_weights(model: keras.Model, arrays: list[np.ndarray]) -> None:
    """``model.set_weights``, and what a layer derives from its weights (Keras' Normalization) is derived again."""
    model.set_weights(arrays)
    refresh(model)


def refresh(model: keras.Model) -> None:
    """Let each layer that keeps values derived from its weights derive them again."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
