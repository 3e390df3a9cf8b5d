"""YAML 1.2 as plain values, and the place of every mistake in it."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec.yaml_file.document import read_document
from tests.support.sweep_files import sentences


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E3", 5000.0),
        (".5", 0.5),
        ("-3", -3),
        ("1_000", 1000),
        ("0x1f", 31),
        ("0o17", 15),
        ("010", 10),
        ("no", "no"),
        ("off", "off"),
        ("none", "none"),
        ("true", True),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("2024-01-01", "2024-01-01"),
        ("1:20", "1:20"),
        ("=", "="),
        ("|\n  two\n  lines", "two\nlines"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = read_document(f"x: {text}", "f").data["x"]
    assert (found, type(found)) == (value, type(value))


def test_an_alias_stands_for_its_anchor() -> None:
    assert read_document("a: &x [1]\nb: *x", "f").data == {"a": [1], "b": [1]}


BROKEN = [
    ("", 'f:1:1: the file is empty; begin with "name: my-sweep".'),
    ("# only a comment\n", 'f:1:1: the file is empty; begin with "name: my-sweep".'),
    ("- 1", 'f:1:1: found a list; the file must be a mapping of fields, beginning with "name: my-sweep".'),
    ("quick", 'f:1:1: found "quick"; the file must be a mapping of fields, beginning with "name: my-sweep".'),
    ("a: [1", "f:1:6: this is not YAML: expected ',' or ']', but got '<stream end>' (while parsing a flow sequence)."),
    ("a:\n\tb: 1", "f:2:1: found a tab; YAML is indented with spaces only."),
    ("a: 1\n---\nb: 2", "f:2:1: found a second document (---); one file holds one sweep."),
    ("a: *b", "f:1:4: this is not YAML: found undefined alias 'b'."),
    ("a: 1\n b: 2", "f:2:3: this is not YAML: mapping values are not allowed here."),
    (
        "a: [${X}]",
        "f:1:6: this is not YAML: expected ',' or ']', but got '{' (while parsing a flow sequence). Inside [ ] ",
    ),
    ("a: 'x", "f:1:6: this is not YAML: found unexpected end of stream (while scanning a quoted scalar)."),
    ("a: \x00", "f: this is not YAML: unacceptable character #x0000"),
    ("[" * 5000, "f: lists and mappings are nested too deep to be read."),
    ("%YAML 3.0\n---\na: 1", "f:1:1: this is not YAML: found incompatible YAML document"),
]


@pytest.mark.parametrize(("text", "sentence"), BROKEN)
def test_broken_yaml_is_one_sentence_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(SpecError) as error:
        read_document(text, "f")
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


SMALL = [
    ("a: 1\nb: 2\na: 3", ["f:3:1: a: written twice; the first is in line 1."]),
    ("a: {b: 1,\n  b: 2}", ["f:2:3: a.b: written twice; the first is in line 1."]),
    (
        "a: .nan\nb: -.inf",
        ["f:1:4: a: found .nan; it is not a finite number.", "f:2:4: b: found -.inf; it is not a "],
    ),
    ("a: 1e999", ["f:1:4: a: found 1e999; it is not a finite number."]),
    ("a: 99999999999999999999", ["f:1:4: a: found 99999999999999999999; it is too large."]),
    (f"a: {'9' * 5000}", ["f:1:4: a: found "]),
    ("a: !!python/name:os.system x", ["f:1:4: a: the tag tag:yaml.org,2002:python/name:os.system has no meaning"]),
    ("a: !mine [1]", ["f:1:4: a: the tag !mine has no meaning here; leave it out."]),
    ("? [1]\n: 2", ["f:1:3: a field's name must be a word, not a list or a mapping."]),
    ("a: &x [*x]", ["f:1:4: a.0: an alias that contains itself."]),
    ("a: !!int hello", ['f:1:4: a: found "hello"; it is not a number.']),
]


@pytest.mark.parametrize(("text", "expected"), SMALL)
def test_small_mistakes_are_collected(text: str, expected: list[str]) -> None:
    found = sentences(read_document(text, "f"))
    assert len(found) == len(expected)
    for sentence, start in zip(found, expected, strict=True):
        assert sentence.startswith(start)


def test_aliases_cannot_fill_the_memory() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(SpecError, match="more than 20000 values, aliases counted each time"):
        read_document("\n".join(lines), "f")
