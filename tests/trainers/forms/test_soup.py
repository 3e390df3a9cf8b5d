"""The average of several networks' weights as a network of its own."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import tiny_fits
from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.forms import soup
from trainers.forms.soup import average, mean_of
from trainers.training.features import LabelledRows, fit_examples
from trainers.training.loop import open_fit, read_weights
from trainers.training.steps import prefix_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[FitJob]:
    """Two fits that start from the same weights, and one that does not."""
    folder = tmp_path_factory.mktemp("soup")
    manifest = tiny_fits.write_manifest(folder / "pictures")
    jobs = []
    for number, (seed, start) in enumerate([(0, 0), (1, 0), (1, None)]):
        job = tiny_fits.job(manifest, folder / "cache", seed, str(folder / f"fit-{number}"), batch_norm="adapted")
        job = dataclasses.replace(job, start_seed=start)
        fit = open_fit(job)
        fit.run_epoch()
        fit.finish()
        jobs.append(job)
    return jobs


def averaged(jobs: list[FitJob], output: Path) -> list[np.ndarray]:
    fit = dataclasses.replace(jobs[0], id="soup", output=str(output))
    job = {"fits": [each.output for each in jobs], "soup": fit.to_dict(), "threads": 1, "gpu_memory_share": 0.0}
    assert average(job) == {"ingredients": len(jobs)}
    written, weights = read_weights(output)
    assert (written.id, written.config, written.first_seed) == ("soup", jobs[0].config, 0)
    return weights


def test_weights_are_averaged_and_batch_norms_measured_anew(trained: list[FitJob], tmp_path: Path) -> None:
    both = [read_weights(Path(job.output))[1] for job in trained[:2]]
    found = averaged(trained[:2], tmp_path / "soup")
    different = [i for i, pair in enumerate(zip(found, mean_of(both), strict=True)) if not np.array_equal(*pair)]
    assert len(found) == 7  # a convolution, a batch norm of four, the head's two
    assert [found[i].shape for i in different] == [(64,), (64,)]
    assert not np.array_equal(both[0][0], both[1][0])


def test_batch_norms_of_a_soup_are_measured_as_inference_sees_photos(
    trained: list[FitJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[LabelledRows] = []
    monkeypatch.setattr(soup, "measure_norms", lambda network, train, seed, epoch: read.append(train))
    weights = tiny_fits.config(view="random_crop", batch_norm="adapted")
    fit = dataclasses.replace(trained[0], config=weights, id="soup", output="")
    soup._with_measured_norms(fit, read_weights(Path(trained[0].output))[1], "float32")
    centred = dataclasses.replace(fit, config=tiny_fits.config(view="centre_crop"))
    (expected, _) = fit_examples(centred, Manifest.read(Path(fit.manifest)), prefix_of(fit.config.prefix_key("none")))[
        0
    ]
    assert read[0].measured is not None
    places = np.arange(len(expected))
    np.testing.assert_array_equal(read[0].measured.take(places), expected.rows.take(places))


def test_a_soup_of_one_network_is_that_network(trained: list[FitJob], tmp_path: Path) -> None:
    (own,) = [read_weights(Path(job.output))[1] for job in trained[:1]]
    for mine, its in zip(averaged(trained[:1], tmp_path / "soup"), own, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_networks_of_different_starts_are_refused(trained: list[FitJob], tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="start from the same weights can be averaged"):
        averaged([trained[0], trained[2]], tmp_path / "soup")


def test_the_mean_is_taken_in_double_precision_and_kept_in_the_networks_own() -> None:
    ones = [[np.full(2, value, np.float32)] for value in (1.0, 2.0, 4.5)]
    (mean,) = mean_of(ones)
    assert mean.dtype == np.float32
    assert mean.tolist() == [2.5, 2.5]
    with pytest.raises(TrainerError, match="same shapes"):
        mean_of([[np.zeros(2)], [np.zeros(3)]])


def test_networks_are_not_held_together() -> None:
    read: list[int] = []

    def networks() -> Iterator[list[np.ndarray]]:
        for number in range(4):
            gc.collect()
            assert sum(reference() is not None for reference in held) <= 1  # the one before
            weights = np.full(4, number, np.float32)
            held.append(weakref.ref(weights))
            read.append(number)
            yield [weights]
            del weights

    held: list[weakref.ref[np.ndarray]] = []
    (mean,) = mean_of(networks())
    assert (mean.tolist(), read) == ([1.5] * 4, [0, 1, 2, 3])
