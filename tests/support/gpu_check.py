"""What a machine with a GPU has to show: ``make gpu-check``, at most 8 minutes. Without a GPU, the reason; exit code 0.

    python -m tests.support.gpu_check

Each check is a line, ok or failed, with its figures; exit code 1 if one failed. Every part runs in a process of its
own, since TensorFlow opens a device once: ``python -m tests.support.gpu_check --part NAME``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.places import ROOT

LIMIT_S = 8 * 60
"""Maximum seconds of all checks together; one that begins later is not run, and counts as failed."""
START_S = 180
"""Maximum seconds of one part, TensorFlow's start included."""
SHARE = 0.5
FEATURES_BOUND = 1e-4
"""Maximum difference of a feature between GPU and CPU, over the largest feature. TF32 alone makes about 1e-3."""
TF32_BOUND = 1e-5
"""Maximum error of a float32 product of matrices, over its largest value. TF32 has 10 bits: about 1e-3."""
PREDICT_SHARE = 0.25
"""Maximum share of the GPU's memory that a prediction of a small network may take."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi lists it; memory in MiB, ``utilisation`` in percent."""

    name: str
    total_mb: int
    used_mb: int
    utilisation: int


@dataclass(frozen=True)
class Finding:
    """The outcome of a check: a line for a person."""

    ok: bool
    figures: str


def parse_gpus(text: str) -> list[Gpu]:
    """Parse nvidia-smi's ``name,memory.total,memory.used,utilization.gpu`` as CSV without header and units.

    A figure that the driver does not report ("[N/A]") counts as 0. Raises ValueError for anything else.
    """
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        parts = [part.strip() for part in line.rsplit(",", 3)]
        if len(parts) != 4:
            raise ValueError(f"not a line of nvidia-smi: {line!r}")
        total, used, busy = (0 if part.startswith("[") else int(part) for part in parts[1:])
        found.append(Gpu(parts[0], total, used, busy))
    return found


def gpus() -> tuple[list[Gpu], str]:
    """The GPUs of this machine; with none, the reason."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return [], "nvidia-smi is not installed, so there is no NVIDIA GPU to check"
    query = [program, "--query-gpu=name,memory.total,memory.used,utilization.gpu", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True)
    try:
        found = [] if answer.returncode else parse_gpus(answer.stdout)
    except ValueError:
        found = []
    return found, "" if found else f"nvidia-smi lists no GPU: {(answer.stdout + answer.stderr).strip() or 'no output'}"


@dataclass
class Watch:
    """Samples the first GPU while it is entered: memory in use in MiB, and utilisation in percent."""

    look: Callable[[], Sequence[Gpu]] = lambda: gpus()[0]
    every_s: float = 0.5
    used_mb: list[int] = field(default_factory=list)
    utilisation: list[int] = field(default_factory=list)

    def __enter__(self) -> Watch:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(self.every_s):
            for gpu in self.look()[:1]:
                self.used_mb.append(gpu.used_mb)
                self.utilisation.append(gpu.utilisation)

    @property
    def most_mb(self) -> int:
        return max(self.used_mb, default=0)


def busy_share(utilisation: Sequence[int]) -> float:
    """Median utilisation in percent of the samples in which the GPU worked at all; 0 if it never did."""
    return float(statistics.median([each for each in utilisation if each] or [0]))


def start(part: str, *arguments: object, gpu: bool = True) -> subprocess.Popen[str]:
    """Start a part in a process of its own; without ``gpu`` it sees none."""
    hidden = {} if gpu else {"CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-m", "tests.support.gpu_check", "--part", part, *map(str, arguments)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | dict(os.environ) | hidden
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a part printed last, as JSON. Raises RuntimeError with its last words if it failed or took too long."""
    try:
        out, err = process.communicate(timeout=START_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.communicate()
        raise RuntimeError(f"no answer within {START_S} s") from error
    if process.returncode:
        raise RuntimeError((err.strip().splitlines() or ["no words"])[-1])
    return dict(json.loads(out.strip().splitlines()[-1]))


# --- parts: each in a process of its own ---------------------------------------------------------------------------


def hold(share: float) -> dict[str, Any]:
    """Take memory in pieces of 64 MiB until TensorFlow refuses; the MiB that it gave, and its limit."""
    import tensorflow as tf

    from trainers.training import device

    device.prepare(1, share, "float32")
    limit, taken = device._prepared["limits_mb"][0], []
    try:
        for _ in range(limit // 64 + 64):
            taken.append(tf.zeros((16, 2**20)))
            _ = taken[-1][0, 0].numpy()
    except tf.errors.ResourceExhaustedError:
        pass
    time.sleep(2)  # to be seen by nvidia-smi
    return {"limit_mb": limit, "taken_mb": 64 * len(taken)}


def product(size: int) -> dict[str, Any]:
    """The error of a product of float32 matrices, over its largest value, in the precision of stored features."""
    import tensorflow as tf

    from trainers.training import device

    device.prepare(1, 0.0, "float32")
    a, b = np.random.default_rng(0).normal(size=(2, size, size))
    found = tf.matmul(tf.constant(a, tf.float32), tf.constant(b, tf.float32)).numpy()
    exact = a.astype(np.float32).astype(np.float64) @ b.astype(np.float32).astype(np.float64)
    return {"error": float(np.abs(found - exact).max() / np.abs(exact).max()), "device": device.kind()}


def features(backbone: str, size: int, out: Path) -> dict[str, Any]:
    """Write the features of eight pictures by a frozen backbone without weights to ``out``."""
    from trainers.config import PrefixKey, canonical
    from trainers.networks.prefix import Prefix
    from trainers.training import device

    device.prepare(1, 0.0, "float32")
    key: PrefixKey = canonical({"backbone": backbone, "image_size": size, "unfrozen_layers": 0}).prefix_key("none")
    pictures = np.random.default_rng(1).integers(0, 256, (8, size, size, 3), np.uint8)
    np.save(out, Prefix(key)(pictures).numpy())
    return {"device": device.kind()}


def train(folder: Path, backbone: str, size: int, seconds: float, share: float) -> dict[str, Any]:
    """Train all layers on pictures in ``folder`` for about ``seconds``; images a second after the first epoch."""
    from trainers.config import canonical
    from trainers.contract import FitJob
    from trainers.training.loop import open_fit

    values = {"backbone": backbone, "image_size": size, "unfrozen_layers": "all", "batch_size": 32, "epochs": 1000}
    job = FitJob("check", canonical(values), 0, str(_manifest(folder)), "none", cache=str(folder / f"cache-{size}"))
    job = FitJob(**{**vars(job), "gpu_memory_share": share, "output": str(folder / f"fit-{os.getpid()}")})
    fit = open_fit(job)
    fit.run_epoch()
    rates, until_s = [], time.monotonic() + seconds
    while time.monotonic() < until_s or not rates:
        rates.append(fit.run_epoch().train_images_per_s)
    fit.finish()
    return {"images_per_s": statistics.median(rates), "fit": job.output, "precision": fit.precision}  # type: ignore[attr-defined]


def predict(fit: Path, folder: Path) -> dict[str, Any]:
    """Serve the fit and ask it about a picture, as ``orch predict`` does."""
    from trainers.data.manifest import Manifest
    from trainers.serving.model import ServedModel, assemble

    manifest = Manifest.read(_manifest(folder))
    about = {"fits": [str(fit)], "output": str(folder / "served"), "classes": list(manifest.classes)}
    assemble({**about, "policy": "whole", "threads": 1, "precision": "float32"})
    rows = ServedModel(folder / "served").probabilities([path.read_bytes() for path in manifest.paths()[:4]])
    time.sleep(2)  # to be seen by nvidia-smi
    return {"sums": rows.sum(1).tolist()}


def rates(folder: Path, size: int) -> dict[str, Any]:
    """Images a second that are decoded into the store, rows a second that are read from it, and images a second
    through a frozen network."""
    from trainers.config import canonical
    from trainers.contract import FitJob
    from trainers.data.manifest import Manifest
    from trainers.networks.prefix import Prefix
    from trainers.training import device
    from trainers.training.features import ReadCost, fit_examples

    device.prepare(1, 0.0, "float32")
    path, costs = _manifest(folder), []
    for unfrozen in ("all", 0):  # decoded images first, then features of the stored ones
        config = canonical({"backbone": "mobilenet_0.25", "image_size": size, "unfrozen_layers": unfrozen})
        job = FitJob("check", config, 0, str(path), "none", cache=str(folder / f"rates-{size}"))
        prefix, cost, began_s = Prefix(config.prefix_key("none")), ReadCost(), time.perf_counter()
        ((rows, _),) = fit_examples(job, Manifest.read(path), prefix, cost)
        costs.append((cost, time.perf_counter() - began_s))
    (decoding, decoding_s), (computing, _) = costs
    began_s, read, numbers = time.perf_counter(), 0, np.random.default_rng(0).permutation(len(rows))
    while time.perf_counter() - began_s < 1:
        read += len(rows.rows.take(numbers))
    return {
        "decoded_per_s": decoding.images / decoding_s,
        "rows_per_s": read / (time.perf_counter() - began_s),
        "features_per_s": computing.features / computing.prefix_s,
    }


def pictures(folder: Path, each: int = 128) -> Path:
    """Write JPEGs of 512 x 384 in two classes, and return ``folder``."""
    from PIL import Image

    for label in ("a", "b"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(each):
            draw = np.random.default_rng((number, ord(label)))
            pixels = draw.integers(0, 256, (24, 32, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            Image.fromarray(pixels).save(folder / "photos" / label / f"{number}.jpg", quality=90)
    return folder


def _manifest(folder: Path) -> Path:
    from trainers.data.build import build_manifest
    from trainers.data.data_source import DataSource

    path = folder / "manifest.parquet"
    if not path.is_file():
        with contextlib.redirect_stdout(io.StringIO()):
            build_manifest(DataSource(str(folder / "photos"), "auto", folder / "cache"))[0].write(path)
    return path


PARTS: dict[str, tuple[Callable[..., dict[str, Any]], tuple[Callable[[str], Any], ...]]] = {
    "hold": (hold, (float,)),
    "product": (product, (int,)),
    "features": (features, (str, int, Path)),
    "train": (train, (Path, str, int, float, float)),
    "predict": (predict, (Path, Path)),
    "rates": (rates, (Path, int)),
}
"""Name of a part -> its function and how its arguments are read."""


# --- checks: what is started, and what counts as right -------------------------------------------------------------


def share_held(limit_mb: int, taken_mb: int, seen_mb: int, room_mb: int) -> Finding:
    """``seen_mb``: what the GPU's memory in use grew by; ``room_mb``: for the context. Pure."""
    ok = taken_mb <= limit_mb and seen_mb <= limit_mb + room_mb
    words = f"{taken_mb:,} MiB given of a limit of {limit_mb:,}; in use {seen_mb:,}, with {room_mb:,} for CUDA allowed"
    return Finding(ok and taken_mb > 0, words)


def features_equal(gpu: np.ndarray, cpu: np.ndarray) -> Finding:
    """Whether features differ by at most ``FEATURES_BOUND`` of the largest. Pure."""
    difference = float(np.abs(gpu - cpu).max() / max(float(np.abs(cpu).max()), 1e-12))
    return Finding(difference <= FEATURES_BOUND, f"largest difference {difference:.1e}, at most {FEATURES_BOUND:.0e}")


def _share(gpu: Gpu, folder: Path) -> Finding:
    from trainers.training.device import context_mb

    with Watch() as watch:
        found = answer(start("hold", SHARE))
    return share_held(found["limit_mb"], found["taken_mb"], watch.most_mb - gpu.used_mb, context_mb(gpu.total_mb, 9))


def _two_trials(gpu: Gpu, folder: Path) -> Finding:
    with Watch() as watch:
        both = [start("train", folder, "mobilenet_0.25", 128, 10, SHARE) for _ in range(2)]
        speeds = [answer(each)["images_per_s"] for each in both]
    words = f"{speeds[0]:,.0f} and {speeds[1]:,.0f} images/s; {watch.most_mb:,} of {gpu.total_mb:,} MiB in use"
    return Finding(watch.most_mb <= gpu.total_mb, words)


def _tf32(gpu: Gpu, folder: Path) -> Finding:
    found = answer(start("product", 2048))
    words = f"error of a float32 product {found['error']:.1e}, at most {TF32_BOUND:.0e}, on the {found['device']}"
    return Finding(found["device"] == "gpu" and found["error"] <= TF32_BOUND, words)


def _features(gpu: Gpu, folder: Path) -> Finding:
    files = [folder / "gpu.npy", folder / "cpu.npy"]
    asked = [start("features", "mobilenet_1.0", 224, file, gpu=file is files[0]) for file in files]
    kinds = [answer(each)["device"] for each in asked]
    if kinds != ["gpu", "cpu"]:
        return Finding(False, f"computed on {kinds[0]} and {kinds[1]}, not on gpu and cpu")
    return features_equal(np.load(files[0]), np.load(files[1]))


def _predict(gpu: Gpu, folder: Path) -> Finding:
    trained = answer(start("train", folder, "mobilenet_0.25", 128, 1, SHARE))
    busy = start("train", folder, "mobilenet_0.25", 128, 40, SHARE)
    time.sleep(25)  # until it holds its share
    before = gpus()[0][0].used_mb
    with Watch() as watch:
        rows = answer(start("predict", trained["fit"], folder))["sums"]
    answer(busy)
    took = watch.most_mb - before
    right = bool(np.allclose(rows, 1, atol=1e-4)) and took <= PREDICT_SHARE * gpu.total_mb
    return Finding(right, f"answered while a trial ran, with {took:,} MiB more in use of {gpu.total_mb:,}")


def _rates(gpu: Gpu, folder: Path) -> Finding:
    found = answer(start("rates", folder, 224))
    words = ", ".join(f"{name.removesuffix('_per_s')} {value:,.0f}/s" for name, value in found.items())
    return Finding(all(value > 0 for value in found.values()), words + " at 224 px, one thread")


def _training(gpu: Gpu, folder: Path) -> Finding:
    with Watch() as watch:
        found = answer(start("train", folder, "mobilenet_1.0", 224, 20, 1.0))
    busy = busy_share(watch.utilisation)
    words = f"{found['images_per_s']:,.0f} images/s at 224 px in {found['precision']}, GPU busy {busy:.0f} %"
    return Finding(busy > 0 and found["images_per_s"] > 0, words)


CHECKS: dict[str, Callable[[Gpu, Path], Finding]] = {
    "a share of the memory is held": _share,
    "two trials on one GPU": _two_trials,
    "float32 without TF32": _tf32,
    "features as on the CPU": _features,
    "predict during a sweep": _predict,
    "decoding, stored rows, frozen layers": _rates,
    "training mobilenet_1.0, all layers": _training,
}


def run(checks: Mapping[str, Callable[[], Finding]], clock: Callable[[], float] = time.monotonic) -> Iterator[str]:
    """Run each check and yield its line, which begins with ok or failed."""
    began_s = clock()
    for name, check in checks.items():
        if clock() - began_s > LIMIT_S - START_S / 2:
            yield f"failed  {name}: not run, no time is left of {LIMIT_S // 60} minutes"
            continue
        try:
            found = check()
        except Exception as error:  # a check that cannot run has failed; the others go on
            found = Finding(False, str(error) or type(error).__name__)
        yield f"{'ok' if found.ok else 'failed':6s}  {name}: {found.figures}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a part, or all checks; return the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--part", nargs="+", help="for this program itself")
    chosen = options.parse_args(arguments)
    if chosen.part:
        function, readers = PARTS[chosen.part[0]]
        print(json.dumps(function(*(read(text) for read, text in zip(readers, chosen.part[1:], strict=True)))))
        return 0
    found, reason = gpus()
    if not found:
        print(f"nothing was checked: {reason}.")
        return 0
    gpu = found[0]
    print(f"{gpu.name}, {gpu.total_mb:,} MiB, {gpu.used_mb:,} in use before; at most {LIMIT_S // 60} minutes")
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pictures(Path(name))
        _manifest(folder)
        for line in run({each: lambda check=check: check(gpu, folder) for each, check in CHECKS.items()}):  # type: ignore[misc]
            print(line, flush=True)
            failed += line.startswith("failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
