"""The `data` section as the trainers read it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec.data_source import data_source, photo_folders, refuse_among_photos
from orchestrator.spec.load import load_spec
from orchestrator.spec.sweep import SweepSpec
from tests.support.photos_on_disk import RATIOS, folder_of, source, split_rows, table_of
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource


def spec_of(**data: object) -> SweepSpec:
    values = {"name": "x", "search": {"dropout": 0}, "budget": {"trials": 1, "epochs": 1}}
    return SweepSpec.model_validate({**values, "data": {"source": "builtin:digits", **data}})


def test_every_field_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path))
    ratios = {"train": 0.5, "validation": 0.2, "test": 0.3}
    found = data_source(spec_of(splits=ratios, seed=7, duplicates="keep", folds=3, encoding="cp949"))
    assert found == DataSource(
        source="builtin:digits",
        splits=(0.5, 0.2, 0.3),
        seed=7,
        duplicates="keep",
        cache=tmp_path,
        folds=3,
        encoding="cp949",
    )


def test_an_earlier_manifest_is_handed_on_as_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = """name: x
data: {source: "builtin:digits", keep_splits: runs/old}
search: {dropout: 0}
budget: {trials: 1, epochs: 1}
"""
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SpecError, match="runs/old is no manifest and no sweep's folder that has one"):
        load_spec(tmp_path / "x.yaml")
    (tmp_path / "runs" / "old").mkdir(parents=True)
    (tmp_path / "runs" / "old" / "manifest.parquet").touch()
    assert data_source(load_spec(tmp_path / "x.yaml")).keep_splits == tmp_path / "runs" / "old"
    assert data_source(spec_of()).keep_splits is None


def test_splits_of_its_own_are_no_ratios() -> None:
    assert data_source(spec_of(source="split.csv", splits="own")).splits is None


def test_splits_that_are_left_out_are_decided_by_the_data() -> None:
    assert data_source(spec_of(source="split.csv")).splits == "auto"


def test_results_are_kept_out_of_the_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "link").symlink_to("photos")
    for out in ("photos", "photos/out", "photos/cat/a.png", "link/out", "runs/../photos/x"):
        with pytest.raises(
            SpecError, match=rf"--out: {out} lies in photos, the folder of the photos, .* --out .*/results/"
        ):
            refuse_among_photos("--out", Path(out), ["builtin:digits", "photos"])
    for out in ("out", "photos-2/out", "."):
        refuse_among_photos("--out", Path(out), ["photos", "photos.zip", "nothing"])


def test_the_folders_of_a_manifest_are_those_that_are_read_whole(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "outer" / "photos", a=6, b=6)
    table = table_of(tmp_path / "t", split_rows(tmp_path / "t"))
    archive = shutil.make_archive(str(tmp_path / "p"), "zip", root)
    for given, expected in ((root, {root}), (root.parent, {root, root.parent}), (table, set()), (Path(archive), set())):
        manifest, _ = build_manifest(source(given, RATIOS if given != table else None))
        assert {*photo_folders(manifest)} == expected, given
