"""One network whose weights are the average of several networks' (Wortsman et al. 2022, "Model soups", section 2).

Weights average well if fine-tunings start from the same weights, so that they lie in one basin of the loss (section 5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.networks.network import Architecture, Network
from trainers.training import device
from trainers.training.features import fit_examples
from trainers.training.loop import measure_norms, read_weights, write_weights
from trainers.training.steps import prefix_of


def average(job: Mapping[str, Any]) -> dict[str, int]:
    """Write the average of finished fits as a fit of its own; a job for a worker.

    ``job``: ``fits`` (folders), ``soup`` (``FitJob.to_dict`` of the fit to write: its configuration, its training
    photos and its ``output``), ``threads`` and ``gpu_memory_share``. The statistics of trained batch norms, which do
    not average (Izmailov et al. 2018, section 3.2), are measured anew over its training photos, unless the
    configuration has them frozen or there is one fit only. Returns ``{"ingredients": count}``. Raises TrainerError if
    the fits differ in configuration or in the weights that they started from.
    """
    soup = dataclasses.replace(
        FitJob.from_dict(job["soup"]), threads=job["threads"], gpu_memory_share=job["gpu_memory_share"]
    )
    precision = device.prepare(soup.threads, soup.gpu_memory_share, soup.precision)
    weights = mean_of(_weights_of(soup, Path(folder)) for folder in job["fits"])
    if len(job["fits"]) > 1 and soup.config.batch_norm != "frozen":
        weights = _with_measured_norms(soup, weights, precision)
    write_weights(Path(soup.output), soup, weights)
    return {"ingredients": len(job["fits"])}


def _weights_of(soup: FitJob, folder: Path) -> list[np.ndarray]:
    """Return the weights of an ingredient. Raises TrainerError if it cannot be averaged with those of ``soup``."""
    fit, weights = read_weights(folder)
    if (fit.config, fit.weights, fit.first_seed) != (soup.config, soup.weights, soup.first_seed):
        raise TrainerError("only networks of one configuration that start from the same weights can be averaged.")
    return weights


def mean_of(networks: Iterable[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Return the mean of each weight over ``networks``, at least one, in its dtype. Memory: of a few, however many.

    Raises TrainerError if their shapes differ.
    """
    totals: list[np.ndarray] = []
    dtypes: list[np.dtype[Any]] = []
    count = 0
    for count, arrays in enumerate(networks, start=1):
        if count == 1:
            dtypes = [array.dtype for array in arrays]
            totals = [np.zeros(array.shape, np.float64) for array in arrays]
        if [array.shape for array in arrays] != [total.shape for total in totals]:
            raise TrainerError("only networks of the same shapes can be averaged.")
        for total, array in zip(totals, arrays, strict=True):
            total += array
    return [(total / count).astype(dtype) for total, dtype in zip(totals, dtypes, strict=True)]


def _with_measured_norms(soup: FitJob, weights: list[np.ndarray], precision: str) -> list[np.ndarray]:
    """Return ``weights`` with the trained batch norms' statistics measured; unchanged if there are none."""
    manifest = Manifest.read(Path(soup.manifest))
    architecture = Architecture.of(soup.config, soup.weights, len(manifest.classes), precision)
    measured = dataclasses.replace(architecture, batch_norm="measured")
    prefix = prefix_of(architecture.prefix, Path(soup.cache))
    network = Network(measured, prefix)
    if not network.norms.is_measured:
        return weights
    network.set_numbers(soup.config)
    network.load_state(weights)
    reader = dataclasses.replace(soup, config=dataclasses.replace(soup.config, batch_norm="measured"))
    train, _ = fit_examples(reader, manifest, prefix)[0]
    measure_norms(network, train, soup.first_seed, 0)
    return network.state()
