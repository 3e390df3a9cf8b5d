"""A split divided among workers, and their parts written whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.serving.parts import PredictionPart, divide_rows, write_whole


@given(st.integers(1, 5000), st.integers(1, 100), st.integers(1, 200), st.integers(1, 2000))
def test_a_split_is_divided_without_gaps_and_evenly(images: int, crops: int, workers: int, fewest: int) -> None:
    parts = divide_rows(images, crops, workers, fewest)
    assert 1 <= len(parts) <= workers
    assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
    assert parts[-1][1] == images
    sizes = [stop - start for start, stop in parts]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == 1 or (max(sizes) * crops) >= fewest


@pytest.mark.parametrize("places", [(0,), (1,), (0, 0, 1), (0, 2)])
def test_parts_that_do_not_follow_each_other_are_not_written(tmp_path: Path, places: Sequence[int]) -> None:
    """Three parts of two images."""
    parts = [
        PredictionPart(
            2 * i, np.array(["a", "b"]), np.zeros(2, np.int32), {"whole": {"m": np.ones((2, 3))}}, {"whole": 1.0}, {}
        )
        for i in places
    ]
    outputs = {"whole": {"m": str(tmp_path / "m.npz")}}
    if places == (0,):
        parts = [dataclasses.replace(parts[0], own_seconds={"whole": {"m": 0.5}})]
        write_whole(outputs, parts)
        assert np.load(tmp_path / "m.npz")["seconds"] == 1.5
        halves = [dataclasses.replace(parts[0], precision="mixed_float16", device="gpu")]
        halves.append(dataclasses.replace(parts[0], start=2, precision="float32", device="cpu"))
        write_whole(outputs, halves)
        stored = np.load(tmp_path / "m.npz")
        assert (str(stored["precision"]), str(stored["device"])) == ("float32,mixed_float16", "cpu,gpu")
        return
    with pytest.raises(ValueError, match="are not a contiguous split"):
        write_whole(outputs, parts)
    assert not (tmp_path / "m.npz").exists()
