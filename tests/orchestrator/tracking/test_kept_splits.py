"""Which earlier manifest's splits a sweep keeps, and that every verb asks the same place."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from orchestrator.cli.data import _data_source
from orchestrator.ledger import kept
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths, data_folder
from orchestrator.spec.load import load_spec
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.data import prepare_data
from orchestrator.sweep.open import open_existing, open_new
from orchestrator.tracking import kept_splits
from orchestrator.tracking.kept_splits import RECORD, source_of, source_of_photos
from tests.support.places import ROOT
from tests.support.printed_lines import PrintedLines
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.data.manifest import Manifest

FILE = """name: grown
data: {{source: {root}, {data}}}
search: {{dropout: 0}}
budget: {{trials: 1, epochs: 1}}
tracking: {{{tracking}}}
"""
Sweep = Callable[..., Path]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a person with two classes of 20 photos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    add(tmp_path / "photos", 20)
    return tmp_path / "photos"


def add(root: Path, count: int, begin: int = 0) -> None:
    for label in ("a", "b"):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(begin, begin + count):
            random = np.random.default_rng((len(label) + ord(label), i))
            pixels = np.kron(random.integers(0, 256, (6, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")


def file(root: Path, data: str = "seed: 0", tracking: str = "enabled: false") -> str:
    path = root.parent / "file.yaml"
    path.write_text(FILE.format(root=root, data=data, tracking=tracking))
    return str(path)


def divided(path: str, out: str, printed: PrintedLines | None = None) -> Manifest:
    """The manifest of a new sweep in ``out``."""
    opened = open_new(load_spec(path), Path(out), fresh=False)
    with Ledger(opened.paths.ledger) as ledger:
        return prepare_data(SweepContext(opened.paths, opened.spec, ledger, (printed or PrintedLines()).on_event))


def moved(before: Manifest, after: Manifest) -> int:
    """How many photos of ``before`` are in another split in ``after``."""
    both = pd.merge(before.table, after.table, on="sha256")
    assert len(both) == len(before.table)
    return int((both["split_x"] != both["split_y"]).sum())


def turned(manifest: Manifest, folder: Path) -> Manifest:
    """Give the sweep in ``folder`` splits that no hash gives, as an earlier version of orch may have."""
    others = {"train": "validation", "validation": "test", "test": "train"}
    turned = Manifest(
        manifest.root, manifest.classes, 0, manifest.table.assign(split=manifest.table["split"].map(others))
    )
    with Ledger(SweepPaths(folder).ledger) as ledger:
        turned.write(SweepPaths(folder).manifest)
        SweepContext(SweepPaths(folder), load_spec(str(folder / "spec.yaml")), ledger, print).keep(
            [SweepPaths(folder).manifest]
        )
    return turned


def test_the_next_sweep_keeps_the_splits_of_the_newest_one_and_says_so(photos: Path) -> None:
    first = turned(divided(file(photos), "runs/first"), Path("runs/first"))
    add(photos, 3, begin=20)
    printed = PrintedLines()
    second = divided(file(photos), "runs/second", printed)
    assert moved(first, second) == 0
    line = "40 of 46 images keep their splits of runs/first, 6 are new; data.keep_splits: none divides all anew"
    assert f"splits   {line}" in printed.lines
    assert f"splits: {line}" in SweepPaths(Path("runs/second")).data_report.read_text()
    assert source_of(load_spec(file(photos))).keep_splits == Path("runs/second")


def test_it_can_be_switched_off_and_a_path_comes_first(photos: Path) -> None:
    first = turned(divided(file(photos), "runs/first"), Path("runs/first"))
    anew = divided(file(photos, "keep_splits: none"), "runs/anew")
    assert moved(first, anew) > 20
    assert source_of(load_spec(file(photos))).keep_splits == Path("runs/anew")
    named = divided(file(photos, "keep_splits: runs/first"), "runs/named")
    assert moved(first, named) == 0


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("seed: 1", "data.seed"),
        ("splits: {train: 0.6, validation: 0.2, test: 0.2}", "data.splits"),
        ("duplicates: keep", "data.duplicates"),
    ],
)
def test_a_file_that_states_another_division_gets_it(photos: Path, data: str, what: str) -> None:
    turned(divided(file(photos), "runs/first"), Path("runs/first"))
    other = load_spec(file(photos, data))
    found = source_of(other)
    assert found.keep_splits is None
    (note,) = found.split_notes
    assert note.startswith(f"those of runs/first are not kept, because its {what} is another one; to keep them, set")
    divided(file(photos, data), "runs/other")
    assert source_of(load_spec(file(photos))).keep_splits == Path("runs/first")
    assert source_of(load_spec(file(photos, "splits: {train: 0.7, validation: 0.15, test: 0.15}"))).keep_splits


def test_a_damaged_manifest_is_passed_over_with_a_sentence(photos: Path) -> None:
    divided(file(photos), "runs/first")
    divided(file(photos), "runs/second")
    path = SweepPaths(Path("runs/second")).manifest
    path.write_bytes(path.read_bytes()[:-9])
    found = source_of(load_spec(file(photos)))
    assert found.keep_splits == Path("runs/first")
    assert found.split_notes == ("those of runs/second are not kept, because its manifest is damaged or missing",)
    _, report = build_manifest(found)
    assert report.kept[0] == found.split_notes[0]
    assert report.kept[1].startswith("40 of 40 images keep their splits of runs/first; ")
    path.unlink()
    assert source_of(load_spec(file(photos))).keep_splits == Path("runs/first")


def test_only_the_manifest_that_is_kept_is_compared_with_its_checksum(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second", "third"):
        divided(file(photos), f"runs/{name}")
    read: list[Path] = []
    whole = kept.sha256_of
    monkeypatch.setattr(kept, "sha256_of", lambda path: read.append(path) or whole(path))
    assert source_of(load_spec(file(photos))).keep_splits == Path("runs/third")
    assert [path for path in read if path.name == "manifest.parquet"] == [Path("runs/third/manifest.parquet").resolve()]


def test_copies_that_were_torn_by_duplicates_keep_are_mended_by_duplicates_group(photos: Path) -> None:
    for i in range(15):
        with Image.open(photos / "a" / f"{i}.png") as photo:
            photo.resize((192, 192), Image.Resampling.BICUBIC).save(photos / "a" / f"{i}_again.png")

    def torn(manifest: Manifest) -> int:
        table = manifest.table[manifest.table["label"] == "a"]
        names = table["path"].str.replace("_again", "")
        return int((table["split"].groupby(names).nunique() > 1).sum())

    assert torn(divided(file(photos, "duplicates: keep"), "runs/first")) > 0
    assert torn(divided(file(photos), "runs/second")) == 0
    assert source_of(load_spec(file(photos, "duplicates: drop"))).keep_splits == Path("runs/second")
    assert source_of(load_spec(file(photos, "duplicates: keep"))).keep_splits == Path("runs/first")


def made_again(spec: str, sweep: str) -> Manifest:
    """The manifest of a resumed sweep that has lost it."""
    paths = SweepPaths(Path(sweep))
    paths.manifest.unlink()
    opened = open_existing(paths.root, spec, (), None)
    with Ledger(paths.ledger) as ledger:
        return prepare_data(SweepContext(paths, opened.spec, ledger, print))


def test_a_sweep_of_what_is_left_of_the_photos_is_divided_anew_and_resumes_as_it_was(photos: Path) -> None:
    first = divided(file(photos), "runs/first").table
    for path in first["path"][first["split"] != "train"]:
        (photos / path).unlink()
    printed = PrintedLines()
    second = divided(file(photos), "runs/second", printed)
    assert set(second.table["split"]) == {"train", "validation", "test"}
    assert any("would leave no image in validation and test, so all are divided anew" in line for line in printed.lines)
    again = made_again(file(photos), "runs/second")
    assert again.fingerprint == second.fingerprint


def test_only_as_many_ledgers_are_read_as_are_needed(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    divided(file(photos), "runs/first")
    divided(file(photos, "seed: 1"), "runs/other")
    for i in range(8):
        shutil.copytree("runs/other", f"runs/other{i}")
        SweepPaths(Path(f"runs/other{i}")).manifest.touch()
    read: list[str] = []
    whole = kept_splits.read_sweep
    monkeypatch.setattr(kept_splits, "read_sweep", lambda folder: read.append(folder.name) or whole(folder))
    assert source_of(load_spec(file(photos, "seed: 1"))).keep_splits == Path("runs/other7")
    assert read == ["other7"]
    read.clear()
    assert source_of(load_spec(file(photos))).keep_splits == Path("runs/first")
    assert read == ["other7", "first"]


def test_the_newest_is_the_one_whose_manifest_is_and_not_whose_ledger_is(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divided(file(photos), "runs/first")
    divided(file(photos), "runs/second")
    with Ledger(SweepPaths(Path("runs/first")).ledger) as ledger:
        ledger.append(EventKind.NOTE, payload={"later": True})
    assert source_of(load_spec(file(photos))).keep_splits == Path("runs/second")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another"))
    assert source_of(load_spec(file(photos))).keep_splits == Path("runs/second")


def test_a_sweep_in_runs_of_another_store_is_passed_over(photos: Path, tmp_path: Path) -> None:
    divided(file(photos, tracking="uri: 'http://there:1', enabled: false"), "runs/there")
    for record in (tmp_path / "home" / "orch" / RECORD, None):
        assert source_of(load_spec(file(photos))).keep_splits is None
        assert source_of(load_spec(file(photos, tracking="uri: 'http://there:1'"))).keep_splits == Path("runs/there")
        if record:
            record.unlink()


def test_a_sweep_of_the_same_folder_comes_before_a_newer_one_of_another(photos: Path, tmp_path: Path) -> None:
    """Both folders are named photos, so both models are."""
    cats, dogs = tmp_path / "cats" / "photos", tmp_path / "dogs" / "photos"
    add(cats, 20)
    add(dogs, 20, begin=100)
    first = divided(file(cats), "runs/cats")
    found = source_of(load_spec(file(dogs)))
    assert found.keep_splits == Path("runs/cats")  # as the folder of the photos may have moved
    assert build_manifest(found)[1].kept == (
        "none of 40 images is in runs/cats, the earlier sweep of this model, so all are divided anew; to keep those of "
        "another sweep, set data.keep_splits to its folder",
    )
    divided(file(dogs), "runs/dogs")
    add(cats, 3, begin=20)
    grown = source_of(load_spec(file(cats)))
    assert grown.keep_splits == Path("runs/cats")
    manifest, report = build_manifest(grown)
    assert report.kept[0].startswith("40 of 46 images keep their splits of runs/cats, 6 are new; ")
    assert moved(first, manifest) == 0
    (tmp_path / "link").symlink_to(tmp_path / "cats")
    assert source_of_photos(
        replace(grown, source=str(tmp_path / "link" / "photos"), keep_splits=None)
    ).keep_splits == Path("runs/cats")
    add(tmp_path / "photos", 1, begin=50)
    assert source_of(load_spec(file(photos))).keep_splits == Path("runs/dogs")


def test_another_model_or_store_is_another_history(photos: Path, tmp_path: Path) -> None:
    divided(file(photos), "elsewhere/first")
    assert source_of(load_spec(file(photos))).keep_splits == Path("elsewhere/first")
    assert source_of(load_spec(file(photos, tracking="model: other"))).keep_splits is None
    assert source_of(load_spec(file(photos, tracking="uri: 'http://there:1'"))).keep_splits is None
    (tmp_path / "home" / "orch" / RECORD).unlink()
    assert source_of(load_spec(file(photos))).keep_splits is None


def test_lines_of_the_record_that_are_not_whole_are_skipped(photos: Path) -> None:
    divided(file(photos), "elsewhere/first")
    folder = data_folder()
    assert folder is not None
    with open(folder / RECORD, "a") as record:
        record.write('{"model": 3}\nno json\n[]\n{"model": "pho')
    assert source_of(load_spec(file(photos))).keep_splits == Path("elsewhere/first")


def test_no_home_and_no_runs_is_no_history(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/dev/null/none")
    divided(file(photos), "elsewhere/first")
    assert source_of(load_spec(file(photos))).keep_splits is None


def test_resuming_keeps_what_was_kept_first(photos: Path) -> None:
    """The manifest is made again, after a sweep that is newer than the one it was made from."""
    first = turned(divided(file(photos), "runs/first"), Path("runs/first"))
    second = divided(file(photos), "runs/second")
    divided(file(photos, "keep_splits: none"), "runs/third")
    again = made_again(file(photos), "runs/second")
    assert again.fingerprint == second.fingerprint
    assert moved(first, again) == 0


def test_a_sweep_from_before_is_resumed_as_it_was(photos: Path) -> None:
    """Its file holds ``keep_splits: ''``, and its ledger does not say what was kept."""
    divided(file(photos, "keep_splits: ''"), "runs/old")
    assert open_existing(Path("runs/old"), file(photos), (), None).spec.data.keep_splits == ""


def test_every_verb_reads_the_same_splits(photos: Path) -> None:
    """``orch data check`` of the photos and of the file, and a sweep; no other module builds a source of its own."""
    turned(divided(file(photos), "runs/first"), Path("runs/first"))
    sources = [_data_source([str(photos)], "auto", True), _data_source([file(photos)], "auto", True)]
    sources.append(source_of(load_spec(file(photos))))
    fingerprints = {build_manifest(source)[0].fingerprint for source in sources}
    assert fingerprints == {divided(file(photos), "runs/second").fingerprint}
    callers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "orchestrator").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "data_source"
    }
    assert callers == {"orchestrator/tracking/kept_splits.py", "orchestrator/sweep/data.py"}


def test_built_in_photos_have_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = file(tmp_path / "photos").replace(str(tmp_path / "photos"), "builtin:digits")
    Path(path).write_text(Path(path).read_text().replace(str(tmp_path / "photos"), "builtin:digits"))
    found = source_of(load_spec(path))
    assert isinstance(found, DataSource)
    assert (found.keep_splits, found.split_notes) == (None, ())
