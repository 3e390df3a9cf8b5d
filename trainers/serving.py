"""The registered model: image bytes -> label and probabilities. Imports neither mlflow nor the orchestrator.

A served folder holds ``model.json`` (classes, crop policy, configuration), ``backbone.npz`` (the starting weights, of
which the frozen part is in use) and one ``member-K.npz`` for each network of the ensemble. It needs nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainers import device
from trainers.backbones import backbone
from trainers.contract import FitJob, TrainerError

MODEL_FILE = "model.json"
BACKBONE_FILE = "backbone.npz"


def assemble(job: Mapping[str, Any]) -> dict[str, Any]:
    """Put finished fits of one configuration together into a served folder; a job for a worker.

    ``job``: ``fits`` (folders, the ensemble's members), ``output``, ``classes``, ``policy``, ``threads``, ``precision``.
    Returns ``{"members": count}``. Raises TrainerError.
    """
    from trainers.model import pretrained
    from trainers.training import read_weights

    device.prepare(job["threads"], 0.0, job["precision"])
    out = Path(job["output"])
    out.mkdir(parents=True, exist_ok=True)
    fits = [read_weights(Path(folder)) for folder in job["fits"]]
    first = fits[0][0]
    size = first.config.image_size or backbone(first.config.backbone).native_size
    starting = pretrained(first.config.backbone, first.weights, size).get_weights()
    _write_arrays(out / BACKBONE_FILE, starting)
    for number, (_, arrays) in enumerate(fits):
        _write_arrays(out / f"member-{number}.npz", arrays)
    described = {
        "classes": list(job["classes"]),
        "policy": job["policy"],
        "members": len(fits),
        "image_size": size,
        "view": first.config.view,
        "fit": first.to_dict() | {"manifest": "", "output": "", "cache": ""},
    }
    beside = out / f".{MODEL_FILE}.{os.getpid()}"
    beside.write_text(json.dumps(described, indent=1))
    os.replace(beside, out / MODEL_FILE)
    return {"members": len(fits)}


def _write_arrays(path: Path, arrays: Sequence[np.ndarray]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez(beside, **{f"w{i:04d}": a for i, a in enumerate(arrays)})
    os.replace(beside, path)


def _read_arrays(path: Path) -> list[np.ndarray]:
    with np.load(path) as stored:
        return [stored[key] for key in sorted(stored.files)]


class ServedModel:
    """A classifier of photos under its own crop policy."""

    def __init__(self, folder: Path) -> None:
        """Raises TrainerError where ``folder`` is not a served model."""
        if not (folder / MODEL_FILE).is_file():
            raise TrainerError(f"{folder} holds no {MODEL_FILE}; it is not a model that orch wrote.")
        described = json.loads((folder / MODEL_FILE).read_text())
        self.classes: tuple[str, ...] = tuple(described["classes"])
        self.policy: str = described["policy"]
        self.image_size: int = described["image_size"]
        self.view: str = described["view"]
        self._open(folder, FitJob.from_dict(described["fit"]), described["members"])

    def _open(self, folder: Path, fit: FitJob, members: int) -> None:
        from trainers.model import Architecture, Network, Prefix, pretrained

        device.prepare(os.cpu_count() or 1, 0.0, "float32")
        # Built without weights under a name of its own, then given the stored ones: never another model's values.
        weights = f"served:{folder}"
        pretrained_model = pretrained(fit.config.backbone, weights, self.image_size)
        pretrained_model.set_weights(_read_arrays(folder / BACKBONE_FILE))
        architecture = Architecture.of(fit.config, weights, len(self.classes), "float32")
        self._prefix = Prefix(architecture)
        self._networks = []
        for number in range(members):
            network = Network(architecture, self._prefix)
            network.set_numbers(fit.config)
            network.load_state(_read_arrays(folder / f"member-{number}.npz"))
            self._networks.append(network)

    def probabilities(self, images: Sequence[bytes]) -> np.ndarray:
        """Encoded images (JPEG, PNG, ...) -> float32 (n, classes): the mean over crops and members.

        Raises TrainerError for one that cannot be decoded.
        """
        from trainers.crops import crops

        out = np.zeros((len(images), len(self.classes)), np.float32)
        for i, image in enumerate(images):
            sha256 = hashlib.sha256(image).hexdigest()
            features = self._prefix(crops(image, self.image_size, self.view, self.policy, sha256))
            out[i] = np.mean([network.predict(features).mean(0) for network in self._networks], 0)
        return out

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """What MLflow calls. A column ``image`` of bytes, base64 text or paths -> ``label``, ``probability`` and
        ``probabilities`` (JSON: class -> probability), one row an image, in order.
        """
        rows = self.probabilities([_image_bytes(value) for value in _images(model_input)])
        best = rows.argmax(1) if len(rows) else np.zeros(0, int)
        return pd.DataFrame(
            {
                "label": [self.classes[b] for b in best],
                "probability": [float(row[b]) for row, b in zip(rows, best, strict=True)],
                "probabilities": [
                    json.dumps({c: round(float(p), 6) for c, p in zip(self.classes, row, strict=True)}) for row in rows
                ],
            }
        )


def _images(model_input: Any) -> Iterable[Any]:
    if isinstance(model_input, pd.DataFrame):
        column = "image" if "image" in model_input else model_input.columns[0]
        return model_input[column].tolist()
    if isinstance(model_input, bytes | str):
        return [model_input]
    return list(model_input)


def _image_bytes(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    text = str(value)
    if len(text) < 4096 and Path(text).is_file():
        return Path(text).read_bytes()
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise TrainerError(f"neither a file nor base64 text: {text[:60]!r}") from error


def _load_pyfunc(data_path: str) -> ServedModel:
    """MLflow's loader."""
    return ServedModel(Path(data_path))
