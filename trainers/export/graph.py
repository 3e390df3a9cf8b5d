"""The winner as one TensorFlow graph: pixels of one crop a row -> the ensemble's mean probabilities.

What a crop policy cuts stays outside, since cutting needs the decoded photo; ``serve_bytes`` of a SavedModel holds the
plain cut alone.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from trainers.serving.model import ServedModel


def probabilities_of(served: ServedModel, pixels: tf.Tensor) -> tf.Tensor:
    """uint8 or float32 pixels 0 to 255, (n, size, size, 3) -> float32 (n, classes), to be traced into a graph."""
    prefix = served.prefix
    # The traced step takes uint8 alone; what it was traced from takes floats as well, which int8 calibration needs.
    features = pixels if prefix.is_identity else prefix.trace(pixels)
    answers = [network.probabilities(features) for network in served.networks]
    # One sum after the other, and no AddN: LiteRT has no integer form of that.
    return functools.reduce(lambda total, answer: total + answer, answers) * (1.0 / len(answers))


def crop_graph(served: ServedModel, dtype: tf.DType, batch: int | None) -> Any:
    """A ``tf.function`` of one argument ``pixels`` that answers ``{"probabilities": ...}``."""
    size = served.image_size

    @tf.function(input_signature=[tf.TensorSpec((batch, size, size, 3), dtype, name="pixels")], autograph=False)
    def run(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.identity(probabilities_of(served, pixels), name="probabilities")}

    return run


def bytes_graph(served: ServedModel) -> Any:
    """A ``tf.function`` of encoded photos (JPEG, PNG, GIF, BMP), string (n,), that answers ``{"probabilities": ...}``.

    Cuts as the policy ``whole`` does, or ``flip`` where that is the model's, whatever its policy. TensorFlow's decoder
    and resizing are not Pillow's, and EXIF orientation is not applied, so figures differ a little; the export measures
    by how much.
    """
    size, view, flips = served.image_size, served.view, served.policy == "flip"

    def square(photo: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(photo, channels=3, expand_animations=False)
        image.set_shape((None, None, 3))
        if view != "squash":
            height, width = tf.shape(image)[0], tf.shape(image)[1]
            side = tf.minimum(height, width)
            image = tf.image.crop_to_bounding_box(image, (height - side) // 2, (width - side) // 2, side, side)
        resized = tf.image.resize(image, (size, size), method="bilinear", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="photos")], autograph=False)
    def run(photos: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.map_fn(square, photos, fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8))
        answer = probabilities_of(served, pixels)
        if flips:
            answer = (answer + probabilities_of(served, pixels[:, :, ::-1])) / 2
        return {"probabilities": answer}

    return run
