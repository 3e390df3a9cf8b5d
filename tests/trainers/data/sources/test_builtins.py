"""Built-in data sets: lossless, rebuilt where missing, safe to build several times at once."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.photos_on_disk import RATIOS, error_of, source
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.data.manifest import Manifest
from trainers.data.sources.builtins import make_builtin


def test_builtin_digits_are_lossless_and_are_made_again_where_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.datasets import load_digits

    data = DataSource("builtin:digits", (0.7, 0.15, 0.15), tmp_path / "cache")
    manifest, report = build_manifest(data)
    assert (report.images, manifest.classes, report.near_duplicates) == (1797, tuple("0123456789"), ())
    assert manifest.root == (tmp_path / "cache" / "builtin" / "digits").resolve()
    pixels = np.asarray(Image.open(manifest.root / "0" / "0000.png"))
    assert np.array_equal(np.round(pixels * (16 / 255)), load_digits().images[0])
    manifest.write(tmp_path / "m.parquet")
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "other"))
    again = Manifest.read(tmp_path / "m.parquet")
    assert again.root == (tmp_path / "other" / "builtin" / "digits").resolve()
    assert all(p.is_file() for p in again.paths())
    assert again.fingerprint == manifest.fingerprint
    written = [hashlib.sha256(p.read_bytes()).hexdigest() for p in again.paths()[::50]]
    assert written == manifest.table["sha256"][::50].tolist()
    assert "no built-in data set 'builtin:letters'; known are builtin:digits" in error_of(source("builtin:letters"))


def test_builtin_may_be_made_by_several_at_once_and_heals_a_lost_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        roots = list(pool.map(lambda _: make_builtin("builtin:digits", tmp_path), range(3)))
    (roots[0] / "3" / "0003.png").unlink()
    make_builtin("builtin:digits", tmp_path)
    files = [p for p in roots[0].rglob("*") if p.is_file()]
    assert (len(set(roots)), len(files), {p.suffix for p in files}) == (1, 1797, {".png"})


def test_cache_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    data = DataSource("builtin:digits", RATIOS, tmp_path / "file")
    assert "cannot be written" in error_of(data)
