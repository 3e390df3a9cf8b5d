"""How fast plain TensorFlow runs frozen parts: ``python -m benchmarks.peers.bare_parts FILE``, on each core at once.

Each part is Keras' own network up to the boundary in a bare ``tf.function``, on a batch that is in memory, with its
batch norms and with them folded, at several batch sizes; the quickest counts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers.network import use_threads
from trainers.config import TrialConfig
from trainers.networks.backbone import build_backbone, preprocess
from trainers.networks.batch_norm_folding import folded
from trainers.networks.network import Architecture
from trainers.networks.prefix import Prefix

BATCHES = (32, 64, 128)


def ways(prefix: Prefix) -> list[Callable[[tf.Tensor], tf.Tensor]]:
    """uint8 pixels -> what lies at the boundary, as Keras builds it and with its batch norms folded."""
    cut = keras.Model(prefix.model.input, prefix.model.get_layer(prefix.layer).output)
    models = [cut, folded(cut)]
    return [tf.function(lambda x, m=model: m(preprocess(prefix.row, x), training=False)) for model in models]


def seconds_an_image(prefix: Prefix, seconds: float) -> float:
    """The least of all ways and batches, each tried for its share of ``seconds``."""
    size, found = prefix.key.image_size, []
    share = seconds / (2 * len(BATCHES))
    for call in ways(prefix):
        for batch in BATCHES:
            pixels = tf.constant(np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8))
            call(pixels)
            until = time.perf_counter() + share
            while True:
                began = time.perf_counter()
                call(pixels)
                ended = time.perf_counter()
                found.append((ended - began) / batch)
                if ended > until:
                    break
    return min(found)


def main(file: str) -> None:
    """Do the task of ``file``: ``parts`` of ``config`` and ``weights``, ``seconds`` of each; write it to ``report``."""
    task: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    use_threads(1)
    found = []
    for part in task["parts"]:
        architecture = Architecture.of(TrialConfig(**part["config"]), part["weights"], task["classes"])
        key = architecture.prefix
        model = build_backbone(key.backbone, key.weights, key.image_size)
        prefix = Prefix(key, model)
        found.append(seconds_an_image(prefix, task["seconds"]))
    Path(task["report"]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
