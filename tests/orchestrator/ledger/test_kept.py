"""Checksums in the ledger: every flipped bit of a file is noticed, and a message says the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import OrchError
from orchestrator.ledger.kept import FILES, DamagedFile, FileState, KeptFiles, checksums, files_below, recorded_files
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind, read_events
from orchestrator.paths import SweepPaths


def kept_files(root: Path, *names: str) -> KeptFiles:
    """A sweep with files of these names, recorded."""
    paths = SweepPaths(root)
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"content of {name}")
    return KeptFiles(paths, checksums(paths, [root / name for name in names]))


def test_the_latest_record_of_a_path_counts(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "s")
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.NOTE, payload={FILES: {"a": "1", "b": "2"}})
        ledger.append(EventKind.NOTE, payload={"text": 'a note on "files"'})
        ledger.append(EventKind.NOTE, payload=[FILES])
        ledger.append(EventKind.STAGE, stage="leaderboard", state="ENDED", payload={FILES: {"b": "3"}, "rows": 1})
    assert recorded_files(read_events(paths.ledger)) == {"a": "1", "b": "3"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.binary(min_size=1, max_size=200), st.data())
def test_every_flipped_bit_is_noticed(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    file = tmp_path / "leaderboard.csv"
    file.write_bytes(content)
    kept = KeptFiles(SweepPaths(tmp_path), checksums(SweepPaths(tmp_path), [file]))
    assert kept.state(file) == FileState.EQUAL
    assert kept.read(file) == content
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    file.write_bytes(bytes(changed))
    assert kept.state(file) == FileState.DIFFERENT
    with pytest.raises(DamagedFile, match=r"leaderboard.csv is damaged: its bytes do not match"):
        kept.read(file)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("spec.yaml", "`orch sweep FILE --resume --out ROOT`"),
        ("models/a1/weights.npz", "Restore it from a copy; without one, train again in another folder with --out DIR."),
        ("probabilities/a1/test-whole.npz", "`orch sweep --resume --out ROOT` makes it again."),
        ("winner/member-0.npz", "`orch sweep --resume --out ROOT` makes it again."),
        ("exports/model.onnx", "`orch export ROOT` makes it again."),
    ],
)
def test_a_missing_or_damaged_file_is_named_with_the_way_out(tmp_path: Path, name: str, way_out: str) -> None:
    kept = kept_files(tmp_path, name)
    (tmp_path / name).write_text("other")
    with pytest.raises(OrchError) as error:
        kept.require(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name} is damaged: its bytes do not match the checksum")
    assert way_out.replace("ROOT", str(tmp_path)) in str(error.value)
    (tmp_path / name).unlink()
    with pytest.raises(OrchError, match=f"{name} is missing. "):
        kept.require(tmp_path / name)
    with pytest.raises(OrchError, match=f"{name} is missing. "):
        kept.read(tmp_path / name)


def test_files_without_a_record_pass(tmp_path: Path) -> None:
    kept = kept_files(tmp_path, "winner/model.json")
    other = tmp_path / "winner" / "notes.txt"
    other.write_text("mine")
    kept.require(other)
    assert kept.state(other) == FileState.UNRECORDED
    assert kept.read(other) == b"mine"
    assert kept.below(tmp_path / "winner") == [tmp_path / "winner" / "model.json"]
    assert kept.below(tmp_path / "win") == []


def test_a_folder_that_was_moved_or_is_linked_keeps_its_records(tmp_path: Path) -> None:
    kept_files(tmp_path / "real", "winner/model.json")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    linked = SweepPaths(tmp_path / "link")
    found = checksums(linked, [(tmp_path / "real" / "winner" / "model.json").resolve()])
    assert list(found) == ["winner/model.json"]
    assert KeptFiles(linked, found).state(linked.winner / "model.json") == FileState.EQUAL
    outside = tmp_path / "elsewhere.txt"
    outside.write_text("")
    assert checksums(linked, [outside, linked.winner / "gone"]) == {}


def test_temporary_files_are_no_part_of_a_folder(tmp_path: Path) -> None:
    kept_files(tmp_path, "m/weights.npz", "m/fold-1/weights.npz", "m/.weights.npz.1-a.tmp", "m/.cache/x")
    assert files_below(tmp_path / "m") == [tmp_path / "m" / "fold-1" / "weights.npz", tmp_path / "m" / "weights.npz"]
