"""The data report: text for people and plain values for JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.photos_on_disk import (
    source,
    with_duplicates,
)
from trainers.data.build import check_data
from trainers.data.report import DataReport


def test_report_as_lines_and_as_plain_values(tmp_path: Path) -> None:
    report = check_data(source(with_duplicates(tmp_path / "p")))
    lines = report.lines()
    assert lines[0].endswith("p: 23 images in 2 classes")
    assert lines[1].split() == ["class", "images", "train", "validation", "test"]
    assert lines[4].split()[:2] == ["all", "23"]
    assert "sets of exact duplicates: 2" in lines
    assert "  a/001.png ~ a/near.png" in lines
    assert "  a/002.png (a), b/copy.png (b)" in lines
    values = json.loads(json.dumps(report.to_dict()))
    assert values["classes"] == {"a": 12, "b": 11}
    assert values["imbalance"] == pytest.approx(12 / 11)


def test_bad_files_hold_everything_left_out_or_suspicious_with_its_reason(tmp_path: Path) -> None:
    root = with_duplicates(tmp_path / "p")
    (root / "a" / "torn.png").write_bytes(b"\x89PNG")
    (root / "a" / "notes.txt").write_text("x")
    (root / "loose.png").write_bytes(b"x")
    report = check_data(source(root))
    kinds = {(path, kind) for path, _, kind in report.bad_files()}
    assert kinds >= {
        ("a/torn.png", "unreadable"),
        ("a/notes.txt", "no image"),
        ("loose.png", "no class"),
        ("a/copy.png", "duplicate"),
        ("b/copy.png", "duplicate"),
        ("a/002.png", "label"),
        ("b/copy.png", "label"),
    }
    assert all(reason for _, reason, _ in report.bad_files())
    text = "\n".join(report.lines())
    assert text.count("a/torn.png") == 1
    assert any("a/torn.png" in warning for warning in report.warnings)


def test_names_that_are_no_text_are_escaped_for_json(tmp_path: Path) -> None:
    report = DataReport("p", left_out=(("a/\udcff.png", "its name is not valid UTF-8", "name"),))
    values = report.to_dict()
    assert json.dumps(values, ensure_ascii=False).encode()
    assert values["bad_files"] == [["a/\\udcff.png", "its name is not valid UTF-8", "name"]]


def test_what_another_package_or_other_permissions_could_read_is_no_unreadable_image() -> None:
    report = DataReport(
        "p",
        unreadable={"a.heic": "it is HEIC; `pip install pillow-heif`", "b.jpg": "Permission denied", "c.jpg": "torn"},
    )
    assert [(path, kind) for path, _, kind in report.bad_files()] == [
        ("a.heic", "unsupported"),
        ("b.jpg", "unsupported"),
        ("c.jpg", "unreadable"),
    ]
