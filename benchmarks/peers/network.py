"""The Keras model that every peer trains: a MobileNet, its last layers trainable, one layer on top."""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("peers")
class CosineDense(keras.layers.Layer):
    """NormFace: scale times the cosine between the features and each class's weights."""

    def __init__(self, units: int, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.scale = units, scale

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), initializer="glorot_uniform", name="kernel")

    def call(self, inputs: Any) -> Any:
        cosines = keras.ops.matmul(keras.ops.normalize(inputs, axis=1), keras.ops.normalize(self.kernel, axis=0))
        return self.scale * cosines

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "scale": self.scale}


def use_threads(threads: int) -> None:
    """Hold TensorFlow to ``threads`` cores. Only before its first operation."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _mobilenet(name: str, image_size: int, weights: str) -> keras.Model:
    return keras.applications.MobileNet(
        input_shape=(image_size, image_size, 3),
        alpha=float(name.removeprefix("mobilenet_")),
        include_top=False,
        weights=weights,
    )


@functools.lru_cache(maxsize=2)
def frozen_mobilenet(name: str, image_size: int, weights: str) -> keras.Model:
    """Nothing of it changes, so the trials of one process share it and read its weights once."""
    base = _mobilenet(name, image_size, weights)
    base.trainable = False
    return base


def partly_frozen_mobilenet(name: str, image_size: int, weights: str, unfrozen: int | str) -> keras.Model:
    """All but the last ``unfrozen`` layers frozen; Keras then runs their batch norms in inference mode."""
    base = _mobilenet(name, image_size, weights)
    if unfrozen != "all":
        for layer in base.layers[: len(base.layers) - int(unfrozen)]:
            layer.trainable = False
    return base


def build_model(config: dict[str, Any], task: dict[str, Any], classes: int) -> keras.Model:
    """A compiled model: uint8 images -> logits."""
    name, size, unfrozen = config["backbone"], task["image_size"], config["unfrozen_layers"]
    weights = task["weights"][name]
    images = keras.Input((size, size, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    if unfrozen == 0:
        x = frozen_mobilenet(name, size, weights)(x, training=False)
    else:
        x = partly_frozen_mobilenet(name, size, weights, unfrozen)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(config["dropout"])(x)
    if config["head"] == "normface":
        logits = CosineDense(classes, config["scale"])(x)
    else:
        logits = keras.layers.Dense(classes)(x)
    model = keras.Model(images, logits)
    model.compile(
        optimizer=keras.optimizers.Adam(config["learning_rate"]),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config["smoothing"]),
        metrics=["accuracy"],
        steps_per_execution=task["steps_per_execution"],
        jit_compile=task["jit_compile"],
    )
    return model
