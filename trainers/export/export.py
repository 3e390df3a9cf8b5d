"""Export the winner to other formats and measure each; a job for a worker.

The orchestrator decides whether an export is kept.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.export.decoding import LIMITS
from trainers.export.describe import notes, size_mb, versions
from trainers.export.formats import FORMATS, ExportFormat
from trainers.export.graph import SERVE_BYTES, bytes_policy
from trainers.export.interface import interface
from trainers.export.measure import ORIGINAL, Measured, first_line, measure, measure_bytes, run_original
from trainers.export.preprocessing import usage
from trainers.export.run import OPENERS
from trainers.export.write import WRITERS
from trainers.serving.model import ServedModel
from trainers.training import device


def export(job: Mapping[str, Any]) -> dict[str, Any]:
    """Write each format, then run it and the original model on every image of a split.

    ``job``: ``model`` (a served folder), ``outputs`` (format -> file or folder to write, replaced if it exists),
    ``answers`` (name -> .npz to write: each format, ``original`` and, with a SavedModel, ``serve_bytes``),
    ``manifest``, ``split``, ``threads``. Calibration reads only images of the split "train".

    Each .npz holds ``sha256`` (n,) and ``probabilities`` (n, classes), the mean over the crops of the model's policy
    before calibration, which no file holds: it follows the mean over crops.
    Returns ``measured`` (name -> ``latency_ms``, ``size_mb``), ``failed`` (format -> reason), ``notes`` (format ->
    limits of its file), and for users of the files ``input`` (description of a crop), ``usage`` (classes and
    preprocessing), ``interfaces`` (format -> names, shapes and types), ``crops`` (their number), ``serve_bytes`` (its
    ``policy`` and ``limits``) and ``versions``. ``latency_ms``: median milliseconds per photo, from its decoded crops
    to probabilities, on ``threads`` threads.

    Raises TrainerError.
    """
    device.prepare(job["threads"], 0.0, "float32")
    manifest, served = Manifest.read(Path(job["manifest"])), ServedModel(Path(job["model"]))
    outputs, answers = ({name: Path(path) for name, path in job[key].items()} for key in ("outputs", "answers"))
    part = manifest.split(job["split"])
    written, failed, lacking = _write_all(served, manifest, outputs, job["threads"])
    original = Measured(ORIGINAL, run_original(served), sum(size_mb(p) for p in Path(job["model"]).glob("*.npz")))
    failed |= measure(served, part, [original, *written])
    forms = [form for form in (original, *written) if form.name not in failed]
    for form in forms:
        form.write(answers[form.name])
    kept = {name: path for name, path in outputs.items() if name not in failed}
    if "savedmodel" in kept:
        measure_bytes(kept["savedmodel"], part, answers[SERVE_BYTES])
    return {
        "measured": {form.name: form.figures() for form in forms},
        "failed": failed,
        "notes": notes(kept, lacking),
        "input": f"pixels from 0 to 255, red, green, blue, of {served.image_size} x {served.image_size}",
        "usage": usage(served),
        "interfaces": {name: interface(path, bytes_policy(served)) for name, path in kept.items()},
        "serve_bytes": {"policy": bytes_policy(served), "limits": LIMITS},
        "crops": len(served.crop_names),
        "versions": versions(row for name, row in FORMATS.items() if name in outputs),
    }


def _write_all(
    served: ServedModel, manifest: Manifest, outputs: Mapping[str, Path], threads: int
) -> tuple[list[Measured], dict[str, str], dict[str, str]]:
    """Write and open every format of ``outputs``.

    Returns those that succeeded, format -> reason for the others, and format -> what the writer says that a file lacks.
    """
    written: list[Measured] = []
    failed: dict[str, str] = {}
    lacking: dict[str, str] = {}
    for name, path in outputs.items():
        try:
            _require(FORMATS[name])
            lacking[name] = WRITERS[name](served, manifest, _cleared(path))
            written.append(Measured(name, OPENERS[name](path, threads), size_mb(path)))
        except TrainerError as error:
            failed[name] = str(error)
        except Exception as error:  # each vendor's converter raises its own types
            failed[name] = f"{name} could not be written: {first_line(error)}"
    return written, failed, lacking


def _require(row: ExportFormat) -> None:
    """Raise TrainerError if a module that ``row`` needs is not installed."""
    missing = [module for module in row.needs if importlib.util.find_spec(module) is None]
    if missing:
        raise TrainerError(
            f"{row.name} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; "
            f"`pip install {' '.join(row.needs)}`."
        )


def _cleared(path: Path) -> Path:
    """Remove any file or folder at ``path``, create its parent folder, and return ``path``."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
