"""The words of `orch evaluate`: figures, the verdict on the test figure, what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import DataError
from orchestrator.evaluation.new_photos import Answers, Judged, TestAnswers, evaluate
from orchestrator.plain_json import json_ready
from orchestrator.report.new_photos import lines, to_dict, write_rows

CLASSES = ("a", "b")


def judged(wrong: int = 10, photos: int = 100, objects: int = 100, test_wrong: int = 10) -> Judged:
    labels = np.arange(photos) % 2
    rows = np.where(np.arange(photos)[:, None] < wrong, np.eye(2)[1 - labels], np.eye(2)[labels]) * 0.8 + 0.1
    answers = Answers(CLASSES, labels, rows, [str(i % objects) for i in range(photos)])
    test = TestAnswers(np.arange(200) >= test_wrong, certainty=np.full(200, 0.95))
    paths = [f"{i}.jpg" for i in range(photos)]
    found = evaluate(answers, test, 1.0 - np.eye(2))
    return Judged("m version 1", paths, answers, found, 2, 1, {"x.jpg": "it is a pipe"})


def text(found: Judged) -> str:
    return " ".join(" ".join(lines(found)).split())


def test_the_lines_say_what_was_judged_and_what_was_not() -> None:
    said = text(judged())
    assert "photos 100 photos; left out: 2 photos that it was trained or chosen on, 1 photo of its test split" in said
    assert "1 photo that cannot be read" in said
    assert "accuracy 90.0 % (95 % 82.4 to 94.7)" in said
    assert "mean cost 0.1 (95 % 0.05" in said
    assert "certainty 100.0 % of the photos have a highest probability below that of 95 % of the test photos" in said


@pytest.mark.parametrize(
    ("test_wrong", "objects", "verdict"),
    [
        (20, 100, "90.0 % (95 % 85.0 to 93.5) on 200 photos; 0.0 points here"),
        (20, 100, "p = 1.000: not more than chance explains"),
        (0, 100, "p < 0.001: more than chance"),
        (0, 5, "Too few objects to say whether that is more than chance"),
        (0, 5, "With fewer than 10 objects each counts as one photo, and other intervals are left out."),
        (0, 5, "photos 100 photos of 5 objects; left out"),
    ],
)
def test_the_verdict_on_the_test_figure(test_wrong: int, objects: int, verdict: str) -> None:
    assert verdict in text(judged(objects=objects, test_wrong=test_wrong))


def test_json_has_everything_and_no_nan() -> None:
    found = json.loads(json.dumps(json_ready(to_dict(judged(objects=5))), allow_nan=False))
    assert found["left_out"] == {"trained_on": 2, "tested_on": 1}
    assert found["unreadable"] == {"x.jpg": "it is a pipe"}
    assert found["macro_f1"]["low"] is None
    assert found["against_test"]["p_value"] is None
    assert found["against_test"]["exceeds_chance"] is False
    assert (len(found["per_class"]), len(found["worst"]), found["confused"][0]["photos"]) == (2, 10, 5)


def test_a_table_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"--csv: .*a.csv cannot be written \(.*\); name another file."):
        write_rows(judged(), tmp_path / "file" / "a.csv")
    assert "in " in write_rows(judged(), tmp_path / "new" / "deeper" / "a.csv")
    assert (tmp_path / "new" / "deeper" / "a.csv").is_file()
