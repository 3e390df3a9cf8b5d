"""Train the seeds of ``benchmarks.inference`` and save each as a Keras model too: ``python -m ... FILE``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np

from benchmarks.peers.network import use_threads
from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.networks.backbone import build_backbone
from trainers.networks.network import Network
from trainers.training.loop import open_fit, open_network, read_weights


def as_keras(network: Network) -> keras.Model:
    """uint8 pixels -> probabilities as one graph, for a MobileNet with a softmax head on its pooled features."""
    a = network.architecture.prefix
    base = build_backbone(a.backbone, a.weights, a.image_size)
    if network.tail is not None:
        for layer in network.tail.layers:
            if layer.weights:
                base.get_layer(layer.name).set_weights(layer.get_weights())
    pixels = keras.Input((a.image_size, a.image_size, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    x = keras.layers.GlobalAveragePooling2D()(base(x, training=False))
    head = keras.layers.Dense(network.architecture.classes, activation="softmax")
    model = keras.Model(pixels, head(x))
    assert network.bias is not None, "a softmax head has a bias"
    head.set_weights([np.asarray(network.kernel), np.asarray(network.bias)])
    return model


def main(file: str) -> None:
    """Run the jobs of ``file``."""
    asked = json.loads(Path(file).read_text(encoding="utf-8"))
    jobs = [FitJob.from_dict(job) for job in asked["jobs"]]
    use_threads(jobs[0].threads)
    folder = Path(asked["models"])
    folder.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        fit = open_fit(job)
        for _ in range(job.config.epochs):
            fit.run_epoch()
        fit.finish()
        classes = len(Manifest.read(Path(job.manifest)).classes)
        as_keras(open_network(*read_weights(Path(job.output)), classes)).save(folder / f"{job.id}.keras")


if __name__ == "__main__":
    main(sys.argv[1])
