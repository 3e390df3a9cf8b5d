"""The listing of a source before any image is opened."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from trainers.data.listing import SourceNotes, is_split, is_text, label_of, like_split, listing, name_some, split_of


def test_rows_are_sorted_and_what_is_missing_is_none(tmp_path: Path) -> None:
    rows = pd.DataFrame({"path": ["b.jpg", "a.jpg"], "label": ["dog", "cat"], "group": [float("nan"), "g1"]})
    found = listing(tmp_path, rows, SourceNotes(["a warning."], ["a problem."]))
    assert found.rows.columns.tolist() == ["path", "label", "split", "group", "reason"]
    assert found.rows.to_numpy().tolist() == [
        ["a.jpg", "cat", None, "g1", None],
        ["b.jpg", "dog", None, None, None],
    ]
    assert (found.root, found.warnings, found.problems) == (tmp_path, ("a warning.",), ("a problem.",))
    assert rows["path"].tolist() == ["b.jpg", "a.jpg"]


@pytest.mark.parametrize(("splits", "has"), [(["train", None], True), ([None, None], False)])
def test_one_image_with_a_split_gives_the_source_splits(splits: list[str | None], has: bool) -> None:
    rows = pd.DataFrame({"path": ["a", "b"], "label": ["x", "y"], "split": splits})
    assert listing(Path(), rows, SourceNotes()).has_splits is has


def test_a_name_of_other_bytes_is_no_text() -> None:
    assert is_text("größe 1.jpg")
    assert not is_text(b"gr\xf6sse.jpg".decode("utf-8", "surrogateescape"))


def test_many_names_are_counted() -> None:
    assert name_some(["a", "b"]) == "a, b"
    assert name_some(str(number) for number in range(7)) == "0, 1, 2, 3, 4 and 2 more"
    assert name_some(["x"] * 2001, limit=1) == "x and 2,000 more"


@pytest.mark.parametrize(
    ("word", "split", "like"),
    [
        *((word, "train", "train") for word in ("train", "Training", "TRN", " train ", "train_set", "train-images")),
        *((word, "validation", "validation") for word in ("val", "Valid", "dev", "eval", "validation set")),
        *((word, "test", "test") for word in ("test", "tst", "testing", "holdout", "Hold-Out", "test_photos")),
        *((word, word, "train") for word in ("train2017", "my-train", "train (1)")),
        *((word, word, "") for word in ("trainer", "contest", "value", "trail", "", "sets", "纸")),
    ],
)
def test_words_for_splits(word: str, split: str, like: str) -> None:
    assert split_of(word) == split
    assert is_split(word) == (split in ("train", "validation", "test"))
    assert like_split(word) == like


def test_blanks_alone_stay_a_name() -> None:
    assert label_of(" ") == " "
    assert label_of(" a / b\u3000") == "a/b"
