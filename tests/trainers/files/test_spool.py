"""Rows come back from the disk as they were added."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from trainers.errors import TrainerError
from trainers.files.spool import Records, Spool


def test_rows_are_taken_in_any_order() -> None:
    rows = np.random.default_rng(0).integers(0, 2**16, (50, 3, 4), np.uint16)
    with Spool((3, 4), np.uint16, rows) as spool:
        assert len(spool) == 50
        for positions in ([7, 0, 7, 49], [3, 4, 5, 9, 10, 0, 1], [5, 5, 6], [0], range(50)):
            assert np.array_equal(spool.take(list(positions)), rows[list(positions)])
        assert spool.take([]).shape == (0, 3, 4)
        spool.add(rows[0])
        assert np.array_equal(spool.take(np.array([50]))[0], rows[0])


def test_a_row_of_another_shape_is_refused() -> None:
    with (
        Spool((2,), np.uint8) as spool,
        pytest.raises(ValueError, match=r"a row has shape \(3,\); it must have \(2,\)"),
    ):
        spool.add(np.zeros(3, np.uint8))


def full(**where: Path) -> object:
    return open("/dev/full", "wb", buffering=0)


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with (
        Spool((2,), np.uint8) as spool,
        pytest.raises(TrainerError, match=r"temporary folder .* cannot be written .*or set TMPDIR to another"),
    ):
        spool.add(np.zeros(2, np.uint8))
    with (
        Records(tmp_path) as records,
        pytest.raises(TrainerError, match=r"cache folder .* cannot be written .*or set ORCH_CACHE to another"),
    ):
        records.add(b"12")


def test_what_is_in_the_buffer_when_the_disk_is_full_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "wb"))  # noqa: SIM115
    with Spool((2,), np.uint8, [np.zeros(2, np.uint8)]) as spool, pytest.raises(TrainerError, match="No space left"):
        spool.take([0])
    assert spool._file.closed


def test_without_any_folder_that_can_be_written_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(TrainerError, match="No such file or directory"):
        Spool((2,), np.uint8)
    with Spool((2,), np.uint8, [np.ones(2, np.uint8)], tmp_path / "cache") as spool:
        assert spool.take([0]).tolist() == [[1, 1]]
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_replaced_by_the_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Records(tmp_path / "file") as records:
        records.add(b"abc")
        assert records.take(0) == b"abc"


def test_records_of_any_length_come_back() -> None:
    contents = [b"", b"a", bytes(range(256)) * 9, b"z"]
    with Records() as records:
        for each in contents:
            records.add(each)
        assert [records.take(i) for i in (3, 1, 2, 0)] == [contents[i] for i in (3, 1, 2, 0)]
        assert len(records) == 4
