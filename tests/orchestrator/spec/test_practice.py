"""What a new sweep takes for fields that its file leaves out, and what a sweep from before keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.spec.dump import dump_spec
from orchestrator.spec.load import load_spec, open_spec
from orchestrator.spec.practice import PRACTICE
from orchestrator.spec.space.domains import DEFAULTS
from orchestrator.spec.sweep import SweepSpec
from orchestrator.sweep.open import open_existing, open_new, write_spec

FILE = """name: tiny
data: {source: 'builtin:digits'}
search: {backbone: small_cnn, unfrozen_layers: all}
budget: {trials: 2, epochs: 3}
weights: none
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(FILE)
    return path


def practice_of(spec: SweepSpec) -> dict[str, object]:
    found = {name: spec.search.space.field(name) for name in PRACTICE}
    return {name: field.cases[0].domain.value for name, field in found.items() if field is not None}  # type: ignore[union-attr]


def test_a_new_sweep_takes_todays_practice_and_writes_it_down(file: Path) -> None:
    assert all(DEFAULTS[name] != value for name, value in PRACTICE.items())
    opened = open_new(open_spec(str(file)).spec, None, fresh=False)
    assert practice_of(opened.spec) == PRACTICE
    assert practice_of(load_spec(str(opened.paths.spec), check_machine=False)) == PRACTICE
    assert "batch_norm: adapted" in opened.paths.spec.read_text()


def test_what_the_file_says_stays(file: Path) -> None:
    file.write_text(FILE.replace("all}", "all, batch_norm: [frozen, inherited], draws: fixed, decode: ample}"))
    assert dump_spec(open_spec(str(file)).spec) == dump_spec(load_spec(str(file), check_machine=False))


def test_named_trials_take_it_too_unless_they_say_otherwise(file: Path) -> None:
    trials = "[{name: a}, {name: b, batch_norm: inherited}]"
    file.write_text(FILE.replace("all}", f"all, configurations: {trials}}}").replace("trials: 2, ", ""))
    named = dict(open_spec(str(file)).spec.configurations)
    assert {name: values["batch_norm"] for name, values in named.items()} == {"a": "adapted", "b": "inherited"}


def test_a_sweep_from_before_goes_on_without_it_also_with_its_file(file: Path) -> None:
    old = open_new(load_spec(str(file), check_machine=False), None, fresh=False)
    assert practice_of(old.spec) == {}
    for source in (None, str(file)):
        again = open_existing(old.paths.root, source, [], "5")
        assert practice_of(again.spec) == {}
        assert again.spec.budget.trials == 5
        write_spec(again.paths, again.spec)


def test_a_sweep_of_today_goes_on_with_it_also_with_its_file(file: Path) -> None:
    new = open_new(open_spec(str(file)).spec, None, fresh=False)
    for source in (None, str(file)):
        again = open_existing(new.paths.root, source, [], None)
        assert practice_of(again.spec) == PRACTICE
        assert not again.changed
