"""Every combination of the options of the loop: the same job gives the same metrics, and none ends in NaN."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import pytest

from tests.support.tiny_fits import figures, job
from trainers.config import BATCH_NORMS, LOSSES
from trainers.heads import HEADS
from trainers.training.loop import open_fit

SMALL_NETWORKS = {
    "output stride": {"backbone": "mobilenet_0.25", "image_size": 64, "unfrozen_layers": 8, "output_stride": 16},
    "batch norm and dropout inside": {"backbone": "efficientnet_b0", "image_size": 32, "unfrozen_layers": 30},
}
OPTIONS = {
    "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1.0},
    "both": {"mixup": 0.4, "cutmix": 1.0, "dropout": 0.3, "hidden": 8},
    "sampling": {"balance": "sampling", "batch_size": 7},
    "class weights": {"balance": "class_weights"},
    "copies and sampling": {"balance": "sampling", "multiplier": 1.5},
    "equal steps": {"multiplier": 2.0, "copies": "proportional", "steps": "originals", "batch_size": 7},
    "concat": {"feature_fusion": "concat"},
    "sum": {"feature_fusion": "sum", "dropout": 0.3},
    "sum, all frozen": {"feature_fusion": "sum", "unfrozen_layers": 0},
    "concat, mixed": {"feature_fusion": "concat", "mixup": 0.4, "unfrozen_layers": 0},
    **{f"batch norms {mode}": {"batch_norm": mode} for mode in BATCH_NORMS[1:]},
    "batch norms measured, mixed": {"batch_norm": "measured", "mixup": 0.4, "unfrozen_layers": "all"},
    "graded": {"bottom_rate": 0.1, "unfrozen_layers": "all", "weight_decay": 0.01},
    "average": {"ema": 0.9, "batch_norm": "measured", "unfrozen_layers": "all", "optimizer": "sgd"},
    "head first": {"warm_head": 2, "hidden": 8, "dropout": 0.2},
    "head first, mixed": {"warm_head": 1, "unfrozen_layers": "all", "mixup": 0.4, "ema": 0.9, "multiplier": 1.5},
    "accumulated": {"accumulation_steps": 3, "batch_norm": "adapted", "dropout": 0.3, "hidden": 8},
    "fresh copies": {"draws": "fresh", "multiplier": 2.0, "unfrozen_layers": "all", "recipe": "contest"},
    "fresh crops, mixed": {"draws": "fresh", "view": "random_crop", "cutmix": 1.0, "multiplier": 1.5},
    "margin grows": {"head": "sphereface", "margin": 3.0, "margin_warmup": 0.5},
    **{f"head {name}": {"head": name, "dropout": 0.2} for name in HEADS},
}


def check_an_interrupted_fit_resumes(manifest: Path, cache: Path, folder: Path, values: dict) -> None:
    """Three epochs at once are two, a save, another fit, a restore in a new fit, and one more."""
    fit_job = job(manifest, cache, seed=3, **values)
    whole = open_fit(fit_job)
    expected = [figures(whole.run_epoch()) for _ in range(3)]
    assert len({epoch["loss"] for epoch in expected}) == 3
    assert all(math.isfinite(value) for epoch in expected for value in epoch.values())
    first = open_fit(fit_job)
    seen = [figures(first.run_epoch()) for _ in range(2)]
    first.save(folder)
    open_fit(dataclasses.replace(fit_job, seed=4)).run_epoch()
    resumed = open_fit(fit_job)
    resumed.restore(folder)
    assert [*seen, figures(resumed.run_epoch())] == expected


@pytest.mark.parametrize("name", OPTIONS)
def test_an_interrupted_fit_resumes_as_if_it_had_not_been(manifest, cache, tmp_path, name):
    check_an_interrupted_fit_resumes(manifest, cache, tmp_path, OPTIONS[name])


def test_there_were_thirty_options():
    assert len(OPTIONS) == 11 + 12 + len(HEADS) == 30


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_an_interrupted_fit_of_a_real_backbone_resumes(manifest, cache, tmp_path, name):
    check_an_interrupted_fit_resumes(manifest, cache, tmp_path, SMALL_NETWORKS[name])


MIXINGS = ({}, {"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0})
BALANCES = ("none", "class_weights", "sampling")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_combination_trains_an_epoch(manifest, cache, precision, loss):
    seen = 0
    for head, mixing, balance in itertools.product(HEADS, MIXINGS, BALANCES):
        values = {"loss": loss, "head": head, "balance": balance, "multiplier": 1.5, "smoothing": 0.1, **mixing}
        fit = open_fit(dataclasses.replace(job(manifest, cache, **values), precision=precision))
        metrics = figures(fit.run_epoch())
        assert all(math.isfinite(v) for v in metrics.values()), values
        fit.check()
        seen += 1
    assert seen == len(HEADS) * 4 * 3 == 84
