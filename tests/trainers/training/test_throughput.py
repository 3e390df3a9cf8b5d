"""How fast a network answers: measured where a job asks for it, once, and without a trace in the training."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest

from tests.support.tiny_fits import CLASSES, config, figures, job, write_manifest
from trainers.networks.network import Architecture, Network
from trainers.networks.prefix import Prefix
from trainers.training import throughput
from trainers.training.loop import open_fit
from trainers.training.throughput import images_per_second


@pytest.fixture
def opened(monkeypatch) -> tuple[Prefix, Network]:
    monkeypatch.setattr(throughput, "_measured", {})
    architecture = Architecture.of(config(), "none", len(CLASSES))
    prefix = Prefix(architecture.prefix)
    return prefix, Network(architecture, prefix)


def test_photos_go_through_the_frozen_part_too(opened, monkeypatch):
    prefix, network = opened
    batches = []
    run = prefix._run
    monkeypatch.setattr(prefix, "_run", lambda images: (batches.append(images.shape), time.sleep(0.05), run(images))[2])
    measured = images_per_second(prefix, network)
    assert batches == [(1, 16, 16, 3)] + [(32, 16, 16, 3)] * 5
    assert 0 < measured < 32 / 0.05
    assert images_per_second(prefix, network) == measured
    assert len(batches) == 6  # not measured again


def test_a_slow_network_is_measured_once(opened, monkeypatch):
    prefix, network = opened
    monkeypatch.setattr(throughput, "BUDGET_S", 0.0)
    runs = []
    predict = network.predict
    monkeypatch.setattr(network, "predict", lambda x: (runs.append(len(x)), predict(x))[1])
    assert math.isfinite(images_per_second(prefix, network))
    assert runs == [1, 32]


@pytest.mark.parametrize("folds", [0, 3])
def test_a_fit_reports_it_with_every_epoch_and_trains_the_same(tmp_path, folds):
    plain = dataclasses.replace(job(write_manifest(tmp_path, folds=folds), tmp_path), folds=folds)
    fits = [open_fit(dataclasses.replace(plain, measure_speed=asked)) for asked in (False, True)]
    silent, measured = ([], [])
    for _ in range(2):
        measured.append(fits[1].run_epoch())
    fit = open_fit(plain)
    for _ in range(2):
        silent.append(fit.run_epoch())
    assert all(math.isnan(e.images_per_s) for e in silent)
    assert len({e.images_per_s for e in measured}) == 1
    assert measured[0].images_per_s > 1
    assert [figures(e) for e in silent] == [figures(e) for e in measured]


def test_measuring_leaves_the_weights_alone(opened):
    prefix, network = opened
    network.reset(config(), 0)
    before = network.state()
    images_per_second(prefix, network)
    assert all(np.array_equal(a, b) for a, b in zip(before, network.state(), strict=True))
