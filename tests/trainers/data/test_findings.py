"""What is said about photos that have been read: empty and small classes, names of copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.support.photos_on_disk import (
    error_of,
    folder_of,
    source,
    table_of,
    warnings_of,
)
from trainers.data.build import check_data
from trainers.data.findings import note_uneven_groups
from trainers.data.listing import SourceNotes
from trainers.data.stratify import assign


def test_class_without_a_readable_image_is_a_problem(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=6, b=6)
    (root / "c").mkdir()
    (root / "c" / "torn.png").write_bytes(b"torn")
    assert error_of(source(root)) == (
        "class 'c' has no image left that can be used. Add images to it, or take the class out."
    )
    for path in root.rglob("*.png"):
        path.write_bytes(b"torn")
    none = "no image can be used: all 13 of the source are left out; the report names each with its reason."
    assert none in error_of(source(root))
    assert check_data(source(root)).images == 0


def test_classes_too_small_to_judge_are_a_warning(tmp_path: Path) -> None:
    report = check_data(source(folder_of(tmp_path / "p", big=90, odd=6, tiny=4)))
    assert [text for text in report.warnings if "too few to judge by" in text] == [
        "2 classes have fewer than 5 images in validation or test, too few to judge by: odd (1 in validation and 1 in "
        "test), tiny (1 in validation and 1 in test). Add images, or use folds."
    ]
    assert "imbalance: the largest class has 22.5 times the images of the smallest; to even them out: balance: " in (
        "\n".join(report.lines())
    )


def test_names_of_copies_and_the_share_that_drop_would_take_are_said(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=10, b=10)
    with Image.open(root / "a" / "001.png") as image:
        image.resize((96, 80)).save(root / "a" / "001-copy.png")
    shutil.copy(root / "b" / "002.png", root / "b" / "aug_001.png")
    warnings = warnings_of(check_data(source(root)))
    assert "duplicates: drop would leave out 2 images, 9.1% of all." in warnings
    assert (
        "2 file names look like that of a copy of another file; 1 of them are kept in one split with it, 1 is not, "
        "such as b/aug_001.png of b/001.png. If these are copies, give a table with a column group."
    ) in warnings


def test_a_single_class_and_a_single_image_are_worded_so(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", cat=1)
    lines = check_data(source(root)).lines()
    assert lines[0] == f"{root}: 1 image in 1 class"
    assert not [line for line in lines if line.startswith("imbalance")]
    assert (
        "problem: there is only one class, 'cat'; a classifier needs two or more. Add images of another class." in lines
    )


@pytest.mark.parametrize(("groups", "seeds_with_warning"), [(3, True), (40, False)])
def test_groups_as_large_as_a_third_of_a_class_can_leave_train_short(groups: int, seeds_with_warning: bool) -> None:
    labels = ["hat"] * 120 + ["coat"] * 120
    names = [f"{label}-{i % (groups if label == 'hat' else 120)}" for i, label in enumerate(labels)]
    warned = 0
    for seed in range(10):
        rows = pd.DataFrame({"label": labels, "group": names, "fold": 0})
        rows["split"] = assign(labels, names, (0.7, 0.15, 0.15), seed)
        notes = SourceNotes([], [])
        note_uneven_groups(rows, (70, 15, 15), notes)
        held = int((rows["split"] == "train").iloc[:120].sum())
        assert len(notes.warnings) == (held < 60 and groups == 3)
        warned += len(notes.warnings)
        if notes.warnings:
            assert (
                "a class has far fewer images in train than the 70% of the ratios, because a group goes to one split "
                f"whole: hat ({held} of 120 images, {held / 120:.0%}; its largest group holds 40). Train holds "
            ) in notes.warnings[0]
            assert "make the groups smaller, or give a table with a column split." in notes.warnings[0]
    assert (warned > 0) == seeds_with_warning


def test_the_report_warns_of_large_groups(tmp_path: Path) -> None:
    folder_of(tmp_path / "p", a=30, b=30)
    rows = [
        {"path": f"p/{label}/{i:03d}.png", "label": label, "group": f"{label}{i // 10 if label == 'a' else i}"}
        for label in "ab"
        for i in range(30)
    ]
    found = check_data(source(table_of(tmp_path, rows), (0.7, 0.15, 0.15)))
    assert found.splits["train"]["a"] == 10
    assert any("a (10 of 30 images, 33%; its largest group holds 10)" in text for text in found.warnings)
