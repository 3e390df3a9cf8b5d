"""Our side of ``benchmarks.inference`` as a process: ``python -m benchmarks.inference_stage FOLDER FIT...``.

The leaderboard's stage of the sweep in FOLDER: every policy for the named fits, and their ensembles.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.common.task import CORES
from benchmarks.inference import POLICIES, read, sweep_in
from orchestrator.cluster.ray_session import start_ray, stop_ray
from orchestrator.evaluation.leaderboard import ensemble
from orchestrator.sweep.probabilities import predict_missing


def main(folder: str, *fits: str) -> None:
    """Do it."""
    sweep = sweep_in(Path(folder))
    start_ray(cpus=CORES)
    predict_missing(sweep, [list(fits)], "test")
    for name in POLICIES:
        ensemble(list(read(sweep, list(fits), name).values()))
    stop_ray()


if __name__ == "__main__":
    main(*sys.argv[1:])
