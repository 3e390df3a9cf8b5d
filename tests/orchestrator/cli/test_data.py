"""`orch data check`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli import app
from tests.support.photos_on_disk import write_photo
from tests.support.typed import SPEC, said


def test_data_check_prints_the_report_and_a_problem_is_exit_code_3(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for label, count in (("cat", 6), ("dog", 1)):
        (here / "photos" / label).mkdir(parents=True)
        for i in range(count):
            pixels = noise.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(here / "photos" / label / f"{i}.png")
    assert app.run(["data", "check", "photos"]) == 3
    assert "photos: 7 images in 2 classes" in capsys.readouterr().out
    assert app.run(["data", "check", "photos", "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["classes"] == {"cat": 6, "dog": 1}
    assert report["problems"]
    assert app.run(["data", "check", "nowhere"]) == 3
    assert "nowhere" in capsys.readouterr().err


def _photos(here: Path, *folders: str) -> None:
    for number, folder in enumerate(folders):
        for i in range(6):
            write_photo(here / folder / f"{i}.png", 100 * number + i)


def test_data_check_of_a_file_divides_as_the_file_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _photos(here, *(f"photos/{part}/{label}" for part in ("train", "val", "test") for label in "ab"))
    rest = "search: {dropout: 0}\nbudget: {trials: 1, epochs: 1}\nweights: none\n"
    (here / "my.yaml").write_text(f"name: my\ndata: {{source: photos}}\n{rest}")
    (here / "anew.yaml").write_text(f"name: my\ndata: {{source: photos, splits: {{test: 0.05, train: 0.8}}}}\n{rest}")
    seen = []
    for source in ("photos", "my.yaml", "anew.yaml"):
        assert app.run(["data", "check", source, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        seen.append({split: sum(classes.values()) for split, classes in report["splits"].items()})
    assert seen[0] == seen[1] == {"train": 12, "validation": 12, "test": 12}
    assert seen[2] != seen[0]


def test_the_encoding_of_a_table_can_be_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _photos(here, "photos")
    rows = "".join(f"{i}.png,{'유리' if i < 3 else '종이'}\n" for i in range(6))
    (here / "photos" / "t.csv").write_bytes(f"path,label\n{rows}".encode("cp949"))
    assert app.run(["data", "check", "photos/t.csv", "--encoding", "cp949"]) == 0
    out = capsys.readouterr().out
    assert "유리" in out
    assert "is read as" not in out
    assert app.run(["data", "check", "photos/t.csv"]) == 0
    assert "t.csv is not UTF-8 and is read as cp949" in capsys.readouterr().out
    assert app.run(["data", "check", "photos/t.csv", "--encoding", "klingon"]) == 3
    assert "there is no text encoding 'klingon'" in capsys.readouterr().err


VERBS = (
    ("data", "check", "photos"),
    ("data", "check", "my.yaml"),
    ("plan", "my.yaml"),
    ("data", "preview", "my.yaml"),
    ("sweep", "my.yaml", "--out", "runs/my"),
)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (("photos/train", "photos/val", "photos/test"), "is named as a split but holds images directly"),
        (("photos/train/a", "photos/valid/a", "photos/more"), "look like splits, but more next to them is none."),
        (("photos/a/train", "photos/a/test", "photos/b/train", "photos/b/test"), "splits must be the top folders"),
    ],
)
def test_every_verb_refuses_photos_with_the_same_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], verb: tuple[str, ...], folders: tuple[str, ...], sentence: str
) -> None:
    _photos(here, *folders)
    rest = "search: {dropout: 0}\nbudget: {trials: 1, epochs: 1}\nweights: none\ntracking: {enabled: false}\n"
    (here / "my.yaml").write_text(f"name: my\ndata: {{source: photos}}\n{rest}")
    assert app.run([*verb]) == 3
    shown = "".join(capsys.readouterr())
    assert sentence in " ".join(shown.split())
    assert "KeyError" not in shown


@pytest.mark.parametrize(
    "line",
    [
        ["sweep", "a.yaml"],
        ["sweep", "a.yaml", "--out", "photos/new"],
        ["data", "preview", "a.yaml", "--out", "photos/sheet.png"],
        ["data", "check", "photos", "--write", "photos/bad.csv"],
        ["data", "check", "a.yaml", "--write", "photos/bad.csv"],
        ["data", "check", "photos", "--move-bad", "photos/bad"],
    ],
)
def test_nothing_is_written_among_the_photos(here: Path, capsys: pytest.CaptureFixture[str], line: list[str]) -> None:
    (here / "photos").mkdir()
    (here / "runs").symlink_to("photos")
    (here / "a.yaml").write_text(SPEC.replace("builtin:digits", "photos"))
    assert "the folder of the photos, whose next reading would find it among them" in said(capsys, *line, code=2)
    assert not [*(here / "photos").iterdir()]
