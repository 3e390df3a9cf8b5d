"""Backbone, boundary and head.

``layers`` of the backbone are counted as Keras lists them. With n unfrozen layers the first L - n are frozen, and
a frozen BatchNorm runs in inference mode; so what lies below is a fixed function, the *prefix*. The prefix ends at
the deepest layer at or below the boundary through which all data passes (an arbitrary count can cut a residual
block); the few frozen layers between are run with the rest.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainers.backbones import Backbone, backbone, load_builder, weight_file
from trainers.contract import TrainerError, TrialConfig
from trainers.heads import default_scale, head


@dataclass(frozen=True)
class Architecture:
    """What of a configuration decides the shape of the network, and nothing else. Hashable."""

    backbone: str
    weights: str
    image_size: int
    unfrozen_layers: int | str
    pooling: str
    hidden: int
    head: str
    classes: int
    precision: str = "float32"

    @classmethod
    def of(cls, config: TrialConfig, weights: str, classes: int, precision: str = "float32") -> Architecture:
        return cls(
            config.backbone,
            weights,
            config.image_size or backbone(config.backbone).native_size,
            config.unfrozen_layers,
            config.pooling,
            config.hidden,
            config.head,
            classes,
            precision,
        )


def build_backbone(name: str, weights: str, image_size: int, precision: str = "float32", seed: int = 0) -> keras.Model:
    """The whole backbone without a top. Without weights (or where none exist) its values come from ``seed``.

    ``weights``: "imagenet" (Keras downloads them), "none", or a folder. ``precision``: a Keras dtype policy.
    Raises TrainerError.
    """
    row = backbone(name)
    if image_size < row.smallest_size:
        raise TrainerError(f"{name} takes images of {row.smallest_size} px or more, not {image_size}.")
    random = is_random(name, weights)
    keras_weights = "imagenet" if weights == "imagenet" and not random else None
    keras.utils.set_random_seed(seed)
    with _dtype_policy(precision):
        shape = (image_size, image_size, 3)
        model = load_builder(row)(input_shape=shape, include_top=False, weights=keras_weights, **row.arguments)
    if not random and keras_weights is None:
        file = weight_file(row, Path(weights), image_size)
        try:
            model.load_weights(file)
        except (ValueError, OSError) as error:
            raise TrainerError(f"the weights in {file} do not fit {name}: {error}") from error
    return model


def is_random(name: str, weights: str) -> bool:
    """Whether the backbone starts from random values: none were asked for, or none exist."""
    return weights == "none" or not backbone(name).imagenet


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Layers made inside have the dtype policy ``name``; Keras' default is as before afterwards."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@functools.lru_cache(maxsize=4)
def pretrained(name: str, weights: str, image_size: int, precision: str) -> keras.Model:
    """``build_backbone`` with seed 0, built once a process. Shared: nobody changes its weights."""
    return build_backbone(name, weights, image_size, precision)


@functools.lru_cache(maxsize=2)
def _random_weights(name: str, image_size: int, seed: int) -> list[list[np.ndarray]]:
    """The starting values that ``seed`` gives each layer of a backbone without weights, in the layers' order."""
    return [layer.get_weights() for layer in build_backbone(name, "none", image_size, seed=seed).layers]


def boundary_index(model: keras.Model, unfrozen_layers: int | str) -> int:
    """How many of ``model.layers`` are frozen."""
    if unfrozen_layers == "all":
        return 0
    return max(len(model.layers) - int(unfrozen_layers), 0)


def prefix_length(model: keras.Model, frozen: int) -> int:
    """The largest q <= ``frozen`` such that one tensor carries all that ``layers[q:]`` needs of ``layers[:q]``.

    0 or 1 (the input alone) mean that the images themselves are that tensor. Raises TrainerError for a model that
    computes something outside its layers.
    """
    position = {layer.name: i for i, layer in enumerate(model.layers)}
    loose = sorted(operation.name for operation in model.operations if operation.name not in position)
    if loose:
        raise TrainerError(
            f"the backbone {model.name} computes {loose[0]} outside its layers; put it into a keras layer of its "
            "own, so that the layers can be counted."
        )
    edges = {
        (position[tensor._keras_history.operation.name], position[node.operation.name])
        for nodes in model._nodes_by_depth.values()
        for node in nodes
        for tensor in node.input_tensors
    }
    for q in range(frozen, 0, -1):
        crossing = {source for source, target in edges if (source < q) != (target < q)}
        if crossing <= {q - 1}:
            return q
    return 0


def preprocess(row: Backbone, images: tf.Tensor) -> tf.Tensor:
    """uint8 RGB (n, s, s, 3) to what the backbone was trained on, in float32; its layers cast as they need."""
    x = tf.cast(images, "float32")
    if row.preprocessing == "tf":
        x = x / 127.5 - 1.0
    elif row.preprocessing == "caffe":
        x = x[..., ::-1] - tf.constant([103.939, 116.779, 123.68])
    else:
        raise TrainerError(f"{row.name} names the preprocessing {row.preprocessing!r}; known are tf and caffe.")
    return x


def pool(features: tf.Tensor, pooling: str) -> tf.Tensor:
    """(n, h, w, c) to (n, c), in float32."""
    features = tf.cast(features, "float32")
    return tf.reduce_mean(features, (1, 2)) if pooling == "average" else tf.reduce_max(features, (1, 2))


class Prefix:
    """The frozen part of an architecture, from uint8 images to one tensor per image. A fixed function.

    ``spec`` is the shape (the first axis free) and dtype of what it gives: uint8 images where nothing is frozen,
    else float32.
    """

    def __init__(self, architecture: Architecture, model: keras.Model | None = None) -> None:
        """``model``: the whole backbone with its starting weights; without it the one that ``architecture`` names."""
        a = self.architecture = architecture
        if model is None:
            model = pretrained(a.backbone, a.weights, a.image_size, a.precision)
        row, self.model = backbone(a.backbone), model
        self.length = prefix_length(model, boundary_index(model, a.unfrozen_layers))
        self.is_identity = self.length <= 1
        self.layer = "" if self.is_identity else model.layers[self.length - 1].name
        pooled = self.length == len(model.layers)
        self.pooling = a.pooling if pooled else ""
        images = tf.TensorSpec((None, a.image_size, a.image_size, 3), tf.uint8)
        if self.is_identity:
            self.spec = images
            return
        output = model.layers[self.length - 1].output
        self.spec = tf.TensorSpec((None, output.shape[-1]) if pooled else output.shape, tf.float32)
        self._frozen = frozen = keras.Model(model.input, output)

        @tf.function(input_signature=[images])
        def run(pixels: tf.Tensor) -> tf.Tensor:
            features = frozen(preprocess(row, pixels), training=False)
            return pool(features, self.pooling) if pooled else tf.cast(features, "float32")

        self._run: Callable[[tf.Tensor], tf.Tensor] = run

    def description(self) -> dict[str, Any]:
        """All that the output depends on besides the images."""
        a = self.architecture
        return {
            "backbone": a.backbone,
            "weights": self._weights_digest,
            "image_size": a.image_size,
            "layer": self.layer,
            "pooling": self.pooling,
            "precision": a.precision,
        }

    @functools.cached_property
    def _weights_digest(self) -> str:
        """Of the values, not of a file's name: other weights under an old name must not find the old features."""
        digest = hashlib.sha256()
        for array in [] if self.is_identity else self._frozen.get_weights():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def __call__(self, images: np.ndarray | tf.Tensor) -> tf.Tensor:
        """uint8 (n, s, s, 3) -> what ``spec`` says; the images themselves where nothing is frozen."""
        return tf.convert_to_tensor(images) if self.is_identity else self._run(tf.convert_to_tensor(images))


class Network:
    """Everything above the prefix: the rest of the backbone, pooling, dropout, hidden layer, head.

    What varies between trials of one architecture is held in variables (dropout, scale, margin), so that one traced
    step serves them all. ``reset`` makes it as new for a seed.
    """

    def __init__(self, architecture: Architecture, prefix: Prefix) -> None:
        a = self.architecture = architecture
        self.row, self.top = backbone(a.backbone), head(a.head)
        model = prefix.model
        frozen = boundary_index(model, a.unfrozen_layers)
        self.input_spec = prefix.spec
        self.from_images = prefix.is_identity
        self.tail: keras.Model | None = None
        if prefix.length < len(model.layers):
            start = model.input if self.from_images else model.layers[prefix.length - 1].output
            # A copy, so that training one architecture never changes another's weights.
            shared = keras.Model(start, model.output)
            self.tail = keras.models.clone_model(shared)
            self.tail.set_weights(shared.get_weights())
            frozen_names = {layer.name for layer in model.layers[:frozen]}
            for layer in self.tail.layers:
                layer.trainable = layer.name not in frozen_names
            self._start = self.tail.get_weights()
            self._position = {layer.name: i for i, layer in enumerate(model.layers)}
        width = int(model.output.shape[-1])
        if a.hidden:
            self.hidden = keras.layers.Dense(a.hidden, activation="relu", dtype="float32", name="hidden")
            self.hidden.build((None, width))
            width = a.hidden
        self.kernel = keras.Variable(np.zeros((width, a.classes), np.float32), name="head_kernel")
        self.bias = None if self.top.normalised else keras.Variable(np.zeros(a.classes, np.float32), name="head_bias")
        self.dropout = tf.Variable(0.0, trainable=False, name="dropout")
        self.scale = tf.Variable(1.0, trainable=False, name="scale")
        self.margin = tf.Variable(0.0, trainable=False, name="margin")
        self._predict = tf.function(self.probabilities, input_signature=[self.input_spec])

    def reset(self, config: TrialConfig, seed: int) -> None:
        """Starting weights again; what is random comes from ``seed``; the configuration's numbers are set."""
        a = self.architecture
        if self.tail is not None:
            self.tail.set_weights(self._start)
            if is_random(a.backbone, a.weights):
                fresh = _random_weights(a.backbone, a.image_size, seed)
                for layer in self.tail.layers:
                    if layer.trainable and layer.weights:  # by place: a builder may leave names to Keras, which counts
                        layer.set_weights(fresh[self._position[layer.name]])
        draw = np.random.default_rng((seed, 1))
        if a.hidden:
            self.hidden.set_weights([_glorot(draw, self.hidden.kernel.shape), np.zeros(a.hidden, np.float32)])
        self.kernel.assign(_glorot(draw, self.kernel.shape))
        if self.bias is not None:
            self.bias.assign(np.zeros(a.classes, np.float32))
        self.set_numbers(config)

    def set_numbers(self, config: TrialConfig) -> None:
        """The configuration's dropout, scale and margin."""
        self.dropout.assign(config.dropout)
        self.scale.assign(config.scale if config.scale is not None else default_scale(self.architecture.classes))
        default = self.top.default_margin or 0.0
        self.margin.assign(config.margin if config.margin is not None else default)

    def features(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        """The prefix's output -> pooled features, float32 (n, channels)."""
        if self.tail is not None:
            x = self.tail(preprocess(self.row, x) if self.from_images else x, training=training)
        return pool(x, self.architecture.pooling) if len(x.shape) == 4 else tf.cast(x, "float32")

    def plain_logits(self, features: tf.Tensor) -> tf.Tensor:
        """Logits as at inference, without margin: x W + b, or the cosines where the head is normalised."""
        if not self.top.normalised:
            return keras.ops.matmul(features, self.kernel) + self.bias
        return tf.matmul(tf.math.l2_normalize(features, 1), tf.math.l2_normalize(tf.convert_to_tensor(self.kernel), 0))

    def training_logits(self, x: tf.Tensor, one_hot: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(logits to be trained, logits as at inference). ``seed``: int64 (2,), for dropout alone."""
        features = self._drop(self.features(x, training=True), seed)
        if self.architecture.hidden:
            features = self._drop(self.hidden(features), seed + 1)
        plain = self.plain_logits(features)
        if not self.top.normalised:
            return plain, plain
        turned = self.top.apply_margin(plain, one_hot, self.margin) if self.top.has_margin else plain
        return self.scale * turned, self.scale * plain

    def probabilities(self, x: tf.Tensor) -> tf.Tensor:
        """The prefix's output -> softmax probabilities, float32 (n, classes), in inference mode."""
        features = self.features(x, training=False)
        if self.architecture.hidden:
            features = self.hidden(features)
        logits = self.plain_logits(features)
        return tf.nn.softmax(self.scale * logits if self.top.normalised else logits)

    def predict(self, x: Any) -> np.ndarray:
        """``probabilities`` traced once; the prefix's output (n, ...) -> float32 (n, classes)."""
        return self._predict(tf.convert_to_tensor(x)).numpy()

    def _drop(self, features: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        keep = 1.0 - self.dropout
        mask = tf.cast(tf.random.stateless_uniform(tf.shape(features), seed) < keep, features.dtype)
        return features * mask / keep

    def state(self) -> list[np.ndarray]:
        """All weights, in an order that depends on the architecture alone."""
        return [np.asarray(v) for v in self._all_weights()]

    def load_state(self, arrays: list[np.ndarray]) -> None:
        """Raises TrainerError where ``arrays`` are not an architecture's like this one."""
        variables = self._all_weights()
        if [tuple(v.shape) for v in variables] != [a.shape for a in arrays]:
            raise TrainerError("the stored weights do not fit the configuration that they are said to be of.")
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def _all_weights(self) -> list[Any]:
        parts = [*(self.tail.weights if self.tail is not None else [])]
        if self.architecture.hidden:
            parts += self.hidden.weights
        return parts + [self.kernel] + ([self.bias] if self.bias is not None else [])

    def trainable_parts(self) -> list[Any]:
        """The variables that training changes."""
        parts = [*(self.tail.trainable_variables if self.tail is not None else [])]
        if self.architecture.hidden:
            parts += self.hidden.trainable_variables
        return parts + [self.kernel] + ([self.bias] if self.bias is not None else [])


def _glorot(draw: np.random.Generator, shape: Any) -> np.ndarray:
    limit = np.sqrt(6.0 / (shape[0] + shape[1]))
    return draw.uniform(-limit, limit, tuple(shape)).astype(np.float32)
