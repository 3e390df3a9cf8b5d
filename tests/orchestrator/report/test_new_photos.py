"""The words of `orch evaluate`: figures, the verdict on the test figure, what is left out."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from orchestrator.errors import DataError
from orchestrator.evaluation.new_photos import Answers, Judged, TestAnswers, evaluate
from orchestrator.plain_json import json_ready
from orchestrator.report.new_photos import lines, print_judged, to_dict, write_rows

CLASSES = ("a", "b")


def judged(
    wrong: int = 10,
    photos: int = 100,
    objects: int = 100,
    test_wrong: int = 10,
    far: int | None = None,
    test_photos: int = 200,
) -> Judged:
    """``far``: number of photos that are farther from the training photos than all test photos but 5 %."""
    labels = np.arange(photos) % 2
    rows = np.where(np.arange(photos)[:, None] < wrong, np.eye(2)[1 - labels], np.eye(2)[labels]) * 0.8 + 0.1
    distances = None if far is None else np.where(np.arange(photos) < far, 1.5 - np.arange(photos) / 100, 0.1)
    answers = Answers(CLASSES, labels, rows, [str(i % objects) for i in range(photos)], distances)
    known = None if far is None else np.linspace(0.0, 0.4, test_photos)
    certainty = np.linspace(1.0, 0.95, test_photos)
    test = TestAnswers(np.arange(test_photos) >= test_wrong, certainty=certainty, distances=known)
    paths = [f"{i}.jpg" for i in range(photos)]
    found = evaluate(answers, test, 1.0 - np.eye(2))
    return Judged("m version 1", paths, answers, found, ["c.jpg", "d.jpg"], ["e.jpg"], {"x.jpg": "it is a pipe"})


def text(found: Judged) -> str:
    return " ".join(" ".join(lines(found)).split())


def test_the_lines_say_what_was_judged_and_what_was_not() -> None:
    said = text(judged())
    assert "photos 100 photos; left out: 2 photos that it was trained or chosen on (c.jpg, d.jpg), 1 photo of" in said
    assert "1 photo of its test split (e.jpg), 1 photo that cannot be read (x.jpg)" in said
    assert "accuracy 90.0 % (95 % 82.4 to 94.7)" in said
    assert "mean cost 0.1 (95 % 0.05" in said
    assert "certainty 100.0 % of the photos have a highest probability below that of 95 % of the test photos" in said


def test_classes_without_photos_that_were_answered_are_said_next_to_macro_f1() -> None:
    assert "have no photo" not in text(judged())
    answers = Answers(("a", "b", "c", "d"), np.zeros(20, int), np.eye(4)[[0] * 18 + [1, 2]], list(map(str, range(20))))
    found = dataclasses.replace(judged(), answers=answers, evaluation=evaluate(answers, None))
    assert "; 3 of 4 classes have no photo here, and the 2 of them that were answered all the same count as 0" in text(
        found
    )


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


@pytest.mark.parametrize(
    ("far", "objects", "verdict"),
    [
        (None, 100, "distance how far these photos are from the training photos is not known"),
        (
            41,
            100,
            "distance 41.0 % (95 % 31.9 to 50.8) of these photos are farther from the training photos than 95 % ",
        ),
        (41, 100, "of the test photos are; 5 % would be expected, p < 0.001: more than chance. Another camera, backgr"),
        (6, 100, "not more than chance explains"),
        (0, 100, "fewer than by chance"),
        (41, 5, "Too few objects to say whether that is more than chance"),
    ],
)
def test_the_verdict_on_the_distance(far: int | None, objects: int, verdict: str) -> None:
    found = judged(objects=objects, far=far)
    assert verdict in text(found)
    assert len(found.farthest) == min(far or 0, 10)


@pytest.mark.parametrize("test_photos", [8, 32, 100, 200, 1000])
def test_a_limit_that_comes_from_few_test_photos_is_called_uncertain(test_photos: int) -> None:
    said = text(judged(far=41, test_photos=test_photos))
    doubt = f"5 % would be expected, but the limit comes from {test_photos} photos of the test split alone"
    assert said.count(doubt) == (2 if test_photos < 200 else 0)  # of the certainty, and of the distance
    assert said.count("% of photos like those may be beyond it (95 %)") == (2 if test_photos < 200 else 0)
    if test_photos == 32:
        assert "alone: 0.7 to 21.2 % of photos like those may" in said


def test_some_of_many_photos_that_were_seen_are_named() -> None:
    found = dataclasses.replace(
        judged(), paths=[f"/p/new/{i}.jpg" for i in range(100)], tested=[f"/p/old/{i}.jpg" for i in range(7)]
    )
    assert "7 photos of its test split (old/0.jpg, old/1.jpg, old/2.jpg, old/3.jpg, old/4.jpg and 2 more)" in text(
        found
    )
    assert len(to_dict(found)["seen"]["tested_on"]) == 7


def test_the_farthest_photos_are_named_and_written(tmp_path: Path) -> None:
    found = judged(far=41)
    console = Console(file=io.StringIO(), width=80)
    print_judged(found, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\nthe farthest photos (95 % of the test photos are within 0.380)\n" in printed
    assert [row["path"] for row in found.farthest] == [f"{i}.jpg" for i in range(10)]
    write_rows(found, tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [float(row["distance"]) for row in rows[:2]] == [1.5, 1.49]
    write_rows(judged(), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines()[1].endswith(",")
    told = json.loads(json.dumps(json_ready(to_dict(found)), allow_nan=False))
    assert told["farness"]["are_far"] is True
    assert told["farness"]["share"]["value"] == 0.41
    assert told["farthest"][0]["distance"] == 1.5
    assert to_dict(judged())["farness"] is None


def test_json_has_everything_and_no_nan() -> None:
    found = json.loads(json.dumps(json_ready(to_dict(judged(objects=5))), allow_nan=False))
    assert found["left_out"] == {"trained_on": 2, "tested_on": 1}
    assert found["seen"] == {"trained_on": ["c.jpg", "d.jpg"], "tested_on": ["e.jpg"]}
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


@pytest.mark.parametrize(("columns", "layout"), [(80, "lines"), (140, "table")])
def test_no_path_is_folded_and_no_name_cut(columns: int, layout: str) -> None:
    names = ("Kunststoffverpackung", "waste of construction sites")
    found = judged(far=12)
    answers = dataclasses.replace(found.answers, classes=names)
    root = "/home/somebody/photos of the plant/2026/november/conveyor belt 3/left"
    paths = [f"{root}/{names[i % 2]}/photo-{i}-of-the-belt.jpg" for i in range(100)]
    console = Console(file=io.StringIO(), width=columns)
    print_judged(dataclasses.replace(found, answers=answers, paths=paths), console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"the most certain mistakes, in {root}\n" in printed
    for i in range(10):
        line = next(line for line in printed.splitlines() if f"/photo-{i}-of-the-belt.jpg" in line)
        assert line.startswith(f"{names[i % 2]}/photo-{i}-of-the-belt.jpg")
        assert (names[1 - i % 2] in line) == (layout == "table")
    assert printed.count("label waste of construction sites;\n    answer Kunststoffverpackung\n") == (
        10 if layout == "lines" else 0
    )


def test_a_name_that_a_terminal_would_obey_is_escaped() -> None:
    found = judged(photos=1, wrong=1, objects=1)
    console = Console(file=io.StringIO(), width=80)
    print_judged(dataclasses.replace(found, paths=["/a\x1b[2J/b\n.jpg"]), console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "the most certain mistakes, in /a\\x1b[2J\n" in printed
    assert "b\\n.jpg" in printed
