"""Rows come back from the disk as they were added."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest

from trainers.errors import TrainerError
from trainers.files.spool import Spool


def test_rows_are_taken_in_any_order() -> None:
    rows = np.random.default_rng(0).integers(0, 2**16, (50, 3, 4), np.uint16)
    with Spool((3, 4), np.uint16, rows) as spool:
        assert len(spool) == 50
        assert np.array_equal(spool.take([7, 0, 7, 49]), rows[[7, 0, 7, 49]])
        assert spool.take([]).shape == (0, 3, 4)
        spool.add(rows[0])
        assert np.array_equal(spool.take(np.array([50]))[0], rows[0])


def test_a_row_of_another_shape_is_refused() -> None:
    with (
        Spool((2,), np.uint8) as spool,
        pytest.raises(ValueError, match=r"a row has shape \(3,\); it must have \(2,\)"),
    ):
        spool.add(np.zeros(3, np.uint8))


def test_a_full_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "wb", buffering=0))  # noqa: SIM115
    with (
        Spool((2,), np.uint8) as spool,
        pytest.raises(TrainerError, match=r"cannot be written .*or set TMPDIR to another"),
    ):
        spool.add(np.zeros(2, np.uint8))
