"""Bad files as a table, and moved aside: nothing overwritten, nothing moved that is used."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from pathlib import Path

import pytest

from orchestrator.cli import app
from orchestrator.commands.data.bad_files import check_move, move_bad_files, write_bad_files
from orchestrator.errors import DataError, SpecError
from tests.support.photos_on_disk import folder_of, source, split_rows, table_of
from trainers.data.build import build_manifest, check_data
from trainers.data.report import DataReport


def bad_photos(root: Path) -> Path:
    """Six images of a and b each, two that cannot be read, one with a text next to it, and a file that is no image."""
    folder_of(root, a=6, b=6)
    (root / "a" / "torn.png").write_bytes(b"\x89PNG")
    (root / "b" / "empty.jpg").touch()
    (root / "b" / "empty.txt").write_text("a caption")
    (root / "b" / "notes.md").write_text("x")
    return root


def test_every_bad_file_is_written_with_reason_and_kind(tmp_path: Path) -> None:
    root = bad_photos(tmp_path / "p")
    report = check_data(source(root))
    assert write_bad_files(report, tmp_path / "bad.csv").endswith(
        "bad.csv: 4 rows about files that are left out or suspicious"
    )
    with (tmp_path / "bad.csv").open(newline="") as file:
        rows = {Path(row["path"]).relative_to(root.resolve()).as_posix(): row for row in csv.DictReader(file)}
    assert {path: row["kind"] for path, row in rows.items()} == {
        "a/torn.png": "unreadable",
        "b/empty.jpg": "unreadable",
        "b/empty.txt": "no image",
        "b/notes.md": "no image",
    }
    assert all(row["reason"] for row in rows.values())


def test_a_table_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"--write: .*bad\.csv cannot be written \(.*\); name another file"):
        write_bad_files(DataReport("p"), tmp_path / "file" / "bad.csv")


def test_unreadable_images_move_with_their_paths_and_nothing_else_does(tmp_path: Path) -> None:
    root, aside = bad_photos(tmp_path / "p"), tmp_path / "aside"
    (aside / "a").mkdir(parents=True)
    (aside / "a" / "torn.png").write_bytes(b"mine")
    before, _ = build_manifest(source(root))
    lines = move_bad_files(check_data(source(root)), aside)
    here = root.resolve()
    assert lines == [
        f"not moved {here}/a/torn.png: {aside.resolve()}/a/torn.png exists",
        f"moved {here}/b/empty.jpg",
        f"moved {here}/b/empty.txt",
        f"2 files moved to {aside}; 1 of 3 stay where they were",
    ]
    assert (aside / "a" / "torn.png").read_bytes() == b"mine"
    assert sorted(p.name for p in (aside / "b").iterdir()) == ["empty.jpg", "empty.txt"]
    assert (root / "a" / "torn.png").exists()
    after, report = build_manifest(source(root))
    assert after.fingerprint == before.fingerprint
    assert list(report.unreadable) == ["a/torn.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text_are_written_and_moved_as_they_are(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=6, b=6)
    os.rename(root / "a" / "000.png", os.fsencode(root / "a") + b"/\xff.png")
    report = check_data(source(root))
    write_bad_files(report, tmp_path / "bad.csv")
    assert b"/a/\xff.png,its name is not valid UTF-8,name" in (tmp_path / "bad.csv").read_bytes()
    lines = move_bad_files(report, tmp_path / "aside")
    assert "\n".join(lines).encode()
    assert os.listdir(os.fsencode(tmp_path / "aside" / "a")) == [b"\xff.png"]


def test_links_are_moved_themselves_and_a_failure_is_a_line(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=6, b=6)
    (tmp_path / "outside.jpg").write_bytes(b"no photo")
    (root / "a" / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    move_bad_files(check_data(source(root)), tmp_path / "aside")
    assert (tmp_path / "aside" / "a" / "link.jpg").is_symlink()
    assert (tmp_path / "outside.jpg").exists()
    gone = DataReport("p", unreadable={"a/gone.jpg": "x"}, root=str(root))
    assert move_bad_files(gone, tmp_path / "aside")[0] == f"not moved {root}/a/gone.jpg: No such file or directory"


def test_where_files_cannot_be_moved_is_said_before_photos_are_read(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=1, b=1)
    archive = shutil.make_archive(str(tmp_path / "p"), "zip", root)
    table = table_of(tmp_path / "t", split_rows(tmp_path / "t"))
    (tmp_path / "file").touch()
    cases = {
        (str(root), root / "aside"): "--move-bad: .*aside lies in .*p, the folder of the photos",
        (archive, tmp_path / "aside"): "is no folder; unpack it and pass the folder",
        (str(table), tmp_path / "aside"): "is a table, which would miss the files; take their rows out",
        (str(table.parent), tmp_path / "aside"): r"is read by the table table\.csv, which would miss the files",
        ("builtin:digits", tmp_path / "aside"): "is no folder",
        (str(root), tmp_path / "file"): "is not a folder; name another one",
    }
    for (one, aside), sentence in cases.items():
        with pytest.raises((DataError, SpecError), match=sentence):
            check_move([one], aside)
    check_move([str(root)], tmp_path / "aside")
    assert not (tmp_path / "aside").exists()


def test_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    bad_photos(tmp_path / "photos")
    assert app.run(["data", "check", "photos", "--write", "bad.csv", "--move-bad", "aside"]) == 0
    out = capsys.readouterr().out
    assert out.count("torn.png") == 2  # in the report, and as moved
    assert "bad.csv: 4 rows" in out
    assert "3 files moved to aside; 0 of 3 stay where they were" in out
    assert app.run(["data", "check", "photos", "--move-bad", "photos/aside"]) == 2
    assert "name a place outside" in capsys.readouterr().err
