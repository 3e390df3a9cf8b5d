"""A store that is filled before the fit: nothing is left to compute, and what was done is counted."""

from __future__ import annotations

import dataclasses
import errno
import os

import pytest

from tests.support.tiny_fits import job
from trainers.training.loop import open_fit
from trainers.training.prefill import fill


def test_what_a_fit_reads_is_there_afterwards(manifest, tmp_path):
    fit_job = job(manifest, tmp_path / "cache", multiplier=2)
    done = fill(fit_job.to_dict())
    assert done["what"] == "small_cnn at 16 px to conv_2_relu"
    assert (done["images"], done["features"], done["stored"]) == (75, 75, True)  # 60 to train on, 15 to be judged by
    assert done["bytes"] == 75 * (16 * 16 * 3 + 8 * 8 * 32 * 4)
    assert 0 < done["decode_s"] + done["prefix_s"] + done["waited_s"] <= done["seconds"]
    again = fill(fit_job.to_dict())
    assert [again[name] for name in ("images", "features", "bytes", "stored")] == [0, 0, 0, True]
    for photo in manifest.parent.rglob("*.png"):
        photo.rename(photo.with_suffix(".gone"))
    try:
        open_fit(fit_job).run_epoch()
    finally:
        for photo in manifest.parent.rglob("*.gone"):
            photo.rename(photo.with_suffix(".png"))


def test_where_nothing_is_frozen_the_images_are_decoded(manifest, tmp_path):
    done = fill(job(manifest, tmp_path / "cache", unfrozen_layers="all").to_dict())
    assert done["what"] == "images at 16 px"
    assert (done["images"], done["features"], done["stored"]) == (45, 0, True)


def test_without_sharing_no_features_are_kept(manifest, tmp_path):
    done = fill(dataclasses.replace(job(manifest, tmp_path / "cache"), share=False).to_dict())
    assert (done["images"], done["features"], done["stored"]) == (45, 0, False)
    assert not (tmp_path / "cache" / "features").exists()


def test_a_cache_that_may_not_be_written_costs_time_and_no_trial(manifest, tmp_path, monkeypatch):
    losses = [open_fit(job(manifest, tmp_path / "other", multiplier=2)).run_epoch().loss]

    def refuse(*args: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("trainers.store.shelf.bucket_lock", refuse)
    fit_job = job(manifest, tmp_path / "cache", multiplier=2)
    done = fill(fit_job.to_dict())
    assert (done["stored"], done["share"], done["bytes"]) == (False, True, 0)
    assert (
        "cannot be used (Permission denied); free space on its disk, check that you have write permission"
        in done["refused"]
    )
    losses.append(open_fit(fit_job).run_epoch().loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
