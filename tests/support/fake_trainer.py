"""A trainer without TensorFlow, for tests: a synthetic learning curve, and every way to go wrong.

What a fit does is read from its configuration: ``dropout`` is its final accuracy's distance from 1, and ``recipe``
may hold words that ask for trouble, such as "crash" or "sleep:0.2", separated by commas. Its macro F1 is half its
accuracy; its speed, where asked for, 1,000 images/s over 1 + ``hidden``; its folds' accuracies lie 0.01 apart.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from trainers.contract import EpochMetrics, FitJob
from trainers.errors import Diverged, TrainerError


def open_fit(job: FitJob) -> FakeFit:
    return FakeFit(job)


class FakeFit:
    """``diverge``, ``nan``, ``refuse``, ``memory``, ``error`` and ``crash`` go wrong in epoch 2, or N with ``at:N``.

    ``crash_once`` and ``sleep_once:S`` do so on the first attempt alone, remembered in ``job.output``. ``meet:N`` waits
    in epoch 1 until N trials are there at once. ``forget`` finds every saved state damaged.
    """

    def __init__(self, job: FitJob) -> None:
        self.job = job
        self.epoch = 0
        self.trouble = dict(word.partition(":")[::2] for word in job.config.recipe.split(","))
        print(f"fake trainer opens {job.id} in process {os.getpid()}", flush=True)
        if "refuse_open" in self.trouble:
            raise TrainerError("the fake trainer refuses to open.")

    def run_epoch(self) -> EpochMetrics:
        self.epoch += 1
        started_s = time.time()
        if "meet" in self.trouble and self.epoch == 1:
            self._meet(int(self.trouble["meet"]))
        if "sleep" in self.trouble:
            time.sleep(float(self.trouble["sleep"]))
        if self.epoch == int(self.trouble.get("at", 2)):
            self._go_wrong()
        if self.job.output:
            self._note(started_s)
        accuracy = (1 - self.job.config.dropout) * (1 - 0.5**self.epoch)
        loss = math.nan if "nan" in self.trouble and self.epoch == 2 else 1 / self.epoch
        speed = 1000.0 / (1 + self.job.config.hidden) if self.job.measure_speed else math.nan
        folds = tuple(accuracy + 0.01 * (fold - (self.job.folds + 1) / 2) for fold in range(1, self.job.folds + 1))
        figures = (loss, accuracy, loss, accuracy, accuracy / 2, 0.001, 0.01, 100.0, speed, folds)
        return EpochMetrics(self.epoch, *figures)

    def _go_wrong(self) -> None:
        if "diverge" in self.trouble:
            raise Diverged("diverged: the loss is nan in step 7 of epoch 2.")
        if "refuse" in self.trouble:
            raise TrainerError("the fake trainer refuses epoch 2.")
        if "memory" in self.trouble:
            raise MemoryError("a fake tensor is too large")
        if "error" in self.trouble:
            raise ValueError("a fake mistake in the code")
        if "sleep_once" in self.trouble and not self._marked():
            time.sleep(float(self.trouble["sleep_once"]))
        if "crash" in self.trouble or ("crash_once" in self.trouble and not self._marked()):
            os._exit(17)

    def _meet(self, trials: int) -> None:
        """Wait until so many trials were here; those that come later find them all and pass."""
        place = Path(self.job.output) / "meeting"
        place.mkdir(exist_ok=True)
        (place / self.job.id).touch()
        until_s = time.monotonic() + 60
        while len(list(place.iterdir())) < trials:
            if time.monotonic() > until_s:
                raise TrainerError(f"only {len(list(place.iterdir()))} of {trials} trials ran at once.")
            time.sleep(0.01)

    def _marked(self) -> bool:
        """Whether this trial crashed before."""
        return not _first_time(Path(self.job.output) / f"{self.job.id}.crashed")

    def _note(self, started_s: float) -> None:
        row: dict[str, Any] = {
            "id": self.job.id,
            "epoch": self.epoch,
            "pid": os.getpid(),
            "start_s": started_s,
            "end_s": time.time(),
            "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "omp_threads": os.environ.get("OMP_NUM_THREADS"),
            "threads": self.job.threads,
            "gpu_memory_share": self.job.gpu_memory_share,
            "parts": self.job.devices,
        }
        with (Path(self.job.output) / "epochs.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def save(self, folder: Path) -> None:
        (folder / "epoch").write_text(str(self.epoch))

    def restore(self, folder: Path) -> None:
        if "forget" in self.trouble:
            self.epoch = 99
            raise TrainerError("the fake state is damaged.")
        self.epoch = int((folder / "epoch").read_text())

    def finish(self) -> None:
        if self.job.output:
            (Path(self.job.output) / f"{self.job.id}.done").touch()


def _first_time(mark: Path) -> bool:
    if mark.exists():
        return False
    mark.touch()
    return True


def _wait_for_trials(epochs: Path, count: int) -> None:
    """Wait until ``count`` trials have recorded an epoch, for at most a minute."""
    deadline_s = time.monotonic() + 60
    while count and time.monotonic() < deadline_s:
        lines = epochs.read_text().splitlines() if epochs.exists() else []
        if len({json.loads(line)["id"] for line in lines if line.endswith("}")}) >= count:
            return
        time.sleep(0.05)


def fill(job: dict[str, Any]) -> dict[str, Any]:
    """Fill a store that is not there: noted in ``output``. Its words are ``fill_sleep:S``, ``fill_refuse``,
    ``fill_sleep_once:S``, ``fill_after:N`` (wait for N trials, at most a minute), ``fill_error`` and ``fill_crash``."""
    words = dict(word.partition(":")[::2] for word in job["config"]["recipe"].split(","))
    start_s = time.time()
    time.sleep(float(words.get("fill_sleep", 0)))
    _wait_for_trials(Path(job["output"]) / "epochs.jsonl", int(words.get("fill_after", 0)))
    if "fill_refuse" in words:
        raise TrainerError("the fake store refuses.")
    if "fill_error" in words:
        raise ValueError("a fake mistake in the store")
    if "fill_crash" in words:
        os._exit(17)
    if "fill_sleep_once" in words and _first_time(Path(job["output"]) / "fill.slept"):
        time.sleep(float(words["fill_sleep_once"]))
    row = {"id": job["id"], "pid": os.getpid(), "start_s": start_s, "end_s": time.time(), "threads": job["threads"]}
    with (Path(job["output"]) / "fills.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    size = job["config"]["image_size"]
    return {"what": f"images at {size} px", "images": 7, "features": 0, "stored": True, "seconds": 0.1}


def double(job: dict[str, Any]) -> dict[str, Any]:
    """A plain job: twice its ``x``. "refuse" and "crash" go wrong, "crash_once" on the first attempt alone."""
    if job.get("refuse"):
        raise TrainerError(f"the fake job refuses {job['x']}.")
    if job.get("error"):
        raise ValueError("a fake mistake in the job")
    if job.get("crash_once") and _first_time(Path(job["crash_once"])):
        os._exit(17)
    if job.get("sleep_s") and (not job.get("sleep_once") or _first_time(Path(job["sleep_once"]))):
        time.sleep(job["sleep_s"])
    return {"x": 2 * job["x"]}
