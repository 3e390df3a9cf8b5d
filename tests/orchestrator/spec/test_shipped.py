"""Finding a sweep's file."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.errors import SpecError
from orchestrator.spec.load import load_spec, open_spec
from orchestrator.spec.shipped import shipped_spaces


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("quik", "there is no file quik; did you mean quick? Shipped sweeps are "),
        ("nowhere/x.yaml", "there is no file nowhere/x.yaml. Shipped sweeps are "),
        (".", ". is a folder; name the YAML file in it."),
        ("a\0b", "there is no file a\0b. Shipped sweeps are "),
    ],
)
def test_a_file_that_is_not_there(name, sentence):
    with pytest.raises(SpecError) as error:
        load_spec(name)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    "path", ["search_spaces/quick.yaml", "search_spaces/quick", "./search_spaces/quick.yaml", "quick.yaml"]
)
def test_a_shipped_file_is_found_by_its_path(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = open_spec(path, environ={})
    assert found.spec == load_spec("quick", environ={})
    (line,) = found.notes
    assert f"there is no {path} here; using the shipped quick, " in line
    assert str(shipped_spaces()["quick"]) in line
    assert open_spec("quick", environ={}).notes == ()


@pytest.mark.parametrize("path", ["search_spaces/quick.yaml", "search_spaces/quick"])
def test_a_file_of_ones_own_comes_before_the_shipped_one(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / path).write_text(shipped_spaces()["quick"].read_text().replace("name: quick", "name: own"))
    found = open_spec(path, environ={})
    assert (found.spec.name, found.notes) == ("own", ())


@pytest.mark.parametrize("path", ["other/quick.yaml", "search_spaces/quick.yml", "/search_spaces/quick.yaml"])
def test_no_other_path_stands_for_a_shipped_file(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"there is no file .*did you mean quick"):
        load_spec(path)


def test_data_check_takes_a_sweeps_file_for_its_photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["data", "check", "search_spaces/quick.yaml"]
    shown = CliRunner().invoke(app, line)
    assert shown.exit_code == 0, shown.output
    assert "using the shipped quick" in shown.output
    assert "1,797" in shown.output.replace("1797", "1,797")
    assert CliRunner().invoke(app, ["data", "check", "quick"]).output == "".join(shown.output.splitlines(True)[1:])
    (tmp_path / "quick").mkdir()  # a folder of photos that is called so comes first
    assert CliRunner().invoke(app, ["data", "check", "quick"]).exit_code != 0
    monkeypatch.delenv("ORCH_PHOTOS", raising=False)
    unset = CliRunner().invoke(app, ["data", "check", "search_spaces/small"])
    assert "export ORCH_PHOTOS=/path/to/photos" in str(unset.exception)
