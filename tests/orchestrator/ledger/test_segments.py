"""The Parquet segments of a ledger."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import (
    LedgerSegment,
    list_segments,
    read_events,
    worth_merging,
)
from tests.support.ledgers import run_whole_trial


def test_pandas_opens_the_folder_even_with_a_half_written_file_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with Ledger(folder) as ledger:
        run_whole_trial(ledger, "a")
        ledger.flush()
        (folder / ".0000000099-0000000099-0123456789ab.parquet.tmp").write_bytes(b"PAR1 half of a segm")
        frame = pd.read_parquet(folder)
    assert sorted(frame["seq"]) == [1, 2, 3, 4, 5]
    assert frame.loc[frame["kind"] == "EPOCH", "val_accuracy"].tolist() == [0.1, 0.2]
    assert list(frame.columns)[:6] == ["seq", "time_s", "kind", "trial", "stage", "state"]


@pytest.mark.parametrize("where", [0, 100, -1])
def test_a_damaged_segment_is_named(tmp_path: Path, where: int) -> None:
    folder = tmp_path / "ledger"
    with Ledger(folder) as ledger:
        run_whole_trial(ledger, "a")
    path = list_segments(folder)[1].path
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(
        OrchError, match=f"{path.name} is damaged.*Restore that file from a copy; or move it"
    ) as damaged:
        read_events(folder)
    assert f"`orch sweep --resume --out {tmp_path}`" in str(damaged.value)
    with pytest.raises(OrchError, match="is damaged"):
        Ledger(folder)
    path.rename(tmp_path / "moved")
    with pytest.raises(OrchError, match=f"misses events 2 to 2.*`orch sweep --resume --out {tmp_path}`"):
        Ledger(folder)
    for segment in list_segments(folder)[1:]:
        segment.path.unlink()
    with Ledger(folder) as ledger:  # the lock was given back, and what is before the damage is used
        assert len(ledger.events()) == 1


def segments_of(sizes: list[int]) -> list[LedgerSegment]:
    found: list[LedgerSegment] = []
    for size in sizes:
        first = found[-1].last + 1 if found else 1
        found.append(LedgerSegment(Path(f"{first}"), first, first + size - 1, ""))
    return found


@pytest.mark.parametrize(
    ("sizes", "merged"),
    [
        ([], 0),
        ([5], 0),
        ([5, 1], 0),
        ([1, 1], 2),
        ([100, 1, 1, 1], 3),
        ([100, 1, 5, 1], 3),
        ([100, 7, 5, 1], 0),
        ([4, 2, 1, 1], 4),
    ],
)
def test_the_small_segments_at_the_end_are_merged(sizes: list[int], merged: int) -> None:
    assert [segment.events for segment in worth_merging(segments_of(sizes))] == sizes[len(sizes) - merged :]
