"""What ``--out`` may name, looked at before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from orchestrator.cli.options import check_out_file, check_out_folder


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
