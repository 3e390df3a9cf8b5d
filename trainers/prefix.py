"""Backbone and boundary: the frozen part, from images to what the rest is trained on.

``layers`` of the backbone are counted as Keras lists them. With n unfrozen layers the first L - n are frozen, and
a frozen BatchNorm runs in inference mode; so what lies below is a fixed function, the *prefix*. The prefix ends at
the deepest layer at or below the boundary through which all data passes (an arbitrary count can cut a residual
block); the few frozen layers between are run with the rest.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainers.backbones import BACKBONES, Backbone, backbone, load_builder, weight_file
from trainers.contract import TrainerError, TrialConfig
from trainers.fusion import Packing, stage_layers
from trainers.graph import carries_all, edges, lasting_name, refresh
from trainers.strides import is_refined, with_output_stride
from trainers.weightfiles import load_weights


@dataclass(frozen=True)
class Architecture:
    """What of a configuration decides the shape of the network, and nothing else. Hashable.

    ``mixes``: training mixes whole images (mixup, cutmix), so every image passes through the whole backbone.
    """

    backbone: str
    weights: str
    image_size: int
    unfrozen_layers: int | str
    pooling: str
    hidden: int
    head: str
    classes: int
    precision: str = "float32"
    output_stride: int = 32
    feature_fusion: str = "none"
    mixes: bool = False

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
            config.output_stride,
            config.feature_fusion,
            config.mixup > 0 or config.cutmix > 0,
        )


def build_backbone(
    name: str, weights: str, image_size: int, precision: str = "float32", seed: int = 0, output_stride: int = 32
) -> keras.Model:
    """The whole backbone without a top. Without weights (or where none exist) its values come from ``seed``.

    ``weights``: "imagenet" (Keras downloads them), "none", a folder, or a file. ``precision``: a Keras dtype policy.
    Raises TrainerError.
    """
    row = backbone(name)
    if image_size < row.smallest_size:
        raise TrainerError(f"{name} takes images of {row.smallest_size} px or more, not {image_size}.")
    if output_stride != 32 and output_stride not in row.output_strides:
        able = " or ".join(map(str, row.output_strides))
        raise TrainerError(f"{name} cannot have output stride {output_stride}; it takes {able}.")
    random = is_random(name, weights)
    if weights == "imagenet" and random and row.files:
        raise TrainerError(
            f"Keras has no weights of {name} to download; let weights name a file of them or a folder that holds "
            f"{' or '.join(row.files.split())}, or be none."
        )
    keras_weights = "imagenet" if weights == "imagenet" and not random else None
    keras.utils.set_random_seed(seed)
    with _dtype_policy(precision):
        shape = (image_size, image_size, 3)
        model = load_builder(row)(input_shape=shape, include_top=False, weights=keras_weights, **row.arguments)
    if not random and keras_weights is None:
        path = Path(weights)
        load_weights(model, path if path.is_file() else weight_file(row, path, image_size), name)
    return model if output_stride == 32 else with_output_stride(model, output_stride)


def is_random(name: str, weights: str) -> bool:
    """Whether the backbone starts from random values: none were asked for, or none exist.

    A folder is no reason to refuse a backbone that is always trained from scratch (one without ``files``); a file is
    meant for the backbone that names it.
    """
    row = backbone(name)
    if weights in ("none", "imagenet"):
        return weights == "none" or not row.imagenet
    return not row.files and not Path(weights).is_file()


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
def pretrained(name: str, weights: str, image_size: int, precision: str, output_stride: int = 32) -> keras.Model:
    """``build_backbone`` with seed 0, built once a process. Shared: nobody changes its weights."""
    return build_backbone(name, weights, image_size, precision, output_stride=output_stride)


@functools.lru_cache(maxsize=2)
def random_weights(name: str, image_size: int, seed: int) -> list[list[np.ndarray]]:
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
    model_edges = edges(model)
    return next((q for q in range(frozen, 0, -1) if carries_all(model_edges, q)), 0)


def preprocess(row: Backbone, images: tf.Tensor) -> tf.Tensor:
    """RGB 0..255 (n, s, s, 3), integers or mixtures of them as floats, to what the backbone was trained on.

    float32; the backbone's layers cast as they need.
    """
    x = tf.cast(images, "float32")
    if row.preprocessing == "tf":
        return x / 127.5 - 1.0
    if row.preprocessing == "caffe":
        return x[..., ::-1] - tf.constant([103.939, 116.779, 123.68])
    if row.preprocessing == "torch":
        return (x / 255.0 - tf.constant([0.485, 0.456, 0.406])) / tf.constant([0.229, 0.224, 0.225])
    if row.preprocessing == "none":
        return x
    raise TrainerError(
        f"{row.name} names the preprocessing {row.preprocessing!r}; known are tf, caffe, torch and none."
    )


def pool(features: tf.Tensor, pooling: str) -> tf.Tensor:
    """(n, h, w, c) to (n, c), in float32."""
    features = tf.cast(features, "float32")
    return tf.reduce_mean(features, (1, 2)) if pooling == "average" else tf.reduce_max(features, (1, 2))


class Prefix:
    """The frozen part of an architecture, from uint8 images to one tensor per image. A fixed function.

    ``spec`` is the shape (the first axis free) and dtype of what it gives: uint8 images where nothing is frozen or
    training mixes images, else float32. With feature fusion the stages that end below the boundary are pooled here;
    a row then holds them behind the map at the boundary, as ``packing`` says. ``stages``: the layers that are fused.
    """

    def __init__(self, architecture: Architecture, model: keras.Model | None = None) -> None:
        """``model``: the whole backbone with its starting weights; without it the one that ``architecture`` names."""
        a = self.architecture = architecture
        if model is None:
            model = pretrained(a.backbone, a.weights, a.image_size, a.precision, a.output_stride)
        elif a.output_stride != 32:
            model = with_output_stride(model, a.output_stride)
        refresh(model)
        self.row, self.model = backbone(a.backbone), model
        self.length = 0 if a.mixes else prefix_length(model, boundary_index(model, a.unfrozen_layers))
        self.is_identity = self.length <= 1
        self.layer = "" if self.is_identity else model.layers[self.length - 1].name
        self.stages = () if a.feature_fusion == "none" else stage_layers(model)
        self.packing: Packing | None = None
        pooled = self.length == len(model.layers)
        self.pooling = a.pooling if pooled else ""
        images = tf.TensorSpec((None, a.image_size, a.image_size, 3), tf.uint8)
        if self.is_identity:
            self.spec = images
            return
        self._open(pooled)
        self._run: tf.types.experimental.PolymorphicFunction = tf.function(self.trace, input_signature=[images])

    def _open(self, pooled: bool) -> None:
        """Make the frozen model and what says how its outputs become a row."""
        layers = self.model.layers[: self.length]
        output = layers[-1].output
        below = [layer.output for layer in layers[:-1] if layer.name in self.stages]
        self._frozen = keras.Model(self.model.input, [output, *below] if below else output)
        self.spec = tf.TensorSpec((None, output.shape[-1]) if pooled else output.shape, tf.float32)
        if below:
            # The last stage's end is the last layer: where everything is frozen, rows hold pooled features alone.
            ends = [*below, output] if pooled else below
            shape = None if pooled else tuple(output.shape[1:])
            self.packing = Packing(shape, tuple(int(end.shape[-1]) for end in ends))
            self.pooling = self.architecture.pooling
            self.spec = tf.TensorSpec((None, self.packing.width), tf.float32)

    def trace(self, pixels: tf.Tensor) -> tf.Tensor:
        """uint8 (n, s, s, 3) -> what ``spec`` says, as operations of whoever traces it: not where nothing is frozen."""
        outputs = self._frozen(preprocess(self.row, pixels), training=False)
        if self.packing is None:
            return pool(outputs, self.pooling) if self.pooling else tf.cast(outputs, "float32")
        image_map, *below = outputs
        ends = [*below, image_map] if self.packing.shape is None else below
        return self.packing.pack(image_map, [pool(end, self.pooling) for end in ends])

    def description(self) -> dict[str, Any]:
        """All that the output depends on besides the images. What is at its default adds no key, so that features
        stored before there was a choice are still found. A backbone of the user's own may change under its name."""
        a = self.architecture
        described = {
            "backbone": a.backbone,
            "weights": self._weights_digest,
            "image_size": a.image_size,
            "layer": lasting_name(self.model, self.layer) if self.layer else "",
            "pooling": self.pooling,
            "precision": a.precision,
        }
        if is_refined(self.model.layers[: self.length]):
            described["output_stride"] = a.output_stride
        if a.backbone not in BACKBONES:
            described["preprocessing"] = self.row.preprocessing
            described["layers"] = self._layers_digest
        if self.packing is not None:
            held = {layer.name for layer in self.model.layers[: self.length]}
            described["stages"] = [lasting_name(self.model, name) for name in self.stages if name in held]
        return described

    @functools.cached_property
    def _weights_digest(self) -> str:
        """Of the values, not of a file's name: other weights under an old name must not find the old features."""
        digest = hashlib.sha256()
        for array in [] if self.is_identity else self._frozen.get_weights():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    @functools.cached_property
    def _layers_digest(self) -> str:
        """Of what the frozen layers are set to, which no weight says: strides, activations, epsilons."""
        layers = [] if self.is_identity else self.model.layers[: self.length]
        return hashlib.sha256(json.dumps([_settings(layer) for layer in layers]).encode()).hexdigest()[:16]

    def __call__(self, images: np.ndarray | tf.Tensor) -> tf.Tensor:
        """uint8 (n, s, s, 3) -> what ``spec`` says; the images themselves where nothing is frozen."""
        return tf.convert_to_tensor(images) if self.is_identity else self._run(tf.convert_to_tensor(images))


def _settings(layer: Any) -> list[Any]:
    """A layer's class and ``get_config``, of a model inside those of its layers; the same in every process.

    Names end in a number that Keras counts up from model to model, which is left out.
    """
    kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
    if isinstance(layer, keras.Model):
        return [kind, [_settings(inner) for inner in layer.layers]]
    try:
        return [kind, _lasting(layer.get_config())]
    except NotImplementedError:  # a layer of the user's own that does not say
        return [kind, None]


def _lasting(value: Any) -> Any:
    """``value`` as JSON takes it, without counted names and without what differs from process to process."""
    if isinstance(value, dict):
        named = value.get("name")
        lasting = {"name": re.sub(r"_\d+$", "", named)} if isinstance(named, str) else {}
        return {str(key): _lasting(value[key]) for key in sorted(value, key=str)} | lasting
    if isinstance(value, list | tuple):
        return [_lasting(entry) for entry in value]
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return type(value).__qualname__
