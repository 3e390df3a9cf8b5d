"""The text of ``spec.yaml``: what it holds, and what it held in earlier versions."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import Field

from orchestrator.spec.dump import ALWAYS, CHANGES, dump_spec, texts_of
from orchestrator.spec.load import load_spec
from orchestrator.spec.sections.base import Section
from orchestrator.spec.sections.final import FinalSpec
from orchestrator.spec.sweep import SweepSpec
from tests.support.since_42b062d import unpack
from tests.support.sweep_files import Load, sweep

LATER: dict[str, object] = {}
"""Defaults of the fields that came after ``ALWAYS``: what their absence from a sweep's ``spec.yaml`` means for ever."""


def fields(model: type[Section], path: str = "") -> Iterator[tuple[str, str, object]]:
    """(section, field, default) of every field of the file."""
    for name, field in model.model_fields.items():
        yield path, name, field.get_default(call_default_factory=True)
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Section):
                yield from fields(part, f"{path}.{name}".lstrip("."))


def test_every_field_is_always_written_or_has_a_default_that_never_changes() -> None:
    known = {(section, name) for section, names in ALWAYS.items() for name in names.split()}
    found = {(section, name): default for section, name, default in fields(SweepSpec)}
    assert known <= found.keys()
    assert len(known) == 60
    assert {f"{section}.{name}": found[section, name] for section, name in found.keys() - known} == LATER


class LaterChoice(Section):
    kind: str = "a"
    share: float = 0.5


class LaterFinal(FinalSpec):
    rounds: int = 3
    choice: LaterChoice = LaterChoice()


class LaterSpec(SweepSpec):
    """A spec with fields that a future version may have."""

    final: LaterFinal = Field(default=LaterFinal())
    note: str = ""


def later(spec: SweepSpec, **final: object) -> LaterSpec:
    values = {name: getattr(spec, name) for name in SweepSpec.model_fields}
    return LaterSpec(**values | {"final": LaterFinal(**dict(spec.final) | final)})


@pytest.mark.parametrize(
    ("final", "line"),
    [
        ({}, None),
        ({"rounds": 3}, None),
        ({"rounds": 4}, "  rounds: 4"),
        ({"choice": LaterChoice(share=0.25)}, "  choice: {share: 0.25}"),
    ],
)
def test_a_later_field_is_written_only_if_it_has_an_effect(
    load: Load, final: dict[str, object], line: str | None
) -> None:
    spec = load(sweep())
    before, after = dump_spec(spec).splitlines(), dump_spec(later(spec, **final)).splitlines()
    assert [text for text in after if text not in before] == ([line] if line else [])
    assert [text for text in before if text not in after] == []


def test_the_text_of_an_earlier_version_is_among_those_of_its_file(tmp_path: Path) -> None:
    folder = unpack(tmp_path, "killed") / "killed"
    text = (folder / "spec.yaml").read_text()
    spec = load_spec(str(folder / "spec.yaml"))
    texts = list(texts_of(spec, load_spec(str(folder / "spec.yaml"), check_machine=False).search))
    assert texts[0] == dump_spec(spec) != text
    assert texts[-1] == text
    assert len(texts) == 4 * (1 + len(CHANGES) - 1)  # with 3 to 0 fields of practice; the file states its splits


def test_what_a_file_states_is_in_every_text(load: Load) -> None:
    text = sweep("batch_norm: adapted, draws: fixed, decode: ample", rest="final: {forms: [ensemble, soup]}\n")
    text = text.replace("digits'}", "digits', splits: {train: 0.6, validation: 0.2, test: 0.2}, keep_splits: none}")
    spec = load(text)
    texts = list(texts_of(spec, spec.search))
    assert len(texts) == 3  # without the distillation, and then without the encoding
    assert all("[ensemble, soup]" in each and "batch_norm: adapted" in each for each in texts)
