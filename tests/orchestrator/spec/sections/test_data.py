"""The ``data`` section."""

from __future__ import annotations

import pytest

from orchestrator.spec.dump import dump_spec
from orchestrator.spec.sections.data import SplitRatios
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
        "2:42: data.splits: own needs a table with a split column (.csv, .tsv, .parquet), or ",
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
        "{source: 'builtin:digits', splits: {val: 0.2}}",
        '2:43: data.splits.val: no such field; did you mean "validation"? All',
    ),
    (
        "{source: 'builtin:digits', encoding: gb18031}",
        '2:44: data.encoding: found "gb18031"; allowed: auto, or a text encoding such as gb18030, ',
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


def test_splits_that_are_left_out_are_automatic_and_every_form_is_read_back(load):
    for text, expected in (("", "auto"), (", splits: auto", "auto"), (", splits: own", "own")):
        data = f"{{source: .{text}}}"
        spec = load(sweep().replace("{source: 'builtin:digits'}", data))
        assert spec.data.splits == expected
        assert load(dump_spec(spec)) == spec
    given = load(sweep().replace("digits'}", "digits', splits: {train: 0.6, validation: 0.2, test: 0.2}}"))
    assert load(dump_spec(given)).data.splits == SplitRatios(train=0.6, validation=0.2, test=0.2)
