"""Verdicts in the row store: equal to those that were made, of these photos alone, and never a reason to fail."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import pytest

from trainers.data import verdict_store
from trainers.data.candidates import Candidate
from trainers.data.verdict_store import Verdict, VerdictStore
from trainers.images.alignment import SYMMETRIES
from trainers.images.comparison import ALIKE, SAME

PHOTOS = [letter * 64 for letter in "dacb"]
WAYS = [*((symmetry, mirror) for symmetry, (_, mirror) in enumerate(SYMMETRIES)), (None, False), (None, True)]
PAIRS = [Candidate(a, b, *way, math.nan) for a in range(4) for b in range(a + 1, 4) for way in WAYS]


def made(pair: Candidate) -> Verdict:
    """Another one for each pair and way."""
    way = (pair.first, pair.second, pair.symmetry)
    place = [(each.first, each.second, each.symmetry) for each in PAIRS].index(way) + (
        pair.symmetry is None and pair.mirror
    )
    return Verdict(("", ALIKE, SAME)[place % 3], place % 2 == 1, place / 7)


def never(pair: Candidate) -> Verdict:
    raise AssertionError(f"{pair} is made again")


def test_each_verdict_comes_back_as_it_was_made(tmp_path: Path) -> None:
    store = VerdictStore(made, tmp_path, PHOTOS)
    answers = [store.of(pair) for pair in PAIRS]
    assert len({(each.answer, each.lie_alike, each.difference) for each in answers}) == len(PAIRS) == 60
    store.flush()
    again = VerdictStore(never, tmp_path, PHOTOS)
    assert [again.of(pair) for pair in PAIRS] == answers


def test_photos_that_went_and_came_leave_the_other_verdicts(tmp_path: Path) -> None:
    store = VerdictStore(made, tmp_path, PHOTOS)
    wanted = [store.of(pair) for pair in PAIRS if (pair.first, pair.second) == (1, 3)]
    store.of(PAIRS[0])
    store.flush()
    fewer = VerdictStore(never, tmp_path, ["e" * 64, PHOTOS[1], PHOTOS[3], "f" * 64])
    assert [fewer.of(Candidate(1, 2, *way, 0.0)) for way in WAYS] == wanted
    with pytest.raises(AssertionError, match="is made again"):
        fewer.of(Candidate(0, 1, 0, False, 0.0))


def test_verdicts_on_other_photos_take_no_memory(tmp_path: Path) -> None:
    others = [f"{n:064x}" for n in range(5_000)]
    store = VerdictStore(lambda pair: Verdict("", True, 1.0), tmp_path, others)
    for n in range(len(others) - 4):
        for further in (1, 2, 3, 4):
            store.of(Candidate(n, n + further, None, False, 0.0))
    store.flush()
    tracemalloc.start()
    VerdictStore(never, tmp_path, PHOTOS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 * 4 * len(others)  # the keys alone are 136 bytes each


def test_the_order_of_two_photos_counts(tmp_path: Path) -> None:
    store = VerdictStore(made, tmp_path, PHOTOS)
    store.of(PAIRS[0])
    store.flush()
    with pytest.raises(AssertionError, match="is made again"):
        VerdictStore(never, tmp_path, PHOTOS[::-1]).of(Candidate(2, 3, 0, False, 0.0))


def test_verdicts_of_other_code_are_not_found(tmp_path: Path) -> None:
    store = VerdictStore(made, tmp_path, PHOTOS, "one")
    store.of(PAIRS[0])
    store.flush()
    with pytest.raises(AssertionError, match="is made again"):
        VerdictStore(never, tmp_path, PHOTOS, "other").of(PAIRS[0])


@pytest.mark.parametrize("cache", [None, Path("/dev/null/cache")])
def test_without_a_store_nothing_fails(cache: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_store, "WRITTEN_AT_ONCE", 7)
    store = VerdictStore(made, cache, PHOTOS)
    assert [store.of(pair) for pair in PAIRS] == [made(pair) for pair in PAIRS]
    store.flush()
