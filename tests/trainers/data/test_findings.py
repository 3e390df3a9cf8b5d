"""What is said about photos that have been read: empty and small classes, names of copies."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from tests.support.photos_on_disk import (
    error_of,
    folder_of,
    source,
    warnings_of,
)
from trainers.data.build import check_data


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
