"""The winner as one TensorFlow graph: one crop per row -> the ensemble's mean probabilities.

Crops are cut outside the graph, because cutting needs the decoded photo; ``serve_bytes`` of a SavedModel cuts only the
whole image.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from trainers.config import parts_of
from trainers.export.decoding import resized_square, rgb
from trainers.serving.model import ServedModel

SERVE_PIXELS = "serving_default"
"""Name of the signature from pixels, in a SavedModel and in a .tflite file."""
SERVE_BYTES = "serve_bytes"
"""Name of a SavedModel's signature from encoded photos."""


def probabilities_of(served: ServedModel, pixels: tf.Tensor) -> tf.Tensor:
    """Map uint8 or float32 pixels 0 to 255, (n, size, size, 3), to float32 (n, classes); traceable into a graph."""
    prefix = served.prefix
    # ``Prefix.__call__`` takes only uint8; int8 calibration needs floats, which ``trace`` accepts too.
    features = pixels if prefix.is_identity else prefix.trace(pixels)
    answers = [network.probabilities(features) for network in served.networks]
    # Pairwise sums instead of AddN, for which LiteRT has no integer kernel.
    return functools.reduce(lambda total, answer: total + answer, answers) * (1.0 / len(answers))


def crop_graph(served: ServedModel, dtype: tf.DType, batch: int | None) -> Any:
    """Return a ``tf.function`` from ``pixels`` to ``{"probabilities": ...}``. ``batch``: None for any size."""
    size = served.image_size

    @tf.function(input_signature=[tf.TensorSpec((batch, size, size, 3), dtype, name="pixels")], autograph=False)
    def run(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.identity(probabilities_of(served, pixels), name="probabilities")}

    return run


def bytes_policy(served: ServedModel) -> str:
    """Return the crop policy of ``bytes_graph``: ``flip`` if it is the model's, else ``whole``."""
    return served.policy if served.policy == "flip" else "whole"


def bytes_graph(served: ServedModel) -> Any:
    """Return a ``tf.function`` from encoded photos, string (n,), to ``{"probabilities": ...}``.

    Applies ``bytes_policy``. Decoding and resizing are those of ``trainers.export.decoding``.
    """
    size, view, flips = served.image_size, parts_of(served.view)[0], bytes_policy(served) == "flip"

    def square(photo: tf.Tensor) -> tf.Tensor:
        return resized_square(rgb(photo), size, squash=view == "squash")

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="photos")], autograph=False)
    def run(photos: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.map_fn(square, photos, fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8))
        answer = probabilities_of(served, pixels)
        if flips:
            answer = (answer + probabilities_of(served, pixels[:, :, ::-1])) / 2
        return {"probabilities": answer}

    return run
