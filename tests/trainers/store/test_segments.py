"""Headers of segments and their cache. Real files."""

from __future__ import annotations

from cachetools import LRUCache

from tests.support.number_rows import Numbers, keys_in
from trainers.store import segments
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
