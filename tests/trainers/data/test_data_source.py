"""What a source may say: its words and numbers are checked before anything is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from trainers.data.data_source import DUPLICATES, DataSource, check_source
from trainers.errors import TrainerError


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"duplicates": "merge"}, "duplicates is 'merge'; it must be one of group, drop, keep."),
        ({"splits": (0.5, 0.5, 0.0)}, "the splits are 0.5, 0.5, 0.0; give three positive ratios"),
        ({"folds": 1}, "folds is 1; it must be 0 for one split, or 2 to 20"),
        ({"folds": 21}, "folds is 21; it must be"),
    ],
)
def test_a_wrong_word_or_number_is_a_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(TrainerError) as caught:
        check_source(dataclasses.replace(DataSource("no such place", "auto", Path("no such cache")), **change))
    assert sentence in str(caught.value)


@pytest.mark.parametrize("duplicates", DUPLICATES)
@pytest.mark.parametrize("splits", ["auto", None, (7, 2, 1)])
def test_what_may_be_said_is_taken_without_looking_at_the_disk(duplicates: str, splits: object) -> None:
    check_source(DataSource("no such place", splits, Path("no such cache"), duplicates=duplicates, folds=2))
