"""The index of shelves: where a configuration's rows are without building its backbone, and when it must not say."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.places import ROOT
from tests.support.tiny_fits import config, figures, job, write_manifest
from trainers.config import PrefixKey
from trainers.data.manifest import Manifest
from trainers.files import atomic
from trainers.networks import backbone, prefix_index
from trainers.networks.backbone import build_backbone
from trainers.networks.prefix_index import find, recall
from trainers.training import steps
from trainers.training.examples import example_sets, keys_by_view
from trainers.training.loop import open_fit
from trainers.training.prefill import fill

KEY = PrefixKey("small_cnn", 16, 0, weights="none")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def forgotten():
    """As in a new process: no prefix and no network is kept."""

    def forget() -> None:
        steps._prefixes.clear()
        steps._networks.clear()
        backbone._cached.cache_clear()

    forget()
    yield forget
    forget()


def test_folded_copies_are_kept_up_to_so_many_bytes(forgotten, monkeypatch):
    """The last used stays, and its trace with it, whatever it takes; an unbuilt one takes nothing."""
    pixels = np.zeros((1, 16, 16, 3), np.uint8)
    asked = [config(unfrozen_layers=n).prefix_key("none") for n in (0, 3, 6)]

    def use(key: PrefixKey) -> steps.Prefix:
        opened = steps.prefix_of(key)
        opened(pixels)
        return opened

    whole = use(asked[0]).copied_bytes
    assert whole == 4 * sum(9 * a * b + b for a, b in ((3, 16), (16, 32), (32, 64)))
    monkeypatch.setattr(steps, "MAX_COPIED_BYTES", whole + 10)
    assert use(asked[0]) is use(asked[0])
    use(asked[1])
    assert len(steps._prefixes) == 2
    used = use(asked[2])
    assert steps.prefix_of(asked[2]) is used
    assert [prefix.key.unfrozen_layers for prefix in steps._prefixes.values()] == [3, 6]
    monkeypatch.setattr(steps, "MAX_COPIED_BYTES", 0)
    assert steps.prefix_of(asked[2]) is used
    assert len(steps._prefixes) == 1


@pytest.mark.parametrize("unfrozen", [0, 3, 5])
@pytest.mark.parametrize("store_dtype", ["float32", "float16"])
def test_what_was_filled_is_found(manifest, tmp_path, forgotten, unfrozen, store_dtype):
    fit_job = dataclasses.replace(job(manifest, tmp_path, unfrozen_layers=unfrozen), store_dtype=store_dtype)
    assert find(tmp_path, fit_job.config, "none", store_dtype=store_dtype) is None
    fill(fit_job.to_dict())
    known = find(tmp_path, fit_job.config, "none", store_dtype=store_dtype)
    assert known is not None
    assert known.kind == "features"
    rows = open_fit(fit_job).train.rows
    assert (known.row_shape, known.dtype) == (rows.shape, str(rows.dtype))
    assert known.folder.is_dir()
    [(view, keys)] = keys_by_view(example_sets(fit_job, Manifest.read(manifest)), fit_job.config.recipe).items()
    assert view == "squash"
    assert known.shelf(tmp_path).count(keys) == len(keys) == 45


def test_images_need_no_note(tmp_path):
    known = find(tmp_path, config(unfrozen_layers="all"), "none")
    assert (known.kind, known.row_shape, known.dtype, known.layer) == ("images", (16, 16, 3), "uint8", "")
    assert find(tmp_path, config(unfrozen_layers=0, mixup=0.2), "none") == known


def test_a_head_on_stored_features_never_builds_the_backbone(manifest, tmp_path, forgotten, monkeypatch):
    fit_job = job(manifest, tmp_path, unfrozen_layers=0)
    expected = figures(open_fit(fit_job).run_epoch())
    forgotten()

    def refuse(*args, **kwargs):
        raise AssertionError("the backbone was built")

    with monkeypatch.context() as patched:
        patched.setattr(backbone, "build_backbone", refuse)
        assert fill(fit_job.to_dict())["features"] == 0
        assert figures(open_fit(fit_job).run_epoch()) == expected
    more = dataclasses.replace(fit_job, config=config(unfrozen_layers=0, multiplier=2))
    assert fill(more.to_dict())["features"] == 30  # and builds it where rows are missing


def test_other_weights_under_an_old_name_are_not_answered_from_the_index(tmp_path, forgotten):
    asked = dataclasses.replace(KEY, weights=str(tmp_path / "some.weights.h5"))
    for seed in (1, 2):
        build_backbone("small_cnn", "none", 16, seed=seed).save_weights(asked.weights)
        os.utime(asked.weights, ns=(seed, seed))
        assert recall(tmp_path / "cache", asked) is None
        steps.prefix_of(asked).note(tmp_path / "cache")
        forgotten()
        assert recall(tmp_path / "cache", asked) is not None


def test_a_file_that_changed_after_it_was_read_is_not_noted(tmp_path, forgotten):
    file = tmp_path / "some.weights.h5"
    build_backbone("small_cnn", "none", 16, seed=1).save_weights(file)
    opened = steps.prefix_of(dataclasses.replace(KEY, weights=str(file)))
    os.utime(file, ns=(5, 5))
    opened.note(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("change", ["keras", "code", "torn"])
def test_a_note_of_another_time_is_none(tmp_path, forgotten, monkeypatch, change):
    steps.prefix_of(KEY).note(tmp_path)
    assert recall(tmp_path, KEY).layer == "conv_3_relu"
    if change == "keras":
        monkeypatch.setattr(prefix_index.importlib.metadata, "version", lambda name: "0.1")
    elif change == "code":
        monkeypatch.setattr(prefix_index, "_code", lambda: "other")
    else:
        [file] = (tmp_path / "index").iterdir()
        file.write_text(file.read_text()[:-9])
    assert recall(tmp_path, KEY) is None


def test_a_note_that_cannot_be_written_or_read_is_none(manifest, tmp_path, forgotten):
    """As where the cache is shared and one may only read it, or its disk is full."""
    (tmp_path / "index").write_text("in the way")
    fit_job = job(manifest, tmp_path, unfrozen_layers=0)
    assert fill(fit_job.to_dict())["stored"]
    forgotten()
    assert fill(fit_job.to_dict())["features"] == 0
    assert find(tmp_path, fit_job.config, "none") is None


def test_a_note_half_written_is_removed(tmp_path, forgotten, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "replace", refuse)
    steps.prefix_of(KEY).note(tmp_path)
    assert list((tmp_path / "index").iterdir()) == []


def test_a_backbone_of_the_users_own_is_never_noted(manifest, tmp_path, forgotten):
    fit_job = job(manifest, tmp_path, backbone="tests.support.tiny_fits:RESIDUAL", unfrozen_layers=0)
    fill(fit_job.to_dict())
    assert find(tmp_path, fit_job.config, "none") is None
    assert not (tmp_path / "index").exists()


def test_the_index_is_read_without_tensorflow():
    modules = "trainers.networks.prefix_index, trainers.training.examples"
    code = f"import sys, {modules}; print({{'tensorflow', 'keras'}} & {{*sys.modules}})"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "set()"


def test_the_key_of_a_configuration_names_its_prefix():
    assert config(unfrozen_layers=0).prefix_key("none") == KEY
    assert np.prod(steps.prefix_of(KEY).spec.shape[1:]) == 64
