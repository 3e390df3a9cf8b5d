"""The network above the prefix: the rest of the backbone, pooling or fusion, dropout, hidden layer and head."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainers.backbones import backbone
from trainers.config import PrefixKey, TrialConfig
from trainers.errors import TrainerError
from trainers.heads import default_scale, head, log_prior
from trainers.networks.backbone import is_random, preprocess, random_weights
from trainers.networks.fusion import fuse, fused_width
from trainers.networks.graph import assign_weights, output_of, refresh
from trainers.networks.norms import BatchNorms, in_inference
from trainers.networks.prefix import Prefix, boundary_index, pool
from trainers.networks.tracing import traced


@dataclass(frozen=True)
class Architecture:
    """The part of a configuration that decides the shape of its network: the prefix and what is above it."""

    prefix: PrefixKey
    hidden: int
    head: str
    classes: int
    batch_norm: str = "inherited"

    @classmethod
    def of(cls, config: TrialConfig, weights: str, classes: int, precision: str = "float32") -> Architecture:
        return cls(config.prefix_key(weights, precision), config.hidden, config.head, classes, config.batch_norm)


@dataclass(frozen=True)
class BatchPart:
    """Examples ``start`` to ``stop`` of a batch of ``size``, int32 scalars: the part number ``number``, from 0."""

    number: int
    start: tf.Tensor
    stop: tf.Tensor
    size: tf.Tensor


class Network:
    """Everything above the prefix: the rest of the backbone, pooling, dropout, hidden layer, head.

    Variables hold what differs between trials of one architecture (dropout, scale, margin, prior), so that one traced
    step serves them all; ``reset`` sets the starting values for a seed. Frozen layers above the boundary run in
    inference mode, like the prefix.
    """

    def __init__(self, architecture: Architecture, prefix: Prefix) -> None:
        """``prefix``: the one that ``architecture.prefix`` names."""
        a = self.architecture = architecture
        self.row, self.top = backbone(a.prefix.backbone), head(a.head)
        self.input_spec = prefix.spec
        self.from_images = prefix.is_identity
        self.packing = prefix.packing
        # The map at the boundary may itself end a stage; then it is pooled here.
        self._takes_stage = prefix.layer in prefix.stages[:-1]
        self.tail: keras.Model | None = None
        self._generators: list[keras.random.SeedGenerator] = []
        self.norms = BatchNorms([], a.batch_norm)
        self._measure_many: dict[np.dtype, Any] = {}
        if not prefix.is_whole:
            self._open_tail(prefix)
        widths = [int(prefix.model.get_layer(name).output.shape[-1]) for name in prefix.stages]
        width = fused_width(a.prefix.feature_fusion, widths) if widths else prefix.channels
        self.neck = [
            keras.Variable(np.zeros((w, width), np.float32), name=f"neck_{i}_kernel")
            for i, w in enumerate(widths if a.prefix.feature_fusion == "sum" else [])
        ]
        if a.hidden:
            self.hidden = keras.layers.Dense(a.hidden, activation="relu", dtype="float32", name="hidden")
            self.hidden.build((None, width))
            width = a.hidden
        columns = a.classes * self.top.centres
        self.kernel = keras.Variable(np.zeros((width, columns), np.float32), name="head_kernel")
        self.bias = None if self.top.normalised else keras.Variable(np.zeros(a.classes, np.float32), name="head_bias")
        self.dropout = tf.Variable(0.0, trainable=False, name="dropout")
        self.scale = tf.Variable(1.0, trainable=False, name="scale")
        self.margin = tf.Variable(0.0, trainable=False, name="margin")
        self.log_prior = tf.Variable(np.zeros(a.classes, np.float32), trainable=False, name="log_prior")
        self._predict_many: dict[np.dtype, Any] = {}
        self._head_input: Any = None
        self._predict = traced(self.probabilities, [self.input_spec])

    def _open_tail(self, prefix: Prefix) -> None:
        """Copy the layers above the prefix, so that training one architecture never changes another's weights."""
        model = prefix.model
        start = model.input if self.from_images else output_of(model, model.layers[prefix.length - 1])
        above = [output_of(model, layer) for layer in model.layers[prefix.length : -1] if layer.name in prefix.stages]
        shared = keras.Model(start, [*above, model.output] if above else model.output)
        tail = self.tail = keras.models.clone_model(shared)
        assign_weights(tail, shared.get_weights())
        frozen = boundary_index(model, self.architecture.prefix.unfrozen_layers)
        frozen_names = {layer.name for layer in model.layers[:frozen]}
        trained: list[keras.layers.Layer] = []
        for layer in tail.layers:
            layer.trainable = layer.name not in frozen_names
            for inner in layer._flatten_layers():
                if layer.trainable:
                    trained.append(inner)
                    self._generators += inner._seed_generators
                elif inner._call_has_training_arg:
                    inner.call = functools.partial(in_inference, inner.call)
        self.norms = BatchNorms(trained, self.architecture.batch_norm)
        self._start = tail.get_weights()
        self._position = {layer.name: i for i, layer in enumerate(model.layers)}

    def reset(self, config: TrialConfig, seed: int) -> None:
        """Set the starting weights, random ones drawn from ``seed``, and the configuration's numbers."""
        a = self.architecture
        if self.tail is not None:
            assign_weights(self.tail, self._start)
            key = a.prefix
            if is_random(key.backbone, key.weights):
                fresh = random_weights(key.backbone, key.image_size, seed)
                for layer in self.tail.layers:
                    if layer.trainable and layer.weights:  # by position: names may end in a number that Keras counts up
                        layer.set_weights(fresh[self._position[layer.name]])
                refresh(self.tail)
        draw = np.random.default_rng((seed, 1))
        if a.hidden:
            self.hidden.set_weights([_glorot(draw, self.hidden.kernel.shape), np.zeros(a.hidden, np.float32)])
        self.kernel.assign(_glorot(draw, self.kernel.shape))
        if self.bias is not None:
            self.bias.assign(np.zeros(a.classes, np.float32))
        for kernel in self.neck:
            kernel.assign(_glorot(draw, kernel.shape))
        self.set_numbers(config)

    def set_numbers(self, config: TrialConfig, class_counts: np.ndarray | None = None) -> None:
        """Set the configuration's dropout, scale and margin, and the logarithm of each class's share.

        ``class_counts`` (classes,): training examples of each class as they are drawn, for logit adjustment; None for
        equally frequent classes.
        """
        classes = self.architecture.classes
        self.dropout.assign(config.dropout)
        self.scale.assign(config.scale if config.scale is not None else default_scale(classes))
        default = self.top.default_margin or 0.0
        self.margin.assign(config.margin if config.margin is not None else default)
        self.log_prior.assign(np.zeros(classes, np.float32) if class_counts is None else log_prior(class_counts))

    def features(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        """The prefix's output, or mixed images as floats -> pooled (or fused) features, float32 (n, channels)."""
        x, vectors = self.packing.unpack(x) if self.packing else (x, [])
        if self._takes_stage:
            vectors = [*vectors, self._pooled(x)]
        if self.tail is not None:
            x = self.tail(preprocess(self.row, x) if self.from_images else x, training=training)
        if self.architecture.prefix.feature_fusion == "none":
            return self._pooled(x)
        ends = [] if x is None else x if isinstance(x, list) else [x]
        return fuse([*vectors, *map(self._pooled, ends)], self.neck)

    def _pooled(self, x: tf.Tensor) -> tf.Tensor:
        is_pooled = len(x.shape) == 2
        return tf.cast(x, "float32") if is_pooled else pool(x, self.architecture.prefix.pooling, self.row.tokens)

    def plain_logits(self, features: tf.Tensor) -> tf.Tensor:
        """Logits as at inference, without margin: x W + b, or cosines if the head is normalised.

        If a class has several centres, the nearest counts (Deng et al. 2020, section 3.2).
        """
        if not self.top.normalised:
            return keras.ops.matmul(features, self.kernel) + self.bias
        kernel = tf.convert_to_tensor(self.kernel)
        cosines = tf.matmul(tf.math.l2_normalize(features, 1), tf.math.l2_normalize(kernel, 0))
        if self.top.centres == 1:
            return cosines
        return tf.reduce_max(tf.reshape(cosines, (-1, self.architecture.classes, self.top.centres)), 2)

    def _size(self, features: tf.Tensor) -> tf.Tensor:
        """Factor of a normalised head's cosines: the scale, or the features' length (n, 1)."""
        if self.top.normalise_features:
            return tf.convert_to_tensor(self.scale)
        return tf.sqrt(tf.maximum(tf.reduce_sum(tf.square(features), 1, keepdims=True), 1e-12))

    def training_logits(
        self,
        x: tf.Tensor,
        target: tf.Tensor,
        seed: tf.Tensor,
        margin_share: tf.Tensor | float = 1.0,
        part: BatchPart | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return (logits for the loss, logits as at inference).

        ``target``: float32 (n, classes), one-hot or mixed, before smoothing; margins act in proportion to it, and to
        ``margin_share``, from 0 to 1: f = (1 - share) cos + share turned, the blend of Liu et al. 2017, section 4.1,
        with share = 1 / (1 + lambda).
        ``seed``: int64 (2,); every random number, here and in the backbone's own layers, comes from it. ``part``: what
        ``x`` is of a batch, None for all of it. Dropout is then that of the whole batch; the backbone's own layers,
        which draw for the examples that they see, draw other numbers.
        """
        own = seed if part is None or part.number == 0 else tf.random.experimental.stateless_fold_in(seed, -part.number)
        for number, generator in enumerate(self._generators):
            generator.state.assign(tf.random.experimental.stateless_fold_in(own, number))
        features = self._drop(self.features(x, training=True), seed, part)
        if self.architecture.hidden:
            features = self._drop(self.hidden(features), seed + 1, part)
        plain = self.plain_logits(features)
        if not self.top.normalised:
            strength = self.top.prior_strength
            return (plain + strength * self.log_prior if strength else plain), plain
        turned = self.top.apply_margin(plain, margin_share * target, self.margin) if self.top.has_margin else plain
        size = self._size(features)
        return size * turned, size * plain

    def probabilities(self, x: tf.Tensor) -> tf.Tensor:
        """The prefix's output -> softmax probabilities, float32 (n, classes), in inference mode."""
        features = self._head_input_of(x)
        logits = self.plain_logits(features)
        return tf.nn.softmax(self._size(features) * logits if self.top.normalised else logits)

    def _head_input_of(self, x: tf.Tensor) -> tf.Tensor:
        features = self.features(x, training=False)
        return self.hidden(features) if self.architecture.hidden else features

    @property
    def head_width(self) -> int:
        """Number of features that the head takes."""
        return int(self.kernel.shape[0])

    def head_input(self, x: Any) -> np.ndarray:
        """The prefix's output (n, ...) -> the features that the head takes, float32 (n, ``head_width``)."""
        if self._head_input is None:
            self._head_input = traced(self._head_input_of, [self.input_spec])
        return self._head_input(tf.convert_to_tensor(x)).numpy()

    def predict(self, x: Any) -> np.ndarray:
        """``probabilities`` traced once; the prefix's output (n, ...) -> float32 (n, classes)."""
        return self._predict(tf.convert_to_tensor(x)).numpy()

    def predict_batches(self, rows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """``probabilities`` of batches in one traced call: ``rows[offsets[i]:offsets[i + 1]]`` is the i-th.

        ``rows`` (n, ...) as computed or as stored, ``offsets`` int32 (batches + 1,) from 0 to n. Returns float32
        (n, classes).
        """
        if rows.dtype not in self._predict_many:
            signature = [tf.TensorSpec(self.input_spec.shape, rows.dtype), tf.TensorSpec((None,), tf.int32)]
            self._predict_many[rows.dtype] = traced(self._probabilities_of, signature)
        return self._predict_many[rows.dtype](rows, offsets).numpy()

    def _probabilities_of(self, rows: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
        batches, shape = tf.shape(offsets)[0] - 1, (None, self.architecture.classes)

        def one(i: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            x = tf.cast(rows[offsets[i] : offsets[i + 1]], self.input_spec.dtype)
            return i + 1, found.write(i, self.probabilities(x))

        start = tf.constant(0), tf.TensorArray(tf.float32, batches, infer_shape=False, element_shape=shape)
        return tf.while_loop(lambda i, _: i < batches, one, start, parallel_iterations=1)[1].concat()

    def measure_norms(self, rows: np.ndarray, offsets: np.ndarray, first: int) -> None:
        """Set the batch norms' moving statistics to the mean of those of all batches so far, in one traced call.

        ``rows`` and ``offsets`` are as in ``predict_batches``; the first of these batches is number ``first``, and
        number 0 starts anew. Everything but the trained batch norms runs in inference mode.
        """
        if rows.dtype not in self._measure_many:
            numbers = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.int32)
            signature = [tf.TensorSpec(self.input_spec.shape, rows.dtype), *numbers]
            self._measure_many[rows.dtype] = traced(self._measure_norms, signature)
        self._measure_many[rows.dtype](rows, offsets, np.int32(first))

    def _measure_norms(self, rows: tf.Tensor, offsets: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        batches, before = tf.shape(offsets)[0] - 1, self.norms.momentum.read_value()

        def one(i: tf.Tensor) -> tf.Tensor:
            # With momentum n / (n + 1), the moving average after batch n is the mean of batches 0 to n.
            number = tf.cast(first + i, tf.float32)
            self.norms.momentum.assign(number / (number + 1.0))
            x = tf.cast(rows[offsets[i] : offsets[i + 1]], self.input_spec.dtype)
            with self.norms.batch_statistics():
                self.features(x, training=False)
            return i + 1

        done = tf.while_loop(lambda i: i < batches, one, [tf.constant(0)], parallel_iterations=1)
        self.norms.momentum.assign(before)
        return done

    def _drop(self, features: tf.Tensor, seed: tf.Tensor, part: BatchPart | None = None) -> tf.Tensor:
        """Dropout, scaled in training (Srivastava et al. 2014, section 10). At rate 0 no random number is drawn."""
        keep = 1.0 - self.dropout

        def dropped() -> tf.Tensor:
            shape = tf.shape(features) if part is None else tf.stack([part.size, tf.shape(features)[1]])
            drawn = tf.random.stateless_uniform(shape, seed)
            drawn = drawn if part is None else drawn[part.start : part.stop]
            return features * tf.cast(drawn < keep, features.dtype) / keep

        return tf.cond(self.dropout > 0, dropped, lambda: features)

    def state(self) -> list[np.ndarray]:
        """All weights, in an order that depends on the architecture alone."""
        return [np.asarray(v) for v in self.weights()]

    def head_state(self) -> list[np.ndarray]:
        """The weights above the backbone: hidden layer, head and neck."""
        return [np.asarray(v) for v in self._above()]

    def load_head(self, arrays: list[np.ndarray]) -> None:
        """Set what ``head_state`` returned, perhaps of a network that trains fewer layers of the same backbone."""
        for variable, array in zip(self._above(), arrays, strict=True):
            variable.assign(array)

    def load_state(self, arrays: list[np.ndarray]) -> None:
        """Set all weights. Raises TrainerError if ``arrays`` do not have this architecture's shapes."""
        variables = self.weights()
        if [tuple(v.shape) for v in variables] != [a.shape for a in arrays]:
            raise TrainerError("the stored weights do not fit the configuration stored with them.")
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        if self.tail is not None:
            refresh(self.tail)

    def weights(self) -> list[Any]:
        """The variables of all weights, in an order that depends on the architecture alone."""
        tail = self.tail.weights if self.tail is not None else []
        return [*tail, *self._above()]

    def _above(self) -> list[Any]:
        return [*(self.hidden.weights if self.architecture.hidden else []), *self._top_weights()]

    @property
    def nbytes(self) -> int:
        """Bytes of all weights, and of the starting ones if a tail keeps them."""
        copies = 1 if self.tail is None else 2
        return copies * sum(int(np.prod(v.shape)) * 4 for v in self.weights())

    def trainable_parts(self) -> list[Any]:
        """The variables that training changes."""
        tail = self.tail.trainable_variables if self.tail is not None else []
        return [*tail, *self._above()]

    def depths(self) -> list[float]:
        """For each of ``trainable_parts``, how deep its layer lies among the backbone's trained ones, from above 0 for
        the highest to 1 for the lowest; 0 for what is above the backbone."""
        layers = [layer for layer in self.tail.layers if layer.trainable_variables] if self.tail is not None else []
        found = [(len(layers) - i) / len(layers) for i, layer in enumerate(layers) for _ in layer.trainable_variables]
        return found + [0.0] * (len(self.trainable_parts()) - len(found))

    def _top_weights(self) -> list[Any]:
        return [self.kernel, *([self.bias] if self.bias is not None else []), *self.neck]


def _glorot(draw: np.random.Generator, shape: Any) -> np.ndarray:
    limit = np.sqrt(6.0 / (shape[0] + shape[1]))
    return draw.uniform(-limit, limit, tuple(shape)).astype(np.float32)
