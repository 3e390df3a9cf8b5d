"""The frozen part of a network, the *prefix*: from images to the rows that the rest is trained on.

``layers`` of the backbone are counted as Keras lists them. With n unfrozen layers of L, the first L - n are frozen, and
a frozen BatchNorm runs in inference mode, so they are a fixed function. The prefix ends at the *boundary*: the deepest
frozen layer through which all data passes (an arbitrary count can cut a residual block). The few frozen layers above
the boundary run with the rest.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainers.backbones import BACKBONES, backbone, fusion_refusal, pooling_refusal
from trainers.config import PrefixKey
from trainers.errors import TrainerError
from trainers.networks.backbone import cached_backbone, cached_identity, preprocess
from trainers.networks.batch_norm_folding import foldable, folded
from trainers.networks.fusion import Packing, stage_layers
from trainers.networks.graph import carries_all, edges, lasting_name, output_of, refresh, settings
from trainers.networks.prefix_index import PrefixRecord, remember
from trainers.networks.strides import is_refined, with_output_stride
from trainers.networks.tracing import traced


def boundary_index(model: keras.Model, unfrozen_layers: int | str) -> int:
    """Number of frozen layers, counted from the first of ``model.layers``."""
    if unfrozen_layers == "all":
        return 0
    return max(len(model.layers) - int(unfrozen_layers), 0)


def prefix_length(model: keras.Model, frozen: int) -> int:
    """Find the largest q <= ``frozen`` such that one tensor carries all that ``layers[q:]`` needs of ``layers[:q]``.

    0 or 1 (the input alone) mean that this tensor is the images. Raises TrainerError for a model that computes
    something outside its layers.
    """
    model_edges = edges(model)
    return next((q for q in range(frozen, 0, -1) if carries_all(model_edges, q)), 0)


def pool(features: tf.Tensor, pooling: str, tokens: int = 0) -> tf.Tensor:
    """(n, h, w, c), or the tokens (n, t, c) of a transformer, to float32 (n, c).

    ``tokens``: number of tokens before those of the patches. "token" takes the first of all, the others pool patches.
    """
    if pooling == "token":
        return tf.cast(features[:, 0], "float32")
    features = tf.cast(features[:, tokens:] if tokens else features, "float32")
    axes = tuple(range(1, len(features.shape) - 1))
    return tf.reduce_mean(features, axes) if pooling == "average" else tf.reduce_max(features, axes)


class Prefix:
    """The frozen part that ``key`` names, from uint8 images to one tensor per image. A fixed function.

    ``spec``: shape (first axis free) and dtype of its output: uint8 images if nothing is frozen or training mixes
    images, else float32. With feature fusion the stages that end below the boundary are pooled here; a row then holds
    the map at the boundary followed by them, as ``packing`` describes. ``stages``: the layers that are fused.
    ``layer``: the last frozen one, "" for none. ``pooling``: how its output is pooled here, "" for not at all.
    """

    def __init__(self, key: PrefixKey, model: keras.Model | None = None, known: PrefixRecord | None = None) -> None:
        """``model``: the whole backbone with its starting weights; None for the cached one that ``key`` names.

        ``known``: the record of ``prefix_index`` for ``key``, if the whole backbone is frozen and nothing is fused;
        the backbone is then built only when the first image runs through it.
        """
        self.key, self.row = key, backbone(key.backbone)
        if why := pooling_refusal(self.row, key.pooling) or fusion_refusal(self.row, key.feature_fusion):
            raise TrainerError(why)
        self._given, self._known = model, known
        if known is None:
            self._measure()
            return
        if not known.whole or key.feature_fusion != "none":
            raise AssertionError("only a backbone that is frozen as a whole can stay unbuilt")
        self.is_whole, self.is_identity, self.layer, self.pooling = True, False, known.layer, key.pooling
        self.stages: tuple[str, ...] = ()
        self.packing: Packing | None = None
        self.row_dtype, self.channels = known.dtype, known.row_shape[-1]
        self.spec = tf.TensorSpec((None, *known.row_shape), tf.float32)

    @functools.cached_property
    def model(self) -> keras.Model:
        """The whole backbone. Shared: do not change its weights."""
        key, model = self.key, self._given
        if model is None:
            model = cached_backbone(key.backbone, key.weights, key.image_size, key.precision, key.output_stride)
        elif key.output_stride != 32:
            model = with_output_stride(model, key.output_stride)
        refresh(model)
        return model

    @functools.cached_property
    def length(self) -> int:
        """Number of layers in the frozen part."""
        key = self.key
        return 0 if key.mixes else prefix_length(self.model, boundary_index(self.model, key.unfrozen_layers))

    def _measure(self) -> None:
        """Derive from the graph what a row is and how the frozen model's outputs become one."""
        key, model = self.key, self.model
        self.is_whole = self.length == len(model.layers)
        self.is_identity = self.length <= 1
        self.layer = "" if self.is_identity else model.layers[self.length - 1].name
        self.stages = () if key.feature_fusion == "none" else stage_layers(model)
        self.packing = None
        self.pooling = key.pooling if self.is_whole else ""
        self.row_dtype, self.channels = "float32", int(model.output.shape[-1])
        if self.is_identity:
            self.spec, self.row_dtype = self._images, "uint8"
            return
        output, *below = self._outputs()
        self.spec = tf.TensorSpec((None, output.shape[-1]) if self.is_whole else output.shape, tf.float32)
        if below:
            # The last stage ends at the last layer: if everything is frozen, rows hold pooled features alone.
            ends = [*below, output] if self.is_whole else below
            shape = None if self.is_whole else tuple(output.shape[1:])
            self.packing = Packing(shape, tuple(int(end.shape[-1]) for end in ends))
            self.pooling = key.pooling
            self.spec = tf.TensorSpec((None, self.packing.width), tf.float32)
        elif not self.is_whole and output.dtype == "float16":
            self.row_dtype = "float16"

    def note(self, cache: Path) -> None:
        """Write the record of this prefix into the index in ``cache``, so that others need not build it to know."""
        if self._given is not None or self._known is not None:
            return
        key = self.key
        identity = cached_identity(key.backbone, key.weights, key.image_size, key.precision, key.output_stride)
        shape = tuple(int(side) for side in self.spec.shape[1:])
        described = {} if self.is_identity else self.description()
        remember(cache, key, PrefixRecord(described, shape, self.layer, self.is_whole, self.row_dtype), identity)

    @property
    def _images(self) -> tf.TensorSpec:
        size = self.key.image_size
        return tf.TensorSpec((None, size, size, 3), tf.uint8)

    def _outputs(self) -> list[Any]:
        """The output at the boundary, then those of the stages that end below it."""
        layers = self.model.layers[: self.length]
        ends = [layers[-1], *(layer for layer in layers[:-1] if layer.name in self.stages)]
        return [output_of(self.model, layer) for layer in ends]

    @functools.cached_property
    def _cut(self) -> keras.Model:
        outputs = self._outputs()
        return keras.Model(self.model.input, outputs if len(outputs) > 1 else outputs[0])

    @functools.cached_property
    def _foldable(self) -> dict[str, str]:
        with tf.init_scope():  # it copies layers to test them; that must not become part of a graph being traced
            return {} if self.is_identity else foldable(self._cut)

    @functools.cached_property
    def _frozen(self) -> keras.Model:
        with tf.init_scope():  # it reads weights, which must not become part of a graph being traced
            return folded(self._cut, self._foldable)

    @property
    def copied_bytes(self) -> int:
        """Bytes of the weights that the folded copy duplicates; 0 before the first image and if nothing folds."""
        copy = vars(self).get("_frozen")
        return sum(int(np.prod(w.shape)) * 4 for w in copy.weights) if copy is not None and self._foldable else 0

    @functools.cached_property
    def _run(self) -> Any:
        """``trace``, traced. Raises TrainerError if the index described other features than these."""
        if self._known is not None and self._description() != self._known.description:
            raise TrainerError(
                f"the weights of {self.key.backbone} changed while their features were in use; run again."
            )
        _ = self._frozen  # create its variables first: tf.function traces twice if the first trace creates any
        return traced(self.trace, [self._images])

    def trace(self, pixels: tf.Tensor) -> tf.Tensor:
        """uint8 (n, s, s, 3) -> ``spec``, as operations of the graph being traced. Not for an identity."""
        outputs = self._frozen(preprocess(self.row, pixels), training=False)
        if self.packing is None:
            return self._pooled(outputs) if self.pooling else tf.cast(outputs, "float32")
        image_map, *below = outputs
        ends = [*below, image_map] if self.packing.shape is None else below
        return self.packing.pack(image_map, [self._pooled(end) for end in ends])

    def _pooled(self, features: tf.Tensor) -> tf.Tensor:
        return pool(features, self.pooling, self.row.tokens)

    def description(self) -> dict[str, Any]:
        """Everything that the output depends on except the images, as JSON takes it: the key of the stored features.

        A setting at its default adds no entry, so that features stored before the setting existed are still found. A
        user's own backbone adds digests of its layers, since it may change under the same name.
        """
        return dict(self._known.description) if self._known is not None else self._description()

    def _description(self) -> dict[str, Any]:
        key = self.key
        described = {
            "backbone": key.backbone,
            "weights": self._weights_digest,
            "image_size": key.image_size,
            "layer": lasting_name(self.model, self.layer) if self.layer else "",
            "pooling": self.pooling,
            "precision": key.precision,
        }
        if self._foldable:
            described["batch_norms"] = "folded"
        if is_refined(self.model.layers[: self.length]):
            described["output_stride"] = key.output_stride
        if key.backbone not in BACKBONES:
            described["preprocessing"] = self.row.preprocessing
            described["layers"] = self._layers_digest
        if self.packing is not None:
            held = {layer.name for layer in self.model.layers[: self.length]}
            described["stages"] = [lasting_name(self.model, name) for name in self.stages if name in held]
        return described

    @functools.cached_property
    def _weights_digest(self) -> str:
        """Digest of the values, not of a file's name: other weights under an old name must not find old features."""
        digest = hashlib.sha256()
        for array in [] if self.is_identity else self._cut.get_weights():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    @functools.cached_property
    def _layers_digest(self) -> str:
        """Digest of the frozen layers apart from their weights: settings, wiring and the user's own code."""
        described = [] if self.is_identity else settings(self._cut)
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]

    def __call__(self, images: np.ndarray | tf.Tensor) -> tf.Tensor:
        """uint8 (n, s, s, 3) -> ``spec``; the images themselves if nothing is frozen."""
        return tf.convert_to_tensor(images) if self.is_identity else self._run(tf.convert_to_tensor(images))
