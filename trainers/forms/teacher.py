"""The answers of an ensemble on what a network distilled from it trains on, computed once.

Teacher and student see the same pixels of each photo and copy (Beyer et al. 2022, "Knowledge distillation: A good
teacher is patient and consistent", section 3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.networks.network import Architecture, Network
from trainers.training import device
from trainers.training.chunks import chunks
from trainers.training.examples import example_sets, row_keys, write_teacher
from trainers.training.features import fit_examples
from trainers.training.loop import prediction_batches, read_weights
from trainers.training.steps import prefix_of


def answer(job: Mapping[str, Any]) -> dict[str, int]:
    """Write the mean probabilities of finished fits on every training example of another; a job for a worker.

    ``job``: ``fits`` (folders of the teacher's networks), ``student`` (``FitJob.to_dict`` of the fit that learns from
    it), ``output`` (file, as ``trainers.training.examples.read_teacher`` reads it), ``threads`` and
    ``gpu_memory_share``. Returns ``{"examples": count}``. Raises TrainerError if teacher and student read different
    rows, or if the student mixes images or draws copies anew.
    """
    student = dataclasses.replace(
        FitJob.from_dict(job["student"]),
        threads=job["threads"],
        gpu_memory_share=job["gpu_memory_share"],
        distillation=None,
    )
    if student.config.draws == "fresh":
        raise TrainerError("a distilled network takes draws: fixed, since the teacher answers once on each copy.")
    if student.config.mixes_images:
        raise TrainerError("a network that trains on mixed images cannot be distilled: the teacher answers on photos.")
    precision = device.prepare(student.threads, student.gpu_memory_share, student.precision)
    manifest = Manifest.read(Path(student.manifest))
    architecture = Architecture.of(student.config, student.weights, len(manifest.classes), precision)
    prefix = prefix_of(architecture.prefix, Path(student.cache))
    network = Network(architecture, prefix)
    train, _ = fit_examples(student, manifest, prefix)[0]
    total = np.zeros((len(train), len(manifest.classes)), np.float64)
    for folder in job["fits"]:  # one after the other in one network, so that any number takes the memory of one
        fit, weights = read_weights(Path(folder))
        if Architecture.of(fit.config, fit.weights, len(manifest.classes), precision) != architecture:
            raise TrainerError("only networks of the student's own architecture can be its teacher.")
        network.set_numbers(fit.config)
        network.load_state(weights)
        batches = chunks(train.rows, prediction_batches(np.arange(len(train))))
        total += np.concatenate([network.predict_batches(chunk.rows, chunk.offsets) for chunk in batches])
    keys = row_keys(example_sets(student, manifest)[0][0], student.config.recipe)
    write_teacher(Path(job["output"]), keys, total / len(job["fits"]))
    return {"examples": len(keys)}
