"""The store of rows: in order, computed once, whole or not at all. Real files and real processes."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.number_rows import Numbers, everything, keys_in, keys_of, pair_of_one_bucket
from tests.support.places import ROOT
from trainers.errors import TrainerError
from trainers.store import segments
from trainers.store.shelf import Shelf

WRITER = """
import os, sys, time
import numpy as np
from pathlib import Path
from trainers.store.shelf import Shelf
folder, seconds, rows = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
keys = [f"key {i}" for i in range(rows)]
def compute(positions):
    for p in positions:
        with (folder / "computed.txt").open("a") as file:
            file.write(f"{os.getpid()} {keys[p]}\\n")
        time.sleep(seconds)
        yield np.full((1, 3), p, np.float32)
rows = Shelf(folder / "cache", "numbers", {}).rows(keys, compute)
print(rows.take(np.arange(len(keys)))[:, 0].tolist() == list(range(len(keys))))
"""


def test_rows_come_in_order_and_are_computed_once(tmp_path):
    numbers = Numbers()
    rows = Shelf(tmp_path, "numbers", {}).rows(keys_of(50), numbers)
    assert everything(rows) == list(range(50))
    assert (len(rows), rows.shape, rows.dtype, rows.nbytes) == (50, (3,), np.float32, 600)
    assert sorted(numbers.asked) == list(range(50))
    again = Shelf(tmp_path, "numbers", {}).rows(keys_of(50), lambda positions: pytest.fail("nothing is missing"))
    assert everything(again) == list(range(50))


def test_only_missing_rows_are_computed(tmp_path):
    shelf, more = Shelf(tmp_path, "numbers", {}), Numbers(100)
    shelf.rows(keys_of(20), Numbers())
    backwards = shelf.rows(keys_of(30)[::-1], more)
    assert everything(backwards) == [*range(100, 110), *range(19, -1, -1)]
    assert sorted(more.asked) == list(range(10))


def test_rows_at_hand_are_kept_once_and_where_nothing_can_be_written_nothing_fails(tmp_path):
    keys, rows = keys_of(40), np.arange(80, dtype=np.float32).reshape(40, 2)
    asked = []

    def at_hand(positions):
        asked.extend(positions)
        return rows[list(positions)]

    shelf = Shelf(tmp_path, "kept", {})
    shelf.keep(keys[:30], at_hand)
    shelf.keep(keys, at_hand)
    assert sorted(asked) == list(range(40))
    never = Shelf(tmp_path, "kept", {}).rows(keys, lambda positions: pytest.fail("computed again"))
    np.testing.assert_array_equal(never.take(np.arange(40)), rows)
    Shelf(Path("/dev/null/cache"), "kept", {}).keep(keys, at_hand)


def test_another_description_is_another_shelf(tmp_path):
    for description, start in (({"size": 1}, 0), ({"size": 2}, 100)):
        rows = Shelf(tmp_path, "numbers", description).rows(keys_of(3), Numbers(start))
        assert everything(rows) == [start, start + 1, start + 2]
    texts = {f.read_text() for f in (tmp_path / "numbers").glob("*/description.json")}
    assert texts == {f'{{"description": {{"size": {size}}}, "format": 2}}' for size in (1, 2)}


@settings(max_examples=25, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=30), min_size=1, max_size=4),
    in_memory=st.sampled_from([0, 100, 10**9]),
)
def test_any_requests_in_any_order(tmp_path_factory, requests, in_memory):
    """Repeated keys, overlaps, large shelves that stay mapped: always the rows asked for, each computed once."""
    folder, computed = tmp_path_factory.mktemp("shelf"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainers.store.rows.IN_MEMORY_BYTES", in_memory)
        for wanted in requests:

            def compute(positions: Sequence[int], wanted: list[int] = wanted) -> Iterator[np.ndarray]:
                computed.extend(wanted[p] for p in positions)
                yield np.array([[wanted[p]] * 3 for p in positions], np.int32)

            rows = Shelf(folder, "numbers", {}).rows([f"k{w}" for w in wanted], compute)
            assert everything(rows) == wanted
    assert sorted(computed) == sorted({w for wanted in requests for w in wanted})


def test_no_keys_are_a_sentence(tmp_path):
    with pytest.raises(TrainerError, match="no images to read; the split is empty"):
        Shelf(tmp_path, "numbers", {}).rows([], Numbers())


def test_a_computation_that_fails_leaves_nothing_behind(tmp_path):
    def broken(positions: Sequence[int]) -> Iterator[np.ndarray]:
        yield np.zeros((1, 3), np.float32)
        raise TrainerError("photo 2 cannot be read.")

    shelf = Shelf(tmp_path, "numbers", {})
    with pytest.raises(TrainerError, match="photo 2 cannot be read"):
        shelf.rows(keys_of(200), broken)
    assert not [f for f in shelf.folder.iterdir() if f.suffix in (".npy", ".keys", ".half")]
    assert everything(shelf.rows(keys_of(200), Numbers())) == list(range(200))


def writer(folder: Path, seconds: float, rows: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(seconds), str(rows)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def computed(folder: Path) -> list[str]:
    file = folder / "computed.txt"
    return [line.partition(" ")[2] for line in file.read_text().splitlines()] if file.exists() else []


def test_a_killed_writer_leaves_nothing_that_is_read(tmp_path):
    process = writer(tmp_path, 0.05, 100)
    deadline = time.monotonic() + 60
    while len(computed(tmp_path)) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    shelf = Shelf(tmp_path / "cache", "numbers", {})
    whole = len(list(shelf.folder.glob("*.keys")))
    assert 0 < len(computed(tmp_path)) < 100
    assert whole < segments.BUCKETS
    rest = Numbers()
    assert everything(shelf.rows(keys_of(100), rest)) == list(range(100))
    assert 0 < len(rest.asked) <= 100
    assert not list(shelf.folder.glob("*.half"))


def test_two_processes_share_the_work(tmp_path):
    both = [writer(tmp_path, 0.005, 120) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in both] == ["True", "True"]
    assert sorted(computed(tmp_path)) == sorted(keys_of(120))
    assert len({line.split()[0] for line in (tmp_path / "computed.txt").read_text().splitlines()}) == 2


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "garbage", "too few rows", "broken keys"])
def test_a_damaged_segment_is_computed_again(tmp_path, damage):
    shelf = Shelf(tmp_path, "numbers", {})
    shelf.rows(keys_of(60), Numbers())
    file = sorted(shelf.folder.glob("*.npy"))[0]
    lost = keys_in(file.with_suffix(".keys"))
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "garbage":
        file.write_bytes(b"not an array" * 20)
    elif damage == "too few rows":
        np.save(file, np.zeros((1, 3), np.float32))
    else:
        file.with_suffix(".keys").write_bytes(b"\xff\xfe")
    for _ in range(2):
        again = Numbers()
        assert everything(Shelf(tmp_path, "numbers", {}).rows(keys_of(60), again)) == list(range(60))
        assert sorted(again.asked) == sorted(int(key.split()[1]) for key in lost)
        lost = []  # the second time nothing is missing any more


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """The system refuses to write a file of more than 4 kB, as a full disk would.

    For as short as can be: it holds for the whole process, the log that pytest writes included.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_a_sentence(tmp_path):
    def large(positions: Sequence[int]) -> Iterator[np.ndarray]:
        yield np.zeros((len(positions), 10_000), np.float32)

    shelf = Shelf(tmp_path, "numbers", {})
    sentence = rf"the cache {tmp_path} cannot be used \(File too large\); free space on its disk, check that you have "
    with pytest.raises(TrainerError, match=sentence), small_files():
        shelf.rows(keys_of(5), large)
    assert not [f for f in shelf.folder.iterdir() if f.suffix in (".npy", ".keys", ".half")]


def test_a_cache_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainerError, match=r"cannot be used \(Not a directory\).*set ORCH_CACHE to a folder"):
        Shelf(tmp_path / "file", "numbers", {}).rows(keys_of(5), Numbers())


@pytest.fixture
def from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is small enough to be copied into memory."""
    monkeypatch.setattr("trainers.store.rows.IN_MEMORY_BYTES", 0)


def test_large_buckets_are_several_segments(tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.store.shelf.SEGMENT_BYTES", 36)  # three rows
    shelf = Shelf(tmp_path, "numbers", {})
    assert everything(shelf.rows(keys_of(200), Numbers())) == list(range(200))
    sizes = [len(keys_in(names)) for names in shelf.folder.glob("*.keys")]
    assert sum(sizes) == 200
    assert max(sizes) == 3
    everything(Shelf(tmp_path, "numbers", {}).rows(keys_of(200), lambda positions: pytest.fail("nothing is missing")))


def test_too_few_and_too_many_rows_are_noticed(tmp_path):
    for extra, words, stored in ((-1, "fewer", 0), (1, "more", 2)):
        shelf = Shelf(tmp_path, "numbers", {})

        def wrong(positions: Sequence[int], extra: int = extra) -> Iterator[np.ndarray]:
            yield np.zeros((len(positions) + extra, 3), np.float32)

        with pytest.raises(AssertionError, match=f"{words} rows were computed than the 2 requested"):
            shelf.rows(pair_of_one_bucket(), wrong)
        assert shelf.count(pair_of_one_bucket()) == stored
        assert not list(shelf.folder.glob(".*.half"))


def test_rows_are_kept_in_the_dtype_asked_for(tmp_path):
    shelf = Shelf(tmp_path, "numbers", {"dtype": "float16"})
    rows = shelf.rows(keys_of(30), Numbers(), dtype="float16")
    assert (rows.dtype, rows.nbytes, rows.take(np.arange(3)).dtype) == (np.float16, 180, np.float16)
    assert everything(rows) == list(range(30))
    with pytest.raises(ValueError, match="holds float16, not float32; include the dtype in the description"):
        shelf.rows(keys_of(30), Numbers(), dtype="float32")


def test_numbers_too_large_for_the_dtype_are_a_sentence(tmp_path):
    with pytest.raises(TrainerError, match=r"too large for float16; set resources.store_dtype: float32"):
        Shelf(tmp_path, "numbers", {}).rows(keys_of(3), Numbers(70_000), dtype="float16")
    assert not list(tmp_path.rglob("*.npy"))


def test_what_is_stored_is_counted_without_computing(tmp_path):
    shelf = Shelf(tmp_path, "numbers", {})
    assert (shelf.count(keys_of(50)), shelf.written) == (0, 0)
    shelf.rows(keys_of(20), Numbers())
    assert (shelf.count(keys_of(50)), shelf.written) == (20, 20)
    assert shelf.count(["key 3", "key 3", "key 900"]) == 1
    shelf.rows(keys_of(30), Numbers())
    assert shelf.written == 30
    assert Shelf(tmp_path, "numbers", {}).written == 0


def test_a_set_that_cannot_fit_is_known_beforehand_and_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("ORCH_CACHE_GB", "0.0001")  # 100 kB
    shelf = Shelf(tmp_path, "numbers", {})
    assert shelf.has_room_for(keys_of(100), 500)
    assert not shelf.has_room_for(keys_of(100), 1000)
    with pytest.raises(TrainerError, match=r"at most 0\.0 GB \(ORCH_CACHE_GB\).*Raise ORCH_CACHE_GB"):
        shelf.rows(keys_of(100), large_rows)
    assert 0 < shelf.count(keys_of(100)) < 100  # rows that fitted stay stored


def large_rows(positions: Sequence[int]) -> Iterator[np.ndarray]:
    """A kilobyte each."""
    for p in positions:
        yield np.full((1, 256), p, np.float32)


def test_the_least_recently_used_rows_make_room(tmp_path, monkeypatch):
    monkeypatch.setenv("ORCH_CACHE_GB", "0.0002")
    shelves = [Shelf(tmp_path, "numbers", {"n": n}) for n in range(3)]
    for shelf in shelves[:2]:
        shelf.rows(keys_of(80), large_rows)
    an_hour_ago = time.time() - 3600
    for names in shelves[1].folder.glob("*.keys"):
        os.utime(names, (an_hour_ago, an_hour_ago))
    assert shelves[2].has_room_for(keys_of(80), 1024)
    shelves[2].rows(keys_of(80), large_rows)
    assert shelves[0].count(keys_of(80)) == shelves[2].count(keys_of(80)) == 80
    assert 0 < shelves[1].count(keys_of(80)) < 80


@pytest.mark.usefixtures("from_files")
def test_rows_in_use_are_never_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("ORCH_CACHE_GB", "0.0001")
    held = Shelf(tmp_path, "numbers", {"n": 0}).rows(keys_of(60), large_rows)
    other = Shelf(tmp_path, "numbers", {"n": 1})
    assert not other.has_room_for(keys_of(60), 1024)
    with pytest.raises(TrainerError, match="too little of that can be evicted"):
        other.rows(keys_of(60), large_rows)
    assert everything(held) == list(range(60))
    del held
    assert other.has_room_for(keys_of(60), 1024)
    assert everything(other.rows(keys_of(60), large_rows)) == list(range(60))


def test_a_segment_removed_between_is_computed_again(tmp_path, monkeypatch):
    """Another sweep's clean-up comes just before the rows are opened."""
    shelf = Shelf(tmp_path, "numbers", {})
    shelf.rows(keys_of(40), Numbers())
    real, gone = segments.open_segment, []

    def open_once_too_late(header):
        if not gone:
            gone.append(header)
            segments.remove_segment(header.keys_file)
        return real(header)

    monkeypatch.setattr("trainers.store.shelf.open_segment", open_once_too_late)
    again = Numbers()
    assert everything(Shelf(tmp_path, "numbers", {}).rows(keys_of(40), again)) == list(range(40))
    assert sorted(f"key {p}" for p in again.asked) == sorted(gone[0].keys)


def test_two_processes_under_a_limit_and_one_killed(tmp_path, monkeypatch):
    """The survivor's rows are whole; the other's leftovers are gone once its bucket is written again."""
    monkeypatch.setenv("ORCH_CACHE_GB", "1")
    victim, survivor = (writer(tmp_path, 0.01, 150) for _ in range(2))
    deadline = time.monotonic() + 60
    while len(computed(tmp_path)) < 40:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert survivor.communicate(timeout=60)[0].strip() == "True"
    shelf = Shelf(tmp_path / "cache", "numbers", {})
    assert shelf.count(keys_of(150)) == 150
    assert not list(shelf.folder.glob(".*.half"))
    assert 150 <= len(computed(tmp_path)) <= 150 + 150 // segments.BUCKETS * 3
