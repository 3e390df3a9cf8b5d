"""The data report: text for people and plain values for JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.support.photos_on_disk import (
    folder_of,
    source,
)
from trainers.data.manifest import check_data


def with_duplicates(root: Path) -> Path:
    """a/000 = a/copy (bytes), a/001 ~ a/near (pixels), a/002 = b/copy (bytes, other label)."""
    folder_of(root, a=10, b=10)
    shutil.copy(root / "a" / "000.png", root / "a" / "copy.png")
    with Image.open(root / "a" / "001.png") as image:
        image.resize((96, 80)).save(root / "a" / "near.png")
    shutil.copy(root / "a" / "002.png", root / "b" / "copy.png")
    return root


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
