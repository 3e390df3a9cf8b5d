"""Environment variables in a file: their values, defaults, and what is said of unset ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.spec.yaml_file.document import Document, read_document
from orchestrator.spec.yaml_file.environment import escape
from tests.support.sweep_files import sentences


def test_variables_are_filled_in_anywhere() -> None:
    document = read_document("a: ${ROOT}/x\nb: ['$${ROOT}', '${A}${B}', $HOME]\n", "f").expand(
        {"ROOT": "/r", "A": "1", "B": "2"}
    )
    assert document.data == {"a": "/r/x", "b": ["${ROOT}", "12", "$HOME"]}
    assert document.mistakes == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: ${NOPE}/x", "f:2:4: b: the environment variable NOPE is not set. Type: export NOPE=..."),
        ("b: ${}", 'f:1:4: b: found "${}"; write an environment variable as ${NAME}.'),
        ("b: ${A-B}", 'f:1:4: b: found "${A-B}"; write an environment variable as ${NAME}.'),
        ("b: ${A", 'f:1:4: b: found "${A"; write an environment variable as ${NAME}.'),
    ],
)
def test_an_unset_variable_is_an_error_with_its_line(text: str, sentence: str) -> None:
    assert sentences(read_document(text, "f").expand({"A": "1"})) == [sentence]


@pytest.mark.parametrize(
    ("text", "environ", "value"),
    [
        ("${A:-plain}", {}, "plain"),
        ("${A:-plain}", {"A": ""}, "plain"),
        ("${A:-plain}", {"A": "set"}, "set"),
        ("x/${A:-}/${B:-/a:-b}", {}, "x///a:-b"),
        ("${A:?/path/to/a, what it is}", {"A": "set"}, "set"),
        ("${A}", {"A": ""}, ""),
        ("$${A:-plain}", {}, "${A:-plain}"),
    ],
)
def test_a_variable_may_have_a_default(text: str, environ: dict[str, str], value: str) -> None:
    document = read_document(f"a: {{b: ['{text}']}}", "f").expand(environ)
    assert (document.data, document.mistakes) == ({"a": {"b": [value]}}, ())
    unset = not environ.get("A") and ":-" in text and not text.startswith("$$")
    assert (("a", "b", 0) in document.defaulted) == unset


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("${A:?/path/to/a, a folder.}", ["A is not set; it should name a folder. ", "Type: export A=/path/to/a"]),
        ("${A:?/path/to/a}", ["A is not set. ", "Type: export A=/path/to/a"]),
        ("${A:?}", ["A is not set. ", "Type: export A=..."]),
    ],
)
def test_a_variable_says_what_it_should_name(text: str, parts: list[str]) -> None:
    for environ in ({}, {"A": ""}):
        (sentence,) = sentences(read_document(f"b: '{text}'", "f").expand(environ))
        assert all(part in sentence for part in parts), sentence


@given(st.text())
def test_escaped_text_comes_back(text: str) -> None:
    assert Document("f", {"a": escape(text)}).expand({}).data == {"a": text}
