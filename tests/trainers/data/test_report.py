"""The data report: text for people and plain values for JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.photos_on_disk import (
    source,
    with_duplicates,
)
from trainers.data.manifest import check_data


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
