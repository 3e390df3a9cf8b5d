"""Arrays in one file: there and back, replaced as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainers.files.arrays import DAMAGED, read_list, write_arrays, write_list


def test_arrays_come_back_by_name_and_replace_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.npz"
    write_arrays(path, {"old": np.zeros(3)})
    write_arrays(path, {"sha256": ["a", "b"], "seconds": 1.5}, durable=False)
    with np.load(path) as stored:
        assert stored.files == ["sha256", "seconds"]
        assert stored["sha256"].tolist() == ["a", "b"]
        assert float(stored["seconds"]) == 1.5
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]


def test_a_list_comes_back_in_order_without_what_has_a_name(tmp_path: Path) -> None:
    arrays = [np.full((2, number % 3), number, np.float32) for number in range(12)]
    write_list(tmp_path / "a.npz", arrays, {"words": np.array("w"), "epoch": 3})
    found = read_list(tmp_path / "a.npz")
    assert len(found) == 12
    for array, other in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(array, other)
        assert array.dtype == other.dtype


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_a_torn_file_raises_what_is_listed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DAMAGED):
        read_list(tmp_path / "a.npz")
