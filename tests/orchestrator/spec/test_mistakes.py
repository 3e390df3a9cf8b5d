"""Messages about a file: what was found, what is allowed, the nearest spelling."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from orchestrator.spec.mistakes import (
    Mistake,
    Mistakes,
    item_mistakes,
    mistakes_of,
    quoted,
    unknown_field,
    unknown_value,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("word", '"word"'),
        ("x" * 60, f'"{"x" * 60}"'),
        ("x" * 61, f'"{"x" * 57}..."'),
        ({}, "an empty mapping"),
        ({"a": 1}, "a mapping"),
        ([], "an empty list"),
        ((1,), "a list"),
        (3, "3"),
        (0.5, "0.5"),
        (2.0, "2"),
        (0.12345678, "0.12345678"),
        (math.inf, "inf"),
    ],
)
def test_values_are_quoted_as_in_yaml(value: Any, text: str) -> None:
    assert quoted(value) == text


def test_an_unknown_word_is_answered_with_the_nearest_and_all() -> None:
    known = ("softmax", "cosface")
    assert unknown_value("cosfase", known) == 'found "cosfase"; did you mean "cosface"? Allowed: softmax, cosface.'
    assert unknown_value(5, known, ", or your own") == "found 5. Allowed: softmax, cosface, or your own."
    assert unknown_field("sofmax", known) == 'no such field; did you mean "softmax"? Allowed: softmax, cosface.'


@pytest.mark.parametrize(
    ("items", "mistakes"),
    [
        ([], []),
        (["a", "b"], []),
        (["a", "b", "a"], [((2,), 'found "a" twice in the list.')]),
        (["c", "a", ["a"], "c"], [((0,), "no c"), ((2,), "no list"), ((3,), "no c")]),
    ],
)
def test_every_wrong_or_repeated_item_of_a_list_is_a_mistake(items: list[Any], mistakes: list[Any]) -> None:
    problems = {"a": None, "b": None, "c": "no c"}
    found = item_mistakes(items, lambda item: problems[item] if isinstance(item, str) else "no list")
    assert [(mistake.keys, mistake.text) for mistake in found] == mistakes


def _two_mistakes(value: Any) -> Any:
    raise Mistakes([Mistake((0,), "is wrong."), Mistake(("x",), "is wrong too.", at_key=True)])


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    rate: float = Field(default=0.1, gt=0, le=1)
    words: tuple[Literal["tpe", "grid"], ...] = ()


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    count: int = Field(ge=1, le=9, description="How many.")
    inner: Inner = Inner()
    on: bool = True
    two: Annotated[int, BeforeValidator(_two_mistakes)] = 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [Mistake(("count",), "is missing. How many.", at_key=True)]),
        ({"count": 0}, [Mistake(("count",), "found 0; allowed: a whole number, at least 1 and at most 9.")]),
        (
            {"count": "3"},
            [Mistake(("count",), 'found the text "3"; allowed: a whole number, at least 1 and at most 9.')],
        ),
        (
            {"count": 1, "inner": {"rate": 2}},
            [Mistake(("inner", "rate"), "found 2; allowed: a number, above 0 and at most 1.")],
        ),
        (
            {"count": 1, "inner": {"rat": 1}},
            [Mistake(("inner", "rat"), 'no such field; did you mean "rate"? Allowed: rate, words.', at_key=True)],
        ),
        (
            {"count": 1, "inner": {"words": ("tpe", "gird")}},
            [Mistake(("inner", "words", 1), 'found "gird"; did you mean "grid"? Allowed: tpe, grid.')],
        ),
        (
            {"count": 1, "raet": 1},
            [Mistake(("raet",), "no such field at the top of the file; did you mean inner.rate?", at_key=True)],
        ),
        (
            {"count": 1, "word": 1},
            [Mistake(("word",), "no such field at the top of the file; did you mean inner.words?", at_key=True)],
        ),
        (
            {"count": 1, "cuont": 1},
            [Mistake(("cuont",), 'no such field; did you mean "count"? Allowed: count, inner, on, two.', at_key=True)],
        ),
        ({"count": 1, "inner": 5}, [Mistake(("inner",), "found 5; allowed: a mapping with the fields rate, words.")]),
        (
            {"count": 1, "on": "no"},
            [
                Mistake(
                    ("on",),
                    'found the word "no"; allowed: true or false (YAML 1.2 reads yes, no, on and off as text).',
                )
            ],
        ),
        (
            {"count": 1, "two": 5},
            [Mistake(("two", 0), "is wrong."), Mistake(("two", "x"), "is wrong too.", at_key=True)],
        ),
    ],
)
def test_errors_of_pydantic_become_mistakes(values: dict[str, Any], expected: list[Mistake]) -> None:
    with pytest.raises(ValidationError) as error:
        Outer.model_validate(values)
    assert mistakes_of(error.value, Outer) == expected
