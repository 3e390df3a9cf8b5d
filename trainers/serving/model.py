"""The registered model: image bytes -> label and probabilities. Imports neither mlflow nor the orchestrator.

A served folder holds ``model.json`` (classes, crop policy, configuration, calibration), ``backbone.npz`` (the starting
weights, of which only the frozen part is used) and one ``member-K.npz`` per network of the ensemble. Nothing else is
needed to predict; ``neighbours.npz`` tells how far a photo is from the training photos (``serving.neighbours``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainers.calibration import PRECISION, Calibration, certainty, too_uncertain
from trainers.contract import FitJob
from trainers.errors import TrainerError
from trainers.files.arrays import DAMAGED, read_list, write_list
from trainers.files.atomic import atomic_write_text, make_folders
from trainers.files.plain import Unreadable
from trainers.images.crops import cut
from trainers.images.policies import crop_names
from trainers.serving.inputs import photos
from trainers.serving.neighbours import Neighbours
from trainers.training import device

MODEL_FILE = "model.json"
CALIBRATION = "calibration"
"""Key of ``model.json``; models from before 2026-12 lack it."""
BACKBONE_FILE = "backbone.npz"
SERVED_PRECISION = "float32"
"""Precision of every served model, whatever its training precision, so that it runs on any CPU. Finished fits are
judged in it, too."""
BATCH_CROPS = 16
"""Crops per batch of the network. On CPUs the time per crop is the same from 16 to 128, and memory grows with it."""
DECODING_THREADS = min(8, os.cpu_count() or 1)
"""Threads that decode images. Pillow releases the interpreter's lock while it decodes and resizes."""


class UnreadableImages(Unreadable):
    """Images that cannot be decoded. ``reasons``: index from 0 -> why; the message is that of the first, from 1."""

    def __init__(self, reasons: Mapping[int, str], images: int) -> None:
        first = min(reasons)
        super().__init__(f"image {first + 1} of {images}", reasons[first])
        self.reasons, self.images = dict(reasons), images

    def __reduce__(self) -> tuple[type, tuple[dict[int, str], int]]:  # type: ignore[override]
        return type(self), (self.reasons, self.images)


def assemble(job: Mapping[str, Any]) -> dict[str, Any]:
    """Write finished fits of one configuration as a served folder; a job for a worker.

    ``job``: ``fits`` (folders of the ensemble's members), ``output``, ``classes``, ``policy``, ``threads``,
    ``precision`` and, optionally, ``calibration`` (``Calibration.to_dict``).
    Returns ``{"members": count}``. Raises TrainerError if there is no fit, or they differ in configuration.
    """
    from trainers.networks.backbone import cached_backbone
    from trainers.training.loop import read_weights

    device.prepare(job["threads"], 0.0, job["precision"])
    fits = [read_weights(Path(folder)) for folder in job["fits"]]
    if not fits:
        raise TrainerError("no trained model was given, so nothing can be served.")
    first = fits[0][0]
    if any((fit.config, fit.weights) != (first.config, first.weights) for fit, _ in fits):
        raise TrainerError("only models of one configuration and the same starting weights can be served together.")
    out = Path(job["output"])
    make_folders(out)
    for older in out.glob("member-*.npz"):  # of a larger ensemble
        older.unlink()
    size = first.config.resolved_image_size
    starting = cached_backbone(first.config.backbone, first.weights, size, SERVED_PRECISION).get_weights()
    write_list(out / BACKBONE_FILE, starting)
    for number, (_, arrays) in enumerate(fits):
        write_list(out / f"member-{number}.npz", arrays)
    described = {
        "classes": list(job["classes"]),
        "policy": job["policy"],
        "crops": list(crop_names(job["policy"])),
        "members": len(fits),
        "fits": [Path(folder).name for folder in job["fits"]],
        "image_size": size,
        "view": first.config.framing,
        "fit": first.to_dict() | {"manifest": "", "output": "", "cache": "", "distillation": None},
    }
    described |= {CALIBRATION: job[CALIBRATION]} if job.get(CALIBRATION) else {}
    atomic_write_text(out / MODEL_FILE, json.dumps(described, indent=1))
    return {"members": len(fits)}


class ServedModel:
    """An image classifier with its crop policy: ``networks`` on top of a shared ``prefix``, in float32."""

    def __init__(self, folder: Path) -> None:
        """Raises TrainerError if ``folder`` is not a served model, or is incomplete."""
        if not (folder / MODEL_FILE).is_file():
            raise TrainerError(f"{folder} holds no {MODEL_FILE}; it is not a model that orch wrote.")
        try:
            described = json.loads((folder / MODEL_FILE).read_text())
            starting = read_list(folder / BACKBONE_FILE)
            members = [read_list(folder / f"member-{number}.npz") for number in range(described["members"])]
            self.classes: tuple[str, ...] = tuple(described["classes"])
            self.policy: str = described["policy"]
            self.crop_names = tuple(described.get("crops") or crop_names(self.policy))
            self.image_size: int = described["image_size"]
            self.view: str = described["view"]
            self.calibration = Calibration.from_dict(described.get(CALIBRATION))
            fit = FitJob.from_dict(described["fit"])
            self.neighbours = Neighbours.read(folder)
        except DAMAGED as error:
            reason = str(error) or type(error).__name__
            raise TrainerError(f"the model in {folder} is damaged ({reason}); write or download it again.") from error
        self._open(fit, starting, members)

    def _open(self, fit: FitJob, starting: list[np.ndarray], members: list[list[np.ndarray]]) -> None:
        import tensorflow as tf

        from trainers.networks.backbone import build_backbone
        from trainers.networks.network import Architecture, Network
        from trainers.networks.prefix import Prefix

        device.grow_gpu_memory(tf)  # trials may be running on it
        # Built for this model only: other models in the same process keep their own weights.
        whole = build_backbone(fit.config.backbone, "none", self.image_size, SERVED_PRECISION)
        if [w.shape for w in whole.get_weights()] != [w.shape for w in starting]:
            raise TrainerError(f"the stored weights are not those of a {fit.config.backbone}.")
        whole.set_weights(starting)
        architecture = Architecture.of(fit.config, fit.weights, len(self.classes), SERVED_PRECISION)
        self.prefix = Prefix(architecture.prefix, whole)
        self.networks = []
        for arrays in members:
            network = Network(architecture, self.prefix)
            network.set_numbers(fit.config)
            network.load_state(arrays)
            self.networks.append(network)

    def probabilities(self, images: Sequence[bytes]) -> np.ndarray:
        """Return float32 (n, classes) for encoded images (JPEG, PNG, ...): the mean over crops and members, before
        calibration, as the leaderboard judges it.

        Images are decoded in threads, and their crops predicted in batches of about BATCH_CROPS while the next are
        decoded. Raises UnreadableImages for images that cannot be decoded.
        """
        out = np.zeros((len(images), len(self.classes)), np.float32)
        reasons: dict[int, str] = {}
        with contextlib.closing(self._cut_ahead(images)) as ahead:
            for start, cuts in ahead:
                for i, found in enumerate(cuts, start):
                    if isinstance(found, Unreadable):
                        reasons[i] = found.reason
                if not reasons:
                    out[start : start + len(cuts)] = self._predict_crops(np.stack(cuts))  # type: ignore[arg-type]
        if reasons:
            raise UnreadableImages(reasons, len(images))
        return out

    def _cut_ahead(self, images: Sequence[bytes]) -> Generator[tuple[int, list[np.ndarray | Unreadable]], None, None]:
        """Yield (index of the first image, crops of each image) per batch, in order; one batch is cut ahead."""
        each = max(1, BATCH_CROPS // len(self.crop_names))
        with ThreadPoolExecutor(min(DECODING_THREADS, max(1, len(images)))) as pool:
            following: list[Future[np.ndarray | Unreadable]] = [pool.submit(self._cut, x) for x in images[:each]]
            for start in range(0, len(images), each):
                current = following
                following = [pool.submit(self._cut, x) for x in images[start + each : start + 2 * each]]
                yield start, [future.result() for future in current]

    def _cut(self, image: bytes) -> np.ndarray | Unreadable:
        try:
            return cut(image, self.image_size, self.view, self.crop_names, hashlib.sha256(image).hexdigest())
        except Unreadable as error:
            return error

    def _predict_crops(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (images, crops, size, size, 3) -> (images, classes)."""
        count, crops = pixels.shape[:2]
        features = self.prefix(pixels.reshape(-1, *pixels.shape[2:]))
        rows = [network.predict(features).reshape(count, crops, -1).mean(1) for network in self.networks]
        return np.mean(rows, 0)

    def get_raw_model(self) -> ServedModel:
        """Return itself; MLflow's wrapper calls this under the same name."""
        return self

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predict input as ``trainers.serving.inputs.photos`` takes it; MLflow calls this.

        Returns ``label``, ``probability`` and ``probabilities`` (JSON: class -> probability), one row per image, in
        order, calibrated. ``params``: ``precision``, the wanted precision, 0 for none: the label of a row whose highest
        probability is below its threshold is then "", and a column ``reason`` says so. Raises TrainerError, which
        MLflow reports with status 400.
        """
        try:
            precision = _wanted_precision(params)
            level = self.calibration.level(precision) if precision else None
            rows = self.probabilities(photos(model_input))
        except TrainerError as error:
            raise _for_mlflow(error) from error
        best = rows.argmax(1) if len(rows) else np.zeros(0, int)
        rows = self.calibration.apply(rows)
        answers = pd.DataFrame(
            {
                "label": [self.classes[b] for b in best],
                "probability": [float(row[b]) for row, b in zip(rows, best, strict=True)],
                "probabilities": [
                    json.dumps({c: round(float(p), 6) for c, p in zip(self.classes, row, strict=True)}) for row in rows
                ],
            }
        )
        if level is None:
            return answers
        pairs = list(zip(answers["label"], answers["probability"], strict=True))
        unsure = certainty(rows) < level.threshold
        reasons = [too_uncertain(*pair, level, precision) if no else "" for pair, no in zip(pairs, unsure, strict=True)]
        labels = ["" if reason else label for reason, (label, _) in zip(reasons, pairs, strict=True)]
        return answers.assign(label=labels, reason=reasons)


def _wanted_precision(params: Mapping[str, Any] | None) -> float:
    value = (params or {}).get(PRECISION) or 0.0
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TrainerError(f"the precision is a share between 0 and 1, such as 0.95; found {value!r}.") from error


def _for_mlflow(error: TrainerError) -> TrainerError:
    """Convert ``error`` so that MLflow's server replies with status 400 and only its message.

    Returns ``error`` itself if MLflow is not loaded. ``reasons`` are those of ``UnreadableImages``. MLflow prefixes the
    ``message`` of its own exceptions with the whole request and appends a traceback to others, which the read-only
    property prevents.
    """
    mlflow = sys.modules.get("mlflow.exceptions")
    if mlflow is None:
        return error
    sentence = str(error)

    class Refused(TrainerError, mlflow.MlflowException):  # type: ignore[name-defined, misc]
        reasons = getattr(error, "reasons", {})

        @property
        def message(self) -> str:
            return sentence

        @message.setter
        def message(self, value: str) -> None:
            """Ignore MLflow's prefix."""

    return Refused.invalid_parameter_value(sentence)
