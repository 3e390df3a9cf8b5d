"""One side in a process of its own: ``python -m benchmarks.feed.side NAME THREADS``.

Reads a task, JSON, from each line of its input, and answers with the images that it delivered and the seconds.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

MODULES = {"orch": "ours", "tf.data": "tf_data", "Keras": "keras_folder", "numpy.take": "numpy_take"}


def main(name: str, threads: int) -> None:
    """Answer tasks until the input ends, on the first ``threads`` cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    side: Any = importlib.import_module(f"benchmarks.feed.{MODULES[name]}")
    for line in sys.stdin:
        images, seconds = side.deliver(json.loads(line), threads)
        print(json.dumps({"images": images, "seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
