"""`orch predict`: which files are asked about, and what comes back, with a champion that is no network."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from orchestrator.commands import predict
from orchestrator.errors import DataError, OrchError
from orchestrator.tracking import registry
from tests.support.photos_on_disk import HOSTILE, write_hostile
from tests.support.powerless import needs_modes, powerless
from tests.support.sweep_on_disk import write_sweep
from trainers.errors import TrainerError
from trainers.files.plain import AT_ONCE
from trainers.files.suffixes import PHOTOS


class Champion:
    """Says "long" of more than ten bytes and "short" of others; refuses what starts with "bad"."""

    def __init__(self) -> None:
        self.calls = 0
        self.asked: list[tuple[str | None, str]] = []

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.calls += 1
        images = frame["image"].tolist()
        if any(image.startswith(b"bad") for image in images):
            raise TrainerError("cannot decode\nan image")
        labels = ["long" if len(image) > 10 else "short" for image in images]
        said = [json.dumps({"long": 0.75, "short": 0.25})] * len(images)
        return pd.DataFrame({"label": labels, "probability": 0.75, "probabilities": said})


@pytest.fixture
def champion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Champion:
    """What the registry hands out, for every model asked for."""
    found = Champion()

    def load(uri: str | None, name: str) -> Champion:
        found.asked.append((uri, name))
        return found

    monkeypatch.setattr(registry, "load_champion", load)
    monkeypatch.chdir(tmp_path)
    return found


def _photos(folder: Path) -> None:
    (folder / "deep").mkdir(parents=True)
    (folder / "b.JPG").write_bytes(b"a long picture")
    (folder / "a.png").write_bytes(b"brief")
    (folder / "deep" / "c.webp").write_bytes(b"bad")
    (folder / "notes.txt").write_text("not a photo")


def test_folders_are_searched_and_named_files_are_taken_as_they_are(tmp_path: Path) -> None:
    _photos(tmp_path / "photos")
    found = predict.photos([tmp_path / "photos", tmp_path / "photos" / "notes.txt"])
    assert [p.name for p in found] == ["a.png", "b.JPG", "c.webp", "notes.txt"]


LISTED = """
import sys
from pathlib import Path
from orchestrator.commands.predict import photos
print([path.name for path in photos([Path("photos")], print)])
"""


@needs_modes
def test_a_folder_that_cannot_be_listed_leaves_the_others(tmp_path: Path) -> None:
    _photos(tmp_path / "photos")
    closed = tmp_path / "photos" / "lost+found"
    closed.mkdir(mode=0)
    done = powerless(tmp_path, [sys.executable, "-c", LISTED])
    closed.chmod(0o755)
    assert done.stdout.splitlines() == [
        "photos: the folder lost+found is left out: it cannot be looked into (permission denied).",
        "['a.png', 'b.JPG', 'c.webp']",
    ], done.stderr


def test_what_is_no_photo_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there is no photo in .*empty \(looked for \.jpg"):
        predict.photos([tmp_path / "empty"])
    with pytest.raises(DataError, match=r"there is no .*x\.jpg, .*y\.jpg\."):
        predict.photos([tmp_path / "x.jpg", tmp_path / "y.jpg"])


def test_a_folder_is_walked_as_training_does(tmp_path: Path) -> None:
    kept = [f"{i:02}{suffix}" for i, suffix in enumerate(PHOTOS)]
    for name in [*kept, "._a.jpg", "notes.txt", "__MACOSX/a.jpg", ".ipynb_checkpoints/a.png", ".hidden.jpg"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [p.name for p in predict.photos([tmp_path])] == kept
    assert len(kept) >= 19


@pytest.mark.timeout(20)
def test_what_is_no_plain_file_is_answered_with_its_reason(champion: Champion, tmp_path: Path) -> None:
    write_hostile(tmp_path / "p")
    (tmp_path / "p" / "proc.jpg").symlink_to("/proc/kmsg")
    (tmp_path / "p" / "a.png").write_bytes(b"brief")
    named = [tmp_path / "p" / name for name in HOSTILE if name != "folder.jpg"]
    found = {one.path: one for one in predict.predict_photos([tmp_path / "p", *named], "garbage")}
    assert len(found) == len(HOSTILE) + 2
    for name, reason in HOSTILE.items():
        error = found[str(tmp_path / "p" / name)].error
        assert error.startswith("cannot be read: it ")
        assert reason in error
    assert found[str(tmp_path / "p" / "a.png")].label == "short"


def test_one_bad_photo_costs_the_others_nothing(champion: Champion, tmp_path: Path) -> None:
    _photos(tmp_path / "photos")
    found = predict.predict_photos([tmp_path / "photos"], "garbage")
    assert [(Path(p.path).name, p.label, p.error) for p in found] == [
        ("a.png", "short", ""),
        ("b.JPG", "long", ""),
        ("c.webp", None, "cannot decode an image"),
    ]
    assert found[0].to_dict() == {
        "path": str(tmp_path / "photos" / "a.png"),
        "label": "short",
        "probability": 0.75,
        "probabilities": {"long": 0.75, "short": 0.25},
    }
    assert found[2].to_dict() == {
        "path": str(tmp_path / "photos" / "deep" / "c.webp"),
        "error": "cannot decode an image",
    }
    assert champion.asked == [(None, "garbage")]


def test_an_error_says_why_and_leaves_the_place_to_the_path(
    champion: Champion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(frame: pd.DataFrame) -> pd.DataFrame:
        raise TrainerError(f"image 1 of {len(frame)} cannot be read: the file is empty.")

    monkeypatch.setattr(champion, "predict", refuse)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    found = predict.predict_photos([tmp_path], "garbage")
    assert [one.error for one in found] == ["cannot be read: the file is empty."] * 2


def test_good_photos_are_asked_about_together(champion: Champion, tmp_path: Path) -> None:
    for i in range(AT_ONCE + 1):
        (tmp_path / f"{i:03}.png").write_bytes(b"x")
    assert len(predict.predict_photos([tmp_path], "garbage")) == AT_ONCE + 1
    assert champion.calls == 2


def test_without_a_name_the_newest_sweep_says_which_model(champion: Champion, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(OrchError, match=r"which model\? there is no sweep\. .*`orch predict PATH --model NAME`"):
        predict.predict_photos([tmp_path / "a.png"], None)
    write_sweep(tmp_path / "runs" / "tiny")
    predict.predict_photos([tmp_path / "a.png"], None)
    assert champion.asked == [(None, "digits")]


def test_the_table_has_one_line_a_photo() -> None:
    text = io.StringIO()
    found = [
        predict.Prediction("a [1].png", "cat", 0.5, {"cat": 0.5}),
        predict.Prediction("b.png", error="broken"),
    ]
    predict.print_predictions(found, Console(file=text, width=80))
    assert [line.split() for line in text.getvalue().splitlines()] == [
        ["a", "[1].png", "0.500", "cat"],
        ["b.png", "broken"],
    ]
