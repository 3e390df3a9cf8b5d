"""The table of export formats, and names in it."""

from __future__ import annotations

import pytest

from trainers.errors import TrainerError
from trainers.export.formats import FORMATS, export_formats
from trainers.export.run import OPENERS
from trainers.export.write import WRITERS


def test_every_format_can_be_written_and_run() -> None:
    assert set(FORMATS) == set(WRITERS) == set(OPENERS)
    assert len({row.file for row in FORMATS.values()}) == len(FORMATS)


def test_names_come_once_and_in_the_order_of_the_table() -> None:
    assert [row.name for row in export_formats([" onnx", "savedmodel", "onnx", ""])] == ["savedmodel", "onnx"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["onx"], r"there is no export format 'onx'; did you mean onnx\? Known are savedmodel, tflite, "),
        ([" ", ""], "no format was given; known are savedmodel, tflite, "),
    ],
)
def test_other_names_are_answered_with_the_known_ones(names: list[str], sentence: str) -> None:
    with pytest.raises(TrainerError, match=sentence):
        export_formats(names)
