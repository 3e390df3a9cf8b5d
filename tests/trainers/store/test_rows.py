"""Rows in use: read-only, verified, repaired if damaged. Real files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from tests.support.number_rows import Numbers, everything, keys_in, keys_of
from trainers.errors import TrainerError
from trainers.store.shelf import Shelf


def test_rows_are_read_only_copies(tmp_path):
    rows = Shelf(tmp_path, "numbers", {}).rows(keys_of(5), Numbers())
    rows.take(np.array([0]))[:] = 99
    assert everything(rows) == list(range(5))


@pytest.fixture
def from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is small enough to be copied into memory."""
    monkeypatch.setattr("trainers.store.rows.IN_MEMORY_BYTES", 0)


@pytest.mark.usefixtures("from_files")
def test_rows_outlive_their_files(tmp_path):
    rows = Shelf(tmp_path, "numbers", {}).rows(keys_of(40), Numbers())
    assert everything(rows) == list(range(40))
    assert rows.take(np.arange(0)).shape == (0, 3)
    files = list(tmp_path.rglob("*.npy"))
    assert len(files) > 5
    for file in files:
        file.unlink()
    assert everything(rows) == list(range(40))


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("in_memory", [0, 10**9])
def test_a_flipped_byte_is_found_before_the_row_is_returned(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr("trainers.store.rows.IN_MEMORY_BYTES", in_memory)
    shelf = Shelf(tmp_path, "numbers", {})
    shelf.rows(keys_of(100), Numbers())
    file = sorted(shelf.folder.glob("*.npy"))[3]
    kept = keys_in(file.with_suffix(".keys"))
    assert len(kept) > 2
    flip(file, -5)  # in the last row
    again = Numbers()
    assert everything(Shelf(tmp_path, "numbers", {}).rows(keys_of(100), again)) == list(range(100))
    assert [f"key {p}" for p in again.asked] == kept[-1:]
    assert not file.exists()
    assert sorted(key for names in shelf.folder.glob("*.keys") for key in keys_in(names)) == sorted(keys_of(100))
    everything(Shelf(tmp_path, "numbers", {}).rows(keys_of(100), lambda positions: pytest.fail("it was replaced")))


@pytest.mark.usefixtures("from_files")
@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_damage_while_rows_are_in_use(tmp_path, damage):
    numbers = Numbers()
    shelf = Shelf(tmp_path, "numbers", {})
    shelf.rows(keys_of(60), Numbers())
    rows, others = (Shelf(tmp_path, "numbers", {}).rows(keys_of(60), numbers) for _ in range(2))
    file = sorted(shelf.folder.glob("*.npy"))[0]
    count = len(keys_in(file.with_suffix(".keys")))
    if damage == "flipped":
        flip(file, -1)
    else:
        file.write_bytes(file.read_bytes()[:-1])
    assert everything(rows) == list(range(60))
    assert len(numbers.asked) == (1 if damage == "flipped" else count)
    assert everything(others) == list(range(60))  # finds what the first wrote
    assert len(numbers.asked) == (1 if damage == "flipped" else count)


def test_wrong_rows_of_others_are_left_to_them(tmp_path):
    """Who mends a segment keeps the rows it does not know how to compute, as far as they are right."""
    shelf = Shelf(tmp_path, "numbers", {})
    shelf.rows(keys_of(100), Numbers())
    file = max(shelf.folder.glob("*.npy"), key=lambda f: f.stat().st_size)
    first, second, *rest = keys_in(file.with_suffix(".keys"))
    assert rest
    flip(file, -1 - 12 * (len(rest) + 1))  # the first row
    flip(file, -1 - 12 * len(rest))  # the second
    position = int(first.split()[1])
    repaired = Shelf(tmp_path, "numbers", {}).rows([first], Numbers(position))
    assert everything(repaired) == [position]
    assert shelf.count(keys_of(100)) == 99
    again = Numbers()
    assert everything(Shelf(tmp_path, "numbers", {}).rows(keys_of(100), again)) == list(range(100))
    assert [f"key {p}" for p in again.asked] == [second]


@pytest.mark.usefixtures("from_files")
def test_a_row_that_stays_damaged_is_a_sentence(tmp_path, monkeypatch):
    Shelf(tmp_path, "numbers", {}).rows(keys_of(5), Numbers())
    rows = Shelf(tmp_path, "numbers", {}).rows(keys_of(5), Numbers())
    monkeypatch.setattr("trainers.store.rows.checksums_of", lambda rows: np.zeros(len(rows), np.uint32))
    with pytest.raises(TrainerError, match=r"were damaged, computed again, and are damaged again; check the disk"):
        rows.take(np.arange(5))


@pytest.mark.usefixtures("from_files")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_damaged_rows_that_cannot_be_replaced_are_computed_for_this_once(tmp_path, monkeypatch, number):
    shelf = Shelf(tmp_path, "numbers", {})
    shelf.rows(keys_of(100), Numbers())
    files = sorted(shelf.folder.glob("*.npy"))
    lost = {keys_in(file.with_suffix(".keys"))[0] for file in files[:2]}
    for file in files[:2]:
        flip(file, -1 - 12 * (len(keys_in(file.with_suffix(".keys"))) - 1))  # its first row
    before = {file: file.read_bytes() for file in files}

    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    again = Numbers()
    rows = Shelf(tmp_path, "numbers", {}).rows(keys_of(100), again)
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", refuse)
        assert [int(row[0]) for row in rows.take(np.arange(100)[::-1])] == list(range(100))[::-1]
    assert {f"key {p}" for p in again.asked} == lost
    assert {file: file.read_bytes() for file in files} == before
    assert everything(rows) == list(range(100))  # now they are replaced
    assert everything(
        Shelf(tmp_path, "numbers", {}).rows(keys_of(100), lambda p: pytest.fail("all are there"))
    ) == list(range(100))
