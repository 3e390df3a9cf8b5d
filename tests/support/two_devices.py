"""Train on one and on two of this process's logical CPU devices: ``python -m tests.support.two_devices FOLDER``.

A process of its own, since devices are divided before TensorFlow initialises them. ``compare`` runs it.
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

EPOCHS = 4
CASES: dict[str, dict[str, Any]] = {
    "frozen head": {"unfrozen_layers": 0, "dropout": 0.4, "hidden": 8, "clip_norm": 0.05},
    "frozen batch norms": {"batch_norm": "frozen", "clip_norm": 0.05, "bottom_rate": 0.5},
    "average of weights": {"batch_norm": "frozen", "ema": 0.9, "optimizer": "sgd", "weight_decay": 0.01},
    "mixed images": {"batch_norm": "frozen", "mixup": 0.4, "cutmix": 0.5},
    "class weights and a margin": {"batch_norm": "frozen", "balance": "class_weights", "head": "cosface"},
    "trained batch norms": {"batch_norm": "inherited"},
    "measured batch norms": {"batch_norm": "measured"},
}
"""Name -> values of the configuration. Batches are of 9, 9 and 8 examples or the like, so that parts are uneven."""


def compare(folder: Path) -> dict[str, Any]:
    """Run this module and return what it printed: case -> number of devices -> figures of each epoch, and "places"."""
    command = [sys.executable, "-m", "tests.support.two_devices", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(folder: Path) -> None:
    """Train every case on one and on two devices, and print the epochs as one line of JSON."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from tests.support import tiny_fits
    from trainers.training.loop import open_fit

    manifest = tiny_fits.write_manifest(folder / "photos", {"train": 21, "validation": 9, "test": 3})
    found: dict[str, Any] = {}
    for name, values in CASES.items():
        found[name] = {}
        for count in (1, 2):
            job = tiny_fits.job(manifest, folder / "cache", batch_size=9, epochs=EPOCHS, **values)
            fit = open_fit(replace(job, devices=count))
            found[name][count] = [tiny_fits.figures(fit.run_epoch()) for _ in range(EPOCHS)]
            if name == "frozen batch norms":
                found.setdefault("places", {})[count] = _places(next(iter(fit.compiled._traced.values())))
            if name == "trained batch norms":
                moving = [v.numpy().tolist() for v in fit.compiled.network.norms.moving]
                found.setdefault("moving", {})[count] = moving
    print(json.dumps(found))


def _places(function: Any) -> dict[str, int]:
    """Count the convolutions of a traced step and their gradients by device: "CPU:0 Conv2D" -> number."""
    import tensorflow as tf

    counts: collections.Counter[str] = collections.Counter()
    graphs = [function.get_concrete_function().graph.as_graph_def()]
    for node in [n for g in graphs for f in g.library.function for n in f.node_def]:
        if node.op.startswith("Conv2D"):
            place = tf.DeviceSpec.from_string(node.device)
            counts[f"{place.device_type}:{place.device_index} {node.op}" if node.device else f"any {node.op}"] += 1
    return dict(counts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
