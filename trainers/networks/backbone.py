"""Whole backbones as Keras models: built with their starting weights, cached, given preprocessed images."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainers.backbones import Backbone, backbone, load_builder, size_refusal, weight_file
from trainers.errors import TrainerError
from trainers.networks.prefix_index import identify
from trainers.networks.strides import with_output_stride
from trainers.networks.weight_files import load_weights
from trainers.networks.weight_sources import IMAGENET, NONE, downloading


def build_backbone(
    name: str, weights: str, image_size: int, precision: str = "float32", seed: int = 0, output_stride: int = 32
) -> keras.Model:
    """Build the whole backbone without a top. If it has no weights, ``seed`` draws its values.

    ``weights``: "imagenet" (Keras downloads them), "none", a folder, or a file. ``precision``: a Keras dtype policy.
    Raises TrainerError.
    """
    row = backbone(name)
    _check(row, weights, image_size, output_stride)
    random = is_random(name, weights)
    keras_weights = IMAGENET if weights == IMAGENET and not random else None
    keras.utils.set_random_seed(seed)
    fetched = downloading(name, image_size) if keras_weights else contextlib.nullcontext()
    with _dtype_policy(precision), fetched:
        shape = (image_size, image_size, 3)
        model = load_builder(row)(input_shape=shape, include_top=False, weights=keras_weights, **row.arguments)
    if not random and keras_weights is None:
        path = Path(weights)
        load_weights(model, path if path.is_file() else weight_file(row, path, image_size), name)
    return model if output_stride == 32 else with_output_stride(model, output_stride)


def _check(row: Backbone, weights: str, image_size: int, output_stride: int) -> None:
    """Raise TrainerError if the backbone cannot be built so."""
    if refusal := size_refusal(row, image_size):
        raise TrainerError(refusal)
    if output_stride != 32 and output_stride not in row.output_strides:
        able = " or ".join(map(str, row.output_strides))
        raise TrainerError(f"{row.name} cannot have output stride {output_stride}; it takes {able}.")
    if weights == IMAGENET and not row.imagenet and row.files:
        raise TrainerError(
            f"Keras has no weights of {row.name} to download; let weights name a file of them or a folder that holds "
            f"{' or '.join(row.files.split())}, or be none."
        )


def is_random(name: str, weights: str) -> bool:
    """Whether the backbone starts from random values, because ``weights`` is "none" or there are none for it.

    A backbone without ``files`` is always trained from scratch and accepts any weights folder; a file is always loaded.
    """
    row = backbone(name)
    if weights in (NONE, IMAGENET):
        return weights == NONE or not row.imagenet
    return not row.files and not Path(weights).is_file()


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Set Keras' default dtype policy inside and restore it afterwards."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def cached_backbone(name: str, weights: str, image_size: int, precision: str, output_stride: int = 32) -> keras.Model:
    """``build_backbone`` with seed 0, built once per process. Shared: do not change its weights."""
    return _cached(name, weights, image_size, precision, output_stride)[0]


def cached_identity(name: str, weights: str, image_size: int, precision: str, output_stride: int = 32) -> str | None:
    """``prefix_index.identify`` as it was before the weights of ``cached_backbone`` were read."""
    return _cached(name, weights, image_size, precision, output_stride)[1]


@functools.lru_cache(maxsize=4)
def _cached(
    name: str, weights: str, image_size: int, precision: str, output_stride: int
) -> tuple[keras.Model, str | None]:
    identity = identify(name, weights, image_size)
    return build_backbone(name, weights, image_size, precision, output_stride=output_stride), identity


@functools.lru_cache(maxsize=2)
def random_weights(name: str, image_size: int, seed: int) -> list[list[np.ndarray]]:
    """Draw the starting values of each layer of a backbone without weights, in the layers' order."""
    return [layer.get_weights() for layer in build_backbone(name, NONE, image_size, seed=seed).layers]


def preprocess(row: Backbone, images: tf.Tensor) -> tf.Tensor:
    """Scale RGB 0..255 (n, s, s, 3), integers or floats, to what the backbone was trained on: float32.

    The backbone's layers cast as they need. Raises TrainerError for an unknown ``row.preprocessing``.
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
