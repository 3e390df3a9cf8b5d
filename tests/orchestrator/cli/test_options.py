"""What ``--out`` may name, looked at before any work."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from matplotlib.figure import Figure
from PIL import Image

from dashboards.style import save
from orchestrator.cli import app, data, predict
from orchestrator.cli.options import Numbers, check_out_file, check_out_folder
from orchestrator.commands import prediction_rows
from orchestrator.commands.data import bad_files, confident_learning
from orchestrator.report import new_photos
from trainers.files.suffixes import DRAWN


def context(**params: object) -> typer.Context:
    made = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)))
    made.params = params
    return made


def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert check_out_folder(context(), tmp_path / "new" / "deeper") == tmp_path / "new" / "deeper"
    for wrong in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "dangling", Path("/dev/null")):
        with pytest.raises(typer.BadParameter, match="is not a folder"):
            check_out_folder(context(), wrong)
        assert check_out_folder(context(resume=True), wrong) == wrong
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


def test_a_file_below_no_folder_or_over_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert check_out_file(tmp_path / "new" / "a.png") == tmp_path / "new" / "a.png"
    for wrong in (tmp_path / "file" / "a.png", tmp_path, Path("/dev/null")):
        with pytest.raises(typer.BadParameter):
            check_out_file(wrong)


TYPED = {
    "data check": ["photos"],
    "data preview": ["quick"],
    "data suspects": [],
    "evaluate": ["photos"],
    "export": [],
    "predict": ["photo.png"],
    "sweep": ["quick"],
    "weights convert": ["weights.pth"],
}
"""Arguments with which a verb that writes where it is told would begin its work."""
READ = {("evaluate", "--costs")}
"""Options that name a file to read."""


def options_of_paths(command: object, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (verb, option, metavar) of every option that names a file or a folder."""
    for below, inner in getattr(command, "commands", {}).items():
        yield from options_of_paths(inner, f"{name} {below}".strip())
    for option in [] if hasattr(command, "commands") else command.params:  # type: ignore[attr-defined]
        is_path = getattr(getattr(option, "type_descriptor", None), "annotation", None) is Path
        if option.param_type_name == "option" and (is_path or option.metavar in ("FILE", "DIR", "FOLDER", "PATH")):
            yield name, option.opts[0], option.metavar


def outputs() -> list[tuple[str, str, str]]:
    return [row for row in options_of_paths(typer.main.get_command(app.app)) if row[:2] not in READ]


def test_every_option_that_names_what_to_write_is_looked_at_below() -> None:
    assert sorted(row[:2] for row in outputs()) == [
        ("data check", "--move-bad"),
        ("data check", "--write"),
        ("data preview", "--out"),
        ("data suspects", "--out"),
        ("data suspects", "--sheet"),
        ("evaluate", "--csv"),
        ("export", "--out"),
        ("predict", "--csv"),
        ("sweep", "--out"),
        ("weights convert", "--out"),
    ]
    assert {row[0] for row in outputs()} == set(TYPED)


@pytest.mark.parametrize(("verb", "option", "metavar"), outputs())
def test_nothing_but_a_file_or_folder_of_its_kind_is_written(
    verb: str,
    option: str,
    metavar: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before any work: exit code 2 and a sentence, and what is there stays as it is."""
    monkeypatch.chdir(tmp_path)
    for suffix in ("", ".csv", ".png", ".weights.h5"):
        os.mkfifo(f"pipe{suffix}")
        os.mkdir(f"folder{suffix}")
        Path(f"null{suffix}").symlink_to("/dev/null")
        Path(f"file{suffix}").write_text("kept")
        Path(f"loop{suffix}").symlink_to(f"loop{suffix}")
    before = sorted(path.name for path in tmp_path.iterdir())
    endings = [".csv", ".png", ".weights.h5"]
    hostile = ["", " ", "/dev/null", "pipe", "null", "file/below", "loop"]
    hostile += [f"{name}{ending}" for name in ("pipe", "null", "file/below", "loop") for ending in endings]
    if metavar == "FILE":
        hostile += ["written.svgz", "written.txt", "written"]
        hostile += [] if verb == "weights convert" else [".", "folder", *(f"folder{ending}" for ending in endings)]
    else:
        hostile += [f"file{ending}" for ending in endings]
    for value in hostile:
        assert (app.run([*verb.split(), *TYPED[verb], option, value]), value) == (2, value)
        said = capsys.readouterr().err
        assert f"Invalid value for '{option}'" in said, value
    assert len(hostile) >= 22
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert all(stat.S_ISFIFO(os.stat(name).st_mode) for name in before if name.startswith("pipe"))
    assert {Path(name).read_text() for name in before if name.startswith("file")} == {"kept"}


def test_a_file_that_will_be_replaced_is_named_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    assert check_out_file(path, (".csv",), replaces=True) == path
    assert capsys.readouterr().err == ""
    path.touch()
    check_out_file(path, (".csv",), replaces=True)
    assert capsys.readouterr().err == f"note     {path} exists and will be replaced\n"


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_photo_is_not_replaced(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.new("RGB", (40, 40), "red").save(path)
    with pytest.raises(typer.BadParameter, match="may be a photo of yours"):
        check_out_file(path, DRAWN, replaces=True)


TABLES = {data.BAD_FILES: bad_files.COLUMNS, data.SUSPECTS: confident_learning.COLUMNS, predict.JUDGED: new_photos.ROWS}


@pytest.mark.parametrize("columns", TABLES)
def test_a_table_of_ones_own_is_not_replaced(tmp_path: Path, columns: tuple[str, ...]) -> None:
    assert columns == TABLES[columns]
    path = tmp_path / "labels.csv"
    for text in (
        "path,label\na.jpg,a\n",
        f"{','.join(columns)},mine\n",
        f"{','.join(prediction_rows.COLUMNS)}\n",
        "\n",
    ):
        path.write_text(text)
        with pytest.raises(typer.BadParameter, match="not a table that this verb wrote, so it is not replaced; name"):
            check_out_file(path, (".csv",), replaces=True, columns=columns)
        assert path.read_text() == text
    for text in (",".join(columns) + "\r\na,b,c\r\n", ""):
        path.write_text(text)
        assert check_out_file(path, (".csv",), replaces=True, columns=columns) == path


def test_each_verb_that_replaces_a_table_knows_its_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("labels.csv").write_text("path,label\na.jpg,a\n")
    for line in ("data check labels.csv --write", "data suspects --out", "evaluate labels.csv --csv"):
        assert app.run([*line.split(), "labels.csv"]) == 2
        assert "labels.csv exists and is not a table that this verb wrote" in capsys.readouterr().err
    assert Path("labels.csv").read_text() == "path,label\na.jpg,a\n"


@pytest.mark.parametrize("suffix", DRAWN)
def test_a_sheet_that_orch_drew_is_replaced(tmp_path: Path, suffix: str) -> None:
    path = save(Figure(figsize=(9, 9)), tmp_path / f"a{suffix}")
    assert check_out_file(path, DRAWN, replaces=True) == path


def numeric_options(command: object, verb: str = "") -> Iterator[tuple[str, str]]:
    """Yield (verb, option) of every option that takes a number."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from numeric_options(inner, f"{verb} {name}".strip())
    for option in [] if hasattr(command, "commands") else command.params:  # type: ignore[attr-defined]
        if option.type_descriptor.annotation in (int, float):
            yield verb, option.opts[0]


def test_every_option_that_takes_a_number_says_what_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(numeric_options(typer.main.get_command(app.app)))
    typed = {**TYPED, "plan": ["quick"], "ui": [], "cache prune": [], "promote best": []}
    for verb, option in found:
        for wrong in ("abc", "nan", ""):
            assert app.run([*verb.split(), *typed[verb], option, wrong]) == 2
            said = capsys.readouterr().err
            assert f"orch: Invalid value for '{option}': found {wrong!r}; allowed: a " in said
            assert ", such as " in said
    assert len(found) == 14


@pytest.mark.parametrize(
    ("allowed", "words", "right", "wrong"),
    [
        (
            Numbers(int, "12", 1, 200),
            "a whole number at least 1 and at most 200, such as 12",
            ["1", "200"],
            ["0", "1.5"],
        ),
        (Numbers(float, "0.95", 0, 1, True), "a number above 0 and below 1, such as 0.95", [".5"], ["0", "1", "nan"]),
        (Numbers(float, "20", 0), "a number at least 0, such as 20", ["0", "1e3"], ["-1", "inf", "2,5"]),
        (Numbers(int, "7"), "a whole number, such as 7", ["-7"], ["inf", "x"]),
    ],
)
def test_numbers(allowed: Numbers, words: str, right: list[str], wrong: list[str]) -> None:
    assert str(allowed) == words
    assert [allowed.read(text) for text in right] == [float(text) for text in right]
    assert allowed.read(allowed.kind(allowed.example)) == float(allowed.read(allowed.example))
    for text in wrong:
        with pytest.raises(typer.BadParameter, match="found"):
            allowed.read(text)
