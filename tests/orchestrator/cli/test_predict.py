"""`orch predict` and `orch evaluate`, as typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli import app
from tests.support.typed import said


def test_predict_names_what_is_missing_and_asks_which_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["predict", "a.jpg"]) == 3
    assert capsys.readouterr().err == "orch: there is nothing to predict. a.jpg: there is no such file.\n"
    (here / "a.jpg").write_bytes(b"no photo")
    assert app.run(["predict", "a.jpg"]) == 1
    assert "which model?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--csv", "a.xlsx"], "'--csv': a.xlsx does not end in .csv"),
        (["--csv", "-"], "'--csv': - does not end in .csv"),
        (["--csv", "."], "is a folder, not a file"),
        (["--csv", ""], "the name is empty; give one"),
        (["--csv", "/dev/null"], "/dev/null is a device, not a file, and is not replaced"),
        (["--csv", "a.csv", "--json"], "choose one of them"),
        (["--resume"], "add --csv FILE"),
        (["-", "-"], "can be given once"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(
    options: list[str], sentence: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "p.jpg").write_bytes(b"x")
    assert app.run(["predict", "p.jpg", *options]) == 2
    assert sentence in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["p.jpg"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--csv", "a.xlsx"], "'--csv': a.xlsx does not end in .csv"),
        (["--csv", "/dev/null"], "/dev/null is a device, not a file, and is not replaced"),
        (["--sweep", "a", "--model", "b"], "give one of them"),
        (["--sweep", "a", "--version", "1"], "give one of them"),
    ],
)
def test_evaluate_refuses_options_that_make_no_sense(
    options: list[str], sentence: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["evaluate", "new", *options]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_evaluate_asks_which_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["evaluate", "new"]) == 1
    assert "which model?" in capsys.readouterr().err
    assert app.run(["evaluate", "new", "--version", "2"]) == 1
    assert "Name one: `orch evaluate PHOTOS --model NAME`" in capsys.readouterr().err
    assert app.run(["evaluate", "new", "--sweep", "nowhere"]) == 1
    assert "there is no sweep 'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_table_among_the_photos_is_refused(here: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    (here / "photos").mkdir()
    words = said(capsys, verb, "photos", "--csv", "photos/labels.csv", code=2)
    assert words.startswith(
        "orch: --csv: photos/labels.csv lies in photos, the folder of the photos, whose next reading"
    )
