"""Chunks hold every batch once, in order, with its rows, and no more than memory may hold."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.errors import TrainerError
from trainers.store.rows import Rows
from trainers.store.shelf import Shelf
from trainers.training import chunks as chunks_module
from trainers.training.chunks import chunks, weighted_sum
from trainers.training.features import RecomputedRows, RowSubset

ROW_BYTES = 4 * 5


def live(count: int) -> RecomputedRows:
    """Row i is five times i."""
    return RecomputedRows(
        lambda here: iter([np.repeat(here[:, None], 5, 1).astype(np.float32)]), (5,), np.dtype("float32"), count
    )


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 300), batches=st.integers(1, 60), most=st.integers(1, 200))
def test_every_batch_comes_once_in_order_with_its_rows(count, batches, most):
    order = np.random.default_rng(count).permutation(count)
    wanted = np.array_split(order, min(batches, count))
    largest = max(map(len, wanted))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chunks_module, "CHUNK_BYTES", most * ROW_BYTES)
        seen = []
        for chunk in chunks(live(count), wanted):
            assert chunk.first == len(seen)
            assert len(chunk.rows) == len(chunk.chosen) <= max(most, largest)
            np.testing.assert_array_equal(chunk.rows[:, 3], chunk.chosen)
            seen += np.split(chunk.chosen, chunk.offsets[1:-1])
    assert [batch.tolist() for batch in seen] == [batch.tolist() for batch in wanted]


def stored(folder: Path, count: int) -> Rows:
    shelf = Shelf(folder, "features", {})
    return shelf.rows([str(i) for i in range(count)], lambda here: iter([np.full((1, 5), i, np.float32) for i in here]))


@pytest.mark.parametrize("on_disk", [False, True])
def test_rows_on_disk_are_read_by_another_thread(tmp_path, monkeypatch, on_disk):
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES", 10 * ROW_BYTES)
    monkeypatch.setattr("trainers.store.rows.IN_MEMORY_BYTES", 0 if on_disk else 2**20)
    rows, readers = stored(tmp_path, 40), set()
    take = Rows.take

    def noting(self, indices):
        readers.add(threading.current_thread() is threading.main_thread())
        return take(self, indices)

    monkeypatch.setattr(Rows, "take", noting)
    places = np.arange(40)[::-1]
    found = list(chunks(RowSubset(rows, places), np.array_split(np.arange(40), 8)))
    assert len(found) == 4
    np.testing.assert_array_equal(np.concatenate([chunk.rows for chunk in found])[:, 0], places)
    assert readers == {not on_disk}


def test_what_goes_wrong_while_reading_ahead_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES", 10 * ROW_BYTES)
    monkeypatch.setattr("trainers.store.rows.IN_MEMORY_BYTES", 0)
    rows = stored(tmp_path, 40)

    def broken(self, indices):
        raise TrainerError("the disk is gone.")

    monkeypatch.setattr(Rows, "take", broken)
    with pytest.raises(TrainerError, match="the disk is gone"):
        list(chunks(rows, np.array_split(np.arange(40), 8)))


@pytest.mark.parametrize("ahead", [False, True])
def test_rows_that_say_so_are_computed_by_another_thread(monkeypatch, ahead):
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES", 10 * ROW_BYTES)
    readers = set()

    def compute(here):
        readers.add(threading.current_thread() is threading.main_thread())
        yield np.repeat(here[:, None], 5, 1).astype(np.float32)

    rows = RecomputedRows(compute, (5,), np.dtype("float32"), 40, ahead)
    found = list(chunks(RowSubset(rows, np.arange(40)), np.array_split(np.arange(40), 8)))
    assert len(found) == 4
    np.testing.assert_array_equal(np.concatenate([chunk.rows for chunk in found])[:, 0], np.arange(40))
    assert readers == {not ahead}


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-rows")]


@pytest.mark.parametrize("fails", [False, True])
def test_no_thread_is_left_where_the_reader_stops_early(monkeypatch, fails):
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES", 10 * ROW_BYTES)
    taken = []

    def compute(here):
        taken.append(len(here))
        yield np.zeros((len(here), 5), np.float32)

    rows = RecomputedRows(compute, (5,), np.dtype("float32"), 40, ahead=True)
    kept = None
    try:
        for _ in chunks(rows, np.array_split(np.arange(40), 8)):
            if fails:
                raise ValueError("diverged")
            break
    except ValueError as error:
        kept = error  # whose traceback holds the iterator
    for thread in readers():
        thread.join(5)
    assert not readers()
    assert len(taken) == 2  # the chunk that was used, and the one that was being read
    assert fails == (kept is not None)


def test_a_sum_over_batches_is_rounded_as_it_was_whatever_the_chunks(monkeypatch):
    monkeypatch.setattr(chunks_module, "SUMMED_BYTES", 10 * ROW_BYTES)
    batches = np.array_split(np.arange(40), 9)
    values = np.random.default_rng(0).random(9).astype(np.float32)
    sizes = np.array([len(batch) for batch in batches])
    before = 0.0
    for part in np.array_split(np.arange(9), 5):  # of two batches of five rows at most
        before += float(values[part].astype(np.float64) @ sizes[part])
    assert weighted_sum(values, batches, live(40)) == before
