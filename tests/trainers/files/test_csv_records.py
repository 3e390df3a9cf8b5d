"""Records of a CSV: separators, comment lines, ends of lines, quotes."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.errors import TrainerError
from trainers.files.csv_records import SEPARATORS, csv_records, take_header

NEEDED = ("path", "label")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_with_every_end(end: str) -> None:
    text = end.join(["# a, b", "", "path,label", "1,a", "", '"2', 'x",b', "3,c"])
    assert [(place, row[1]) for place, row in csv_records(text, NEEDED)] == [(3, "label"), (4, "a"), (6, "b"), (8, "c")]


def test_the_needed_columns_decide_the_separator() -> None:
    assert next(csv_records("path;label;a,b,c,d,e\n", NEEDED)) == (1, ["path", "label", "a,b,c,d,e"])
    assert next(csv_records("x|y;z|w\n", NEEDED)) == (1, ["x", "y;z", "w"])
    assert take_header(csv_records(" path , label ,,\n", NEEDED)) == ("path", "label")
    assert take_header(csv_records("", NEEDED)) == ()


@given(
    st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=9).filter(
                lambda cell: bool(cell.strip())
            ),
            min_size=2,
            max_size=2,
        ),
        max_size=6,
    ),
    st.sampled_from(SEPARATORS),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_python_writes_is_read_back(rows: list[list[str]], sign: str, end: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, csv.excel, delimiter=sign, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(
        [list(NEEDED), *rows]
    )
    assert [row for _, row in csv_records(text.getvalue(), NEEDED)] == [list(NEEDED), *rows]


def test_an_open_quote_is_a_sentence_with_its_line() -> None:
    with pytest.raises(TrainerError, match="unexpected end of data, in the row that begins at line 3"):
        list(csv_records('path,label\n1,a\n2,"b\n3,c\n', NEEDED))
