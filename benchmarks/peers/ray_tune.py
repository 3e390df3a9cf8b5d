"""Plain Ray Tune and Keras: a list of configurations, each trained by ``model.fit``.

What makes it fast, as Ray's and Keras' documents advise:

- ``reuse_actors``: a worker imports TensorFlow once and trains one trial after the other. With a function trainable,
  one ``fit`` serves all epochs of a trial; a class trainable calls ``fit`` for each.
- Photos are decoded once, before the first trial; workers map the file, keep one tf.data set each, and prefetch.
- uint8 goes in and is scaled in the model. The frozen base runs with ``training=False`` and is built once a worker.
- Tune's loggers and its checkpoint of the experiment off. ``steps_per_execution`` and ``jit_compile`` as a probe in the
  same run found better, for KerasTuner too, whose models are the same.
- Tried, MobileNet 0.5 at 160 px, 512 photos, head alone, seconds an epoch, the variants taking turns in one process on
  busy cores: ``steps_per_execution`` 1: 1.06, 8: 1.00, 16: 1.00; photos gathered by index from one tensor
  instead of tf.data's slices: 1.30 (slices are used). That is the 2.0 ms a photo of the bare network: nothing is left
  around it.
- Trials at once and threads a trial are those that a probe found better (see the row of the result).
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1000000")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import ray
from ray import tune

from benchmarks.peers.photos import datasets, decode_once, read_task
from benchmarks.peers.timing import write_report


def train(config: dict[str, Any]) -> None:
    """One trial, in a worker."""
    from benchmarks.peers.network import build_model, use_threads
    from benchmarks.peers.timing import Stopwatch

    task, trial = config["task"], config["trial"]
    if not datasets.cache_info().currsize:  # this worker's first trial
        use_threads(task["threads"])
    training, validation, classes = datasets(task["cache"], task["batch_size"])
    began = time.time()  # importing TensorFlow and opening the photos is the worker's start, which counts once
    model = build_model(trial["config"], task, classes)
    watch = Stopwatch(trial["name"], began, lambda found: tune.report(dict(found)))
    model.fit(training, validation_data=validation, epochs=trial["epochs"], callbacks=[watch], verbose=0)


def main(task_path: str, report_path: str) -> None:
    """Train every trial of the task."""
    task = read_task(task_path)
    decode_once(task)
    ray.init(num_cpus=task["cores"], include_dashboard=False, log_to_driver=False)
    shared = {key: value for key, value in task.items() if key != "trials"}
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": task["threads"]}),
        param_space={"task": shared, "trial": tune.grid_search(task["trials"])},
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=task["concurrent"]),
        run_config=tune.RunConfig(storage_path=task["scratch"], name="ray_tune", verbose=0),
    )
    results = tuner.fit()
    failed = [str(result.error) for result in results if result.error]
    if failed:
        raise SystemExit(f"{len(failed)} trials failed: {failed[0]}")
    write_report(report_path, [result.metrics for result in results])
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
