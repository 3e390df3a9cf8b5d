"""The ``data`` section."""

from __future__ import annotations

import pytest

from tests.support.sweep_files import mistakes, sweep

DATA = [
    (
        "{source: 'builtin:digit'}",
        '2:16: data.source: found "builtin:digit"; did you mean "builtin:digits"? Built in: ',
    ),
    ("{source: 5}", "2:16: data.source: found 5; allowed: a path, a list of paths, or builtin:digits."),
    ("{}", "2:7: data.source: is missing. Where the photos are: a folder with one subfolder per class, "),
    ("{source: nowhere}", "2:16: data.source: there is no file or folder "),
    (
        "{source: 'builtin:digits', splits: own}",
        "2:42: data.splits: own needs a table with a split column (.csv or .parquet)",
    ),
    (
        "{source: 'builtin:digits', splits: half}",
        '2:42: data.splits: found "half"; allowed: {train: 0.7, validation: 0.15',
    ),
    (
        "{source: 'builtin:digits', splits: {train: 0.8}}",
        "2:42: data.splits: train, validation and test add up to 1.1; they ",
    ),
    (
        "{source: 'builtin:digits', splits: {trian: 0.7}}",
        '2:43: data.splits.trian: no such field; did you mean "train"? All',
    ),
    (
        "{source: 'builtin:digits', splits: {test: 0}}",
        "2:49: data.splits.test: found 0; allowed: a number, above 0 and below",
    ),
    (
        "{source: 'builtin:digits', duplicates: dorp}",
        '2:46: data.duplicates: found "dorp"; did you mean "drop"? Allowed: ',
    ),
]


@pytest.mark.parametrize(("text", "sentence"), DATA)
def test_a_mistake_in_the_data(load, text, sentence):
    found = mistakes(load, sweep().replace("{source: 'builtin:digits'}", text))
    assert len(found) == 1
    assert found[0].startswith(f"f.yaml:{sentence}")
