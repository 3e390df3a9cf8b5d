"""Headers of segments and their cache. Real files."""

from __future__ import annotations

import os

import numpy as np
import pytest
from cachetools import LRUCache

from tests.support.number_rows import Numbers, everything, keys_in, keys_of
from trainers.store import rows, segments
from trainers.store.segments import read_header
from trainers.store.shelf import Shelf


def test_a_header_larger_than_the_cache_of_headers_is_kept_until_another_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "MAX_CACHED_KEYS", 40)
    monkeypatch.setattr(segments, "_headers", LRUCache(40, segments._headers.getsizeof))
    shelf = Shelf(tmp_path, "numbers", {})
    large, small = [f"same:{number}" for number in range(60)], [f"other:{number}" for number in range(5)]
    shelf.rows([*large, *small], Numbers())
    files = sorted(shelf.folder.glob("*.keys"), key=lambda names: len(keys_in(names)))
    assert [len(keys_in(names)) for names in files] == [5, 60]
    head = read_header(files[1])
    assert read_header(files[1]) is head
    read_header(files[0])
    assert list(segments._headers) == [files[0]]
    assert read_header(files[1]) is not head


@pytest.mark.parametrize("read_alone_bytes", [0, rows.READ_ALONE_BYTES])
def test_an_open_segment_takes_one_descriptor(tmp_path, monkeypatch, read_alone_bytes):
    monkeypatch.setattr(rows, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(rows, "READ_ALONE_BYTES", read_alone_bytes)
    monkeypatch.setattr("trainers.store.shelf.SEGMENT_BYTES", 24)  # two rows of three float32
    before = len(os.listdir("/proc/self/fd"))
    found = Shelf(tmp_path, "numbers", {}).rows(keys_of(200), Numbers())
    count = len(list(tmp_path.rglob("*.npy")))
    assert count > 100
    for _ in range(2):
        assert everything(found) == list(range(200))
        assert found.take(np.arange(3)).shape == (3, 3)
        assert len(os.listdir("/proc/self/fd")) - before == count
    del found
    assert len(os.listdir("/proc/self/fd")) == before
