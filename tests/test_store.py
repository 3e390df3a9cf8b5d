"""The store of rows: in order, computed once, whole or not at all. Real files and real processes."""

from __future__ import annotations

import contextlib
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

from trainers import store
from trainers.contract import TrainerError
from trainers.store import Shelf

ROOT = Path(__file__).resolve().parent.parent

WRITER = """
import os, sys, time
import numpy as np
from pathlib import Path
from trainers.store import Shelf
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


class Numbers:
    """Row p is (p, p, p); remembers what it was asked for."""

    def __init__(self, start: int = 0) -> None:
        self.asked: list[int] = []
        self.start = start

    def __call__(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        self.asked += positions
        for begin in range(0, len(positions), 4):
            yield np.stack([np.full(3, self.start + p, np.float32) for p in positions[begin : begin + 4]])


def keys_of(count: int) -> list[str]:
    return [f"key {i}" for i in range(count)]


def everything(rows) -> list[float]:
    taken = rows.take(np.arange(len(rows)))
    assert (taken == taken[:, :1]).all()
    return taken[:, 0].tolist()


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


def test_rows_are_read_only_copies(tmp_path):
    rows = Shelf(tmp_path, "numbers", {}).rows(keys_of(5), Numbers())
    rows.take(np.array([0]))[:] = 99
    assert everything(rows) == list(range(5))


def test_another_description_is_another_shelf(tmp_path):
    for description, start in (({"size": 1}, 0), ({"size": 2}, 100)):
        rows = Shelf(tmp_path, "numbers", description).rows(keys_of(3), Numbers(start))
        assert everything(rows) == [start, start + 1, start + 2]
    texts = {f.read_text() for f in (tmp_path / "numbers").glob("*/description.json")}
    assert texts == {'{"size": 1}', '{"size": 2}'}


@settings(max_examples=25, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=30), min_size=1, max_size=4),
    in_memory=st.sampled_from([0, 100, 10**9]),
)
def test_any_requests_in_any_order(tmp_path_factory, requests, in_memory):
    """Repeated keys, overlaps, large shelves that stay mapped: always the rows asked for, each computed once."""
    folder, computed = tmp_path_factory.mktemp("shelf"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "IN_MEMORY_BYTES", in_memory)
        for wanted in requests:

            def compute(positions: Sequence[int], wanted: list[int] = wanted) -> Iterator[np.ndarray]:
                computed.extend(wanted[p] for p in positions)
                yield np.array([[wanted[p]] * 3 for p in positions], np.int32)

            rows = Shelf(folder, "numbers", {}).rows([f"k{w}" for w in wanted], compute)
            assert everything(rows) == wanted
    assert sorted(computed) == sorted({w for wanted in requests for w in wanted})


def test_no_keys_are_a_sentence(tmp_path):
    with pytest.raises(TrainerError, match="no images were asked for; the split is empty"):
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
    assert whole < store.BUCKETS
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
    lost = file.with_suffix(".keys").read_text().split("\n")
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
    sentence = rf"the cache {tmp_path} cannot be written \(File too large\); free some space there, or set ORCH_CACHE"
    with pytest.raises(TrainerError, match=sentence), small_files():
        shelf.rows(keys_of(5), large)
    assert not [f for f in shelf.folder.iterdir() if f.suffix in (".npy", ".keys", ".half")]


def test_a_cache_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainerError, match=r"cannot be written \(Not a directory\).*set ORCH_CACHE to a folder"):
        Shelf(tmp_path / "file", "numbers", {}).rows(keys_of(5), Numbers())


def test_rows_outlive_their_files_and_a_file_cut_short_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "IN_MEMORY_BYTES", 0)
    rows = Shelf(tmp_path, "numbers", {}).rows(keys_of(40), Numbers())
    assert everything(rows) == list(range(40))
    assert rows.take(np.arange(0)).shape == (0, 3)
    files = list(tmp_path.rglob("*.npy"))
    for file in files:
        file.rename(file.with_suffix(".away"))
    assert everything(rows) == list(range(40))
    for file in files:
        file.write_bytes(b"short")
    with pytest.raises(TrainerError, match=r"\.npy was cut short; remove it and run again"):
        rows.take(np.arange(40))
