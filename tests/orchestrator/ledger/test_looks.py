"""Looks at a test split are counted across sweeps, by the photos in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.ledger import looks, user_record
from orchestrator.ledger.folder import read_sweep
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.looks import TEST, Looks, looks_at, record_look
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from tests.support.tiny_fits import write_manifest
from trainers.data.manifest import Manifest


@pytest.fixture(autouse=True)
def own_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def look(root: Path, test: str, stage: str = "leaderboard", **payload: int) -> SweepPaths:
    """A sweep, new or not, that reads its test split once more, and records it as the stage does."""
    paths = SweepPaths(root)
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING", payload={"name": root.name})
        ledger.append(
            EventKind.STAGE, stage=stage, state="BEGUN", payload=(payload or {"reads_test": 1}) | {TEST: test}
        )
        if not payload and stage == "leaderboard":
            record_look(paths, ledger.events(), test)
    return paths


def counted(paths: SweepPaths) -> tuple[int, int]:
    found = looks_at(read_sweep(paths.root))
    return found.reads, found.sweeps


def test_sweeps_of_the_same_test_photos_count_together(tmp_path: Path) -> None:
    first = look(tmp_path / "runs" / "a", "t1")
    assert counted(first) == (1, 1)
    assert looks_at(read_sweep(first.root)).sentence() == ""
    look(tmp_path / "runs" / "b", "t1")
    look(tmp_path / "runs" / "c", "t2")
    assert counted(first) == (2, 2)
    look(first.root, "t1")
    assert counted(first) == (3, 2)
    assert "this test split was read 3 times by 2 sweeps; each further" in looks_at(read_sweep(first.root)).sentence()


def test_exports_and_repaired_probabilities_are_no_looks(tmp_path: Path) -> None:
    paths = look(tmp_path / "runs" / "a", "t1")
    look(paths.root, "t1", stage="export", reads_test=1)
    look(paths.root, "t1", repeats_test=2)
    assert counted(paths) == (1, 1)


def test_deleted_and_moved_sweeps_and_those_of_other_folders_count(tmp_path: Path) -> None:
    gone = look(tmp_path / "runs" / "gone", "t1")
    shutil.rmtree(gone.root)
    look(tmp_path / "elsewhere" / "b", "t1")
    here = look(tmp_path / "runs" / "here", "t1")
    assert counted(here) == (3, 3)
    here.root.rename(tmp_path / "runs" / "renamed")
    assert counted(SweepPaths(tmp_path / "runs" / "renamed")) == (3, 3)


def test_without_the_users_file_the_sweeps_next_to_it_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a home of its own, or with none."""
    monkeypatch.setattr(user_record, "data_folder", lambda: None)
    look(tmp_path / "runs" / "a", "t1")
    assert counted(look(tmp_path / "runs" / "b", "t1")) == (2, 2)


def test_a_home_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert counted(look(tmp_path / "runs" / "a", "t1")) == (1, 1)


def test_sweeps_from_before_count_by_their_manifests(tmp_path: Path) -> None:
    made = write_manifest(tmp_path / "pictures", {"train": 2, "test": 2})
    old = [SweepPaths(tmp_path / "runs" / name) for name in ("old", "older")]
    for paths in old:
        with Ledger(paths.ledger) as ledger:
            ledger.append(EventKind.SWEEP, state="RUNNING", payload={"name": paths.name})
            ledger.append(EventKind.STAGE, stage="leaderboard", state="BEGUN", payload={"reads_test": 1})
        shutil.copy(made, paths.manifest)
    test = looks.fingerprint_of_test(Manifest.read(made).split("test").table["sha256"])
    assert counted(look(tmp_path / "runs" / "new", test)) == (3, 3)
    assert counted(old[0]) == (3, 3)


def test_torn_lines_and_other_programs_lines_are_skipped(tmp_path: Path) -> None:
    paths = look(tmp_path / "runs" / "a", "t1")
    record = tmp_path / "data" / "orch" / looks.RECORD
    with record.open("a") as file:
        file.write('{"test": "t1", "sweep\n[]\n{"other": 1}\n')
    assert counted(look(paths.root, "t1")) == (2, 1)
    assert os.stat(record).st_mode & 0o077 == 0


def test_one_sweep_is_not_called_sweeps() -> None:
    assert "read 2 times by this sweep;" in Looks(2, 1).sentence()
    assert Looks(0, 0).sentence() == ""


def test_lines_of_another_make_in_the_users_file_are_skipped(tmp_path: Path) -> None:
    paths = look(tmp_path / "runs" / "a", "t")
    record = next((tmp_path / "data").rglob("*.jsonl"))
    record.write_bytes(b'\xff\xfe\n{"test": "t", "sweep": [1], "folder": "x", "time_s": 1}\n' + record.read_bytes())
    assert counted(paths) == (1, 1)


def hashes(begin: int, end: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(begin, end)]


def look_at_photos(root: Path, photos: list[str]) -> SweepPaths:
    """A sweep that reads a test split of ``photos``, and keeps its manifest."""
    paths = SweepPaths(root)
    root.mkdir(parents=True)
    table = pd.DataFrame({"sha256": [*photos, "trained"], "split": ["test"] * len(photos) + ["train"]})
    table.to_parquet(paths.manifest)
    return look(root, looks.fingerprint_of_test(photos))


def test_looks_at_a_split_that_has_grown_count(tmp_path: Path) -> None:
    first = look_at_photos(tmp_path / "runs" / "a", hashes(0, 100))
    second = look_at_photos(tmp_path / "elsewhere" / "b", hashes(0, 101))
    look_at_photos(tmp_path / "runs" / "unrelated", hashes(200, 300))
    look_at_photos(tmp_path / "runs" / "less", hashes(60, 160))
    for paths in (first, second):
        found = looks_at(read_sweep(paths.root))
        assert (found.reads, found.sweeps, found.in_part) == (2, 2, True)
        assert found.sentence().startswith("this test split was read 2 times, at least in part, by 2 sweeps; each ")
    shutil.rmtree(second.root)
    assert counted(first) == (2, 2)
    first.manifest.unlink()
    assert counted(first) == (2, 2)


def test_looks_at_a_split_that_has_grown_count_by_the_sweeps_next_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_record, "data_folder", lambda: None)
    first = look_at_photos(tmp_path / "runs" / "a", hashes(0, 100))
    look_at_photos(tmp_path / "runs" / "b", hashes(0, 101))
    look_at_photos(tmp_path / "runs" / "c", hashes(200, 300))
    assert counted(first) == (2, 2)


def test_a_look_on_record_without_photos_counts_by_its_fingerprint(tmp_path: Path) -> None:
    first = look_at_photos(tmp_path / "runs" / "a", hashes(0, 100))
    same = looks.fingerprint_of_test(hashes(0, 100))
    record = tmp_path / "data" / "orch" / looks.RECORD
    for test in (same, looks.fingerprint_of_test(hashes(0, 101))):
        line = {"test": test, "sweep": test[:12], "folder": "/gone", "time_s": 1.0}
        with record.open("a") as file:
            file.write(json.dumps(line) + "\n")
    assert counted(first) == (2, 2)
    assert not looks_at(read_sweep(first.root)).in_part


def test_the_photos_of_a_large_split_are_recorded_in_part_and_overlaps_are_known_all_the_same(tmp_path: Path) -> None:
    look_at_photos(tmp_path / "runs" / "a", hashes(0, 20_000))
    record = tmp_path / "data" / "orch" / looks.RECORD
    assert record.stat().st_size < 25_000
    (line,) = looks._recorded()
    for begin, end, share in ((0, 20_000, 1.0), (0, 22_000, 1 / 1.1), (12_000, 32_000, 0.4), (8_000, 28_000, 0.6)):
        asked = {text[:16] for text in hashes(begin, end)}
        assert looks.shared_photos(asked, line.photos) == pytest.approx(share, abs=0.05)
    assert looks.shared_photos({"a", "b"}, ["b", "c"]) == 0.5
    assert looks.shared_photos(set(), ["b"]) == looks.shared_photos({"a"}, ()) == 0.0
