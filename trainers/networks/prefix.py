"""Backbone and boundary: the frozen part, from images to what the rest is trained on.

``layers`` of the backbone are counted as Keras lists them. With n unfrozen layers the first L - n are frozen, and
a frozen BatchNorm runs in inference mode; so what lies below is a fixed function, the *prefix*. The prefix ends at
the deepest layer at or below the boundary through which all data passes (an arbitrary count can cut a residual
block); the few frozen layers between are run with the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainers.backbones import BACKBONES, Backbone, backbone, load_builder, weight_file
from trainers.config import TrialConfig
from trainers.errors import TrainerError
from trainers.networks.batch_norm_folding import foldable, folded
from trainers.networks.fusion import Packing, stage_layers
from trainers.networks.graph import carries_all, edges, lasting_name, output_of, refresh, settings
from trainers.networks.prefix_index import PrefixQuery, PrefixRecord, identify, remember
from trainers.networks.strides import is_refined, with_output_stride
from trainers.networks.weight_files import load_weights
from trainers.networks.weight_sources import downloading


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
    fetched = downloading(name, image_size) if keras_weights else contextlib.nullcontext()
    with _dtype_policy(precision), fetched:
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


def pretrained(name: str, weights: str, image_size: int, precision: str, output_stride: int = 32) -> keras.Model:
    """``build_backbone`` with seed 0, built once a process. Shared: nobody changes its weights."""
    return _pretrained(name, weights, image_size, precision, output_stride)[0]


@functools.lru_cache(maxsize=4)
def _pretrained(
    name: str, weights: str, image_size: int, precision: str, output_stride: int
) -> tuple[keras.Model, str | None]:
    """The backbone, and what ``shelfindex.identify`` said of its weights before they were read."""
    identity = identify(PrefixQuery(name, weights, image_size, 0, "average", precision, output_stride, "none", False))
    return build_backbone(name, weights, image_size, precision, output_stride=output_stride), identity


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


def prefix_query(architecture: Architecture) -> PrefixQuery:
    """What of ``architecture`` the store's index asks for."""
    return PrefixQuery(**{field.name: getattr(architecture, field.name) for field in dataclasses.fields(PrefixQuery)})


class Prefix:
    """The frozen part of an architecture, from uint8 images to one tensor per image. A fixed function.

    ``spec`` is the shape (the first axis free) and dtype of what it gives: uint8 images where nothing is frozen or
    training mixes images, else float32. With feature fusion the stages that end below the boundary are pooled here;
    a row then holds them behind the map at the boundary, as ``packing`` says. ``stages``: the layers that are fused.
    ``layer`` is the last frozen one, "" for none; ``pooling`` is how it is pooled here, "" for not at all.
    """

    def __init__(
        self, architecture: Architecture, model: keras.Model | None = None, known: PrefixRecord | None = None
    ) -> None:
        """``model``: the whole backbone with its starting weights; without it the one that ``architecture`` names.

        ``known``: what ``trainers.networks.prefix_index`` says of an architecture whose whole backbone is frozen and that fuses
        nothing; then the backbone is only built once an image is run through it.
        """
        self.architecture, self.row = architecture, backbone(architecture.backbone)
        self._given, self._known = model, known
        if known is not None and not (known.whole and architecture.feature_fusion == "none"):
            raise AssertionError("only a backbone that is frozen as a whole can stay unbuilt")
        if known is None:
            self._measure()
            return
        self.is_whole, self.is_identity, self.layer, self.pooling = True, False, known.layer, architecture.pooling
        self.stages: tuple[str, ...] = ()
        self.packing: Packing | None = None
        self.row_dtype, self.channels = known.dtype, known.row_shape[-1]
        self.spec = tf.TensorSpec((None, *known.row_shape), tf.float32)

    @functools.cached_property
    def model(self) -> keras.Model:
        """The whole backbone. Shared: nobody changes its weights."""
        a, model = self.architecture, self._given
        if model is None:
            model = pretrained(a.backbone, a.weights, a.image_size, a.precision, a.output_stride)
        elif a.output_stride != 32:
            model = with_output_stride(model, a.output_stride)
        refresh(model)
        return model

    @functools.cached_property
    def length(self) -> int:
        """How many layers are the frozen part."""
        a = self.architecture
        return 0 if a.mixes else prefix_length(self.model, boundary_index(self.model, a.unfrozen_layers))

    def _measure(self) -> None:
        """What the rows are and how the frozen model's outputs become one."""
        a, model = self.architecture, self.model
        self.is_whole = self.length == len(model.layers)
        self.is_identity = self.length <= 1
        self.layer = "" if self.is_identity else model.layers[self.length - 1].name
        self.stages = () if a.feature_fusion == "none" else stage_layers(model)
        self.packing = None
        self.pooling = a.pooling if self.is_whole else ""
        self.row_dtype, self.channels = "float32", int(model.output.shape[-1])
        if self.is_identity:
            self.spec, self.row_dtype = self._images, "uint8"
            return
        output, *below = self._outputs()
        self.spec = tf.TensorSpec((None, output.shape[-1]) if self.is_whole else output.shape, tf.float32)
        if below:
            # The last stage's end is the last layer: where everything is frozen, rows hold pooled features alone.
            ends = [*below, output] if self.is_whole else below
            shape = None if self.is_whole else tuple(output.shape[1:])
            self.packing = Packing(shape, tuple(int(end.shape[-1]) for end in ends))
            self.pooling = a.pooling
            self.spec = tf.TensorSpec((None, self.packing.width), tf.float32)
        elif not self.is_whole and output.dtype == "float16":
            self.row_dtype = "float16"

    def note(self, cache: Path) -> None:
        """Write into the store's index what this architecture came to, so that others need not build it to know."""
        if self._given is None and self._known is None:
            a = self.architecture
            identity = _pretrained(a.backbone, a.weights, a.image_size, a.precision, a.output_stride)[1]
            shape = tuple(int(side) for side in self.spec.shape[1:])
            described = {} if self.is_identity else self.description()
            answer = PrefixRecord(described, shape, self.layer, self.is_whole, self.row_dtype)
            remember(cache, prefix_query(a), answer, identity)

    @property
    def _images(self) -> tf.TensorSpec:
        size = self.architecture.image_size
        return tf.TensorSpec((None, size, size, 3), tf.uint8)

    def _outputs(self) -> list[Any]:
        """The output at the boundary, and those of the stages that end below it."""
        layers = self.model.layers[: self.length]
        ends = [layers[-1], *(layer for layer in layers[:-1] if layer.name in self.stages)]
        return [output_of(self.model, layer) for layer in ends]

    @functools.cached_property
    def _cut(self) -> keras.Model:
        outputs = self._outputs()
        return keras.Model(self.model.input, outputs if len(outputs) > 1 else outputs[0])

    @functools.cached_property
    def _foldable(self) -> dict[str, str]:
        with tf.init_scope():  # layers are made to see whether they can be, even while somebody traces
            return {} if self.is_identity else foldable(self._cut)

    @functools.cached_property
    def _frozen(self) -> keras.Model:
        with tf.init_scope():  # weights are read, even where this is first asked for while somebody traces
            return folded(self._cut, self._foldable)

    @property
    def copied_bytes(self) -> int:
        """Of the weights that the folded copy holds once more; 0 before an image was run, and where nothing folds."""
        copy = vars(self).get("_frozen")
        return sum(int(np.prod(w.shape)) * 4 for w in copy.weights) if copy is not None and self._foldable else 0

    @functools.cached_property
    def _run(self) -> Any:
        """``trace``, traced. Raises TrainerError where the store's index told of other features than these."""
        if self._known is not None and self._description() != self._known.description:
            raise TrainerError(
                f"the weights of {self.architecture.backbone} changed while their features were in use; run again."
            )
        _ = self._frozen  # made before: variables that appear while a function is traced let TensorFlow trace it twice
        return tf.function(self.trace, input_signature=[self._images], autograph=False)

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
        return dict(self._known.description) if self._known is not None else self._description()

    def _description(self) -> dict[str, Any]:
        a = self.architecture
        described = {
            "backbone": a.backbone,
            "weights": self._weights_digest,
            "image_size": a.image_size,
            "layer": lasting_name(self.model, self.layer) if self.layer else "",
            "pooling": self.pooling,
            "precision": a.precision,
        }
        if self._foldable:
            described["batch_norms"] = "folded"
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
        for array in [] if self.is_identity else self._cut.get_weights():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    @functools.cached_property
    def _layers_digest(self) -> str:
        """Of what no weight says of the frozen layers: strides, activations, epsilons, which feeds which, and the code
        of those that are the user's own."""
        said = [] if self.is_identity else settings(self._cut)
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def __call__(self, images: np.ndarray | tf.Tensor) -> tf.Tensor:
        """uint8 (n, s, s, 3) -> what ``spec`` says; the images themselves where nothing is frozen."""
        return tf.convert_to_tensor(images) if self.is_identity else self._run(tf.convert_to_tensor(images))
