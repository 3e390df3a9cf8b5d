"""The lines of a sweep's stages, and of its notes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.ledger.segments import Event, EventKind
from orchestrator.report.stage_lines import stage_lines

DATA = {"classes": ["a", "b"], "images": {"train": 80, "validation": 10, "test": 10}, "folds": 0, "to_choose_on": 10}
DATA |= {"class_counts": ["first", "second"], "warnings": ["2 photos are damaged."]}


def lines(stage: str, state: str, payload: dict[str, Any], reason: str = "") -> list[str]:
    kind = EventKind.STAGE if state else EventKind.NOTE
    event = Event(seq=1, time_s=0.0, kind=kind, stage=stage, state=state, reason=reason, payload=json.dumps(payload))
    return stage_lines(event)


def test_data_come_with_their_classes_and_warnings() -> None:
    assert lines("data", "ENDED", DATA) == [
        "data     100 images of 2 classes: 80 to train on, 10 to choose on, 10 to judge on at the end",
        "classes  first",
        "         second",
        "warning  2 photos are damaged.",
    ]
    (first, *_) = lines("data", "ENDED", DATA | {"folds": 5, "to_choose_on": 90})
    assert "90 in 5 folds to train and choose on, 10 to judge" in first


@pytest.mark.parametrize(
    ("stage", "state", "payload", "expected"),
    [
        ("data", "BEGUN", {"sources": ["a", "b"]}, ["data     reading a, b"]),
        ("search", "ENDED", {"states": {"COMPLETED": 2, "FAILED": 1}, "reason": "Time is up."},
         ["search   2 COMPLETED, 1 FAILED. Time is up."]),
        ("refit", "BEGUN", {"fits": 6, "done": 2, "splits": ["train", "validation"], "epochs": 9},
         ["refit    4 networks on train + validation, 9 epochs each"]),
        ("refit", "BEGUN", {"fits": 6, "done": 0, "splits": ["train", "validation"], "epochs": 9, "held_out": 3},
         ["refit    6 networks on train + validation, 3 of them on train alone, 9 epochs each"]),
        ("leaderboard", "BEGUN", {"reads_test": 3, "networks": 6, "policies": 2},
         ["judge    6 networks under 2 crop policies on the test split"]),
        ("refit", "BEGUN", {"fits": 1, "done": 0, "splits": ["train"], "epochs": 1},
         ["refit    1 network on train, 1 epoch each"]),
        ("leaderboard", "BEGUN", {"reads_test": 1, "networks": 1, "policies": 1},
         ["judge    1 network under 1 crop policy on the test split"]),
        ("select", "ENDED", {"winner": {"reason": "it is the best."}}, ["winner   it is the best."]),
        ("refit", "ENDED", {}, []),
        ("export", "BEGUN", {"reads_test": 1}, []),
        ("plan", "", {"text": "none: it looks short"}, ["plan     none: it looks short"]),
        ("", "", {"machine": {"cpus": 8.0, "gpus": 2.0, "gpus_per_trial": 0.5}},
         ["machine  Ray has 8 CPUs and 2 GPUs; 0.5 GPU a trial"]),
        ("", "", {"promotion": "champion"}, []),
    ],
)  # fmt: skip
def test_a_line_for_each_event(stage: str, state: str, payload: dict[str, Any], expected: list[str]) -> None:
    assert lines(stage, state, payload) == expected


def test_forms_say_what_was_made_and_chosen() -> None:
    made = {"soup": {"fits": ["a"], "text": "The soup averages 2 of 3 networks."}, "ensemble": {"fits": ["b", "c"]}}
    payload = {"winner": {}, "made_of": made, "why": "soup is the cheapest."}
    assert lines("forms", "ENDED", payload) == [
        "forms    The soup averages 2 of 3 networks.",
        "         soup is the cheapest.",
    ]
    assert lines("forms", "ENDED", {"winner": {}}) == []


def test_a_note_with_a_reason_is_a_warning() -> None:
    assert lines("prefill", "", {}, reason="the disk is full.") == ["warning  the disk is full."]


def test_a_search_says_whether_it_shares_and_how_many_folds() -> None:
    (first,) = lines("search", "BEGUN", {"trials": 4, "share": True, "folds": 0})
    assert "run each frozen part once" in first
    first, second = lines("search", "BEGUN", {"trials": 4, "share": False, "folds": 3})
    assert "--no-share" in first
    assert "each trial is 3 fits" in second


def test_the_front_comes_before_the_winner() -> None:
    rows = [{"trial": "a", "values": {"val_accuracy": 0.9, "val_loss": 0.2}, "chosen": True}]
    found = lines("select", "ENDED", {"winner": {"reason": "it is on the front.", "front": rows}})
    assert [line[:9].strip() for line in found] == ["front", "", "winner"]
