"""Reading YAML: places, small mistakes, environment variables, --set."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import SpecError
from orchestrator.spec.mistakes import Mistake
from orchestrator.spec.yaml_file.document import Document, SettingRules, read_document
from orchestrator.spec.yaml_file.environment import escape


def sentences(document: Document) -> list[str]:
    return str(document.error([])).splitlines()


def test_values_are_plain_and_know_their_places():
    document = read_document("name: a\ndata:\n  source: b\n  list: [1, {x: 2}]\n", "f.yaml")
    assert document.data == {"name": "a", "data": {"source": "b", "list": [1, {"x": 2}]}}
    assert document.place(("data", "source")) == "f.yaml:3:11"
    assert document.place(("data", "source"), at_key=True) == "f.yaml:3:3"
    assert document.place(("data", "list", 1, "x")) == "f.yaml:4:17"
    assert document.place(("data", "nowhere", "deep")) == "f.yaml:3:3"
    assert document.place(("nowhere",)) == "f.yaml:1:1"


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
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = read_document(f"x: {text}", "f").data["x"]
    assert (found, type(found)) == (value, type(value))


def test_an_alias_stands_for_its_anchor():
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
def test_broken_yaml_is_one_sentence_with_its_place(text, sentence):
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
def test_small_mistakes_are_collected(text, expected):
    found = sentences(read_document(text, "f"))
    assert len(found) == len(expected)
    for sentence, start in zip(found, expected, strict=True):
        assert sentence.startswith(start)


def test_aliases_cannot_fill_the_memory():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(SpecError, match="more than 20000 values, aliases counted each time"):
        read_document("\n".join(lines), "f")


def test_mistakes_come_in_the_order_of_the_file_and_once_a_value():
    document = read_document("a: 1\nb: {c: .nan}\n", "f")
    found = [
        Mistake(("b", "c"), "second"),
        Mistake(("b", "c", "d"), "below"),
        Mistake(("a",), "first"),
        Mistake((), "x"),
    ]
    assert str(document.error(found)).splitlines() == [
        "f:1:1: x",
        "f:1:4: a: first",
        "f:2:8: b.c: found .nan; it is not a finite number.",
    ]


# Environment


def test_variables_are_filled_in_anywhere():
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
def test_an_unset_variable_is_an_error_with_its_line(text, sentence):
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
def test_a_variable_may_have_a_default(text, environ, value):
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
def test_a_variable_says_what_it_should_name(text, parts):
    for environ in ({}, {"A": ""}):
        (sentence,) = sentences(read_document(f"b: '{text}'", "f").expand(environ))
        assert all(part in sentence for part in parts), sentence


@given(st.text())
def test_escaped_text_comes_back(text):
    assert Document("f", {"a": escape(text)}).expand({}).data == {"a": text}


# --set

RULES = SettingRules(short_forms={("budget", "sampler"): "name"}, replaced={"search": {"uniform": ("choice", "step")}})
FILE = """\
search:
  dropout: [0, 0.5]
  smoothing: {choice: [1], step: 3, when: {head: softmax}}
budget: {sampler: tpe, first: [{a: 1}, {a: 2}]}
"""


@pytest.mark.parametrize(
    ("setting", "keys", "value"),
    [
        ("name=x", ("name",), "x"),
        ("budget.trials = 5", ("budget", "trials"), 5),
        ("search.head=[softmax,cosface]", ("search", "head"), ["softmax", "cosface"]),
        ("search.dropout=0.1", ("search", "dropout"), 0.1),
        ("search.dropout.uniform=[0,0.5]", ("search", "dropout"), {"uniform": [0, 0.5]}),
        ("search.dropout.0=0.1", ("search", "dropout"), [0.1, 0.5]),
        ("search.smoothing.uniform=[0,1]", ("search", "smoothing"), {"when": {"head": "softmax"}, "uniform": [0, 1]}),
        ("budget.sampler.startup_trials=3", ("budget", "sampler"), {"name": "tpe", "startup_trials": 3}),
        ("budget.first=[]", ("budget", "first"), []),
        ("budget.first.1.a=3", ("budget", "first"), [{"a": 1}, {"a": 3}]),
        ("tracking.tags={team: garbage}", ("tracking",), {"tags": {"team": "garbage"}}),
        ("tracking.uri=http://x?a=b", ("tracking", "uri"), "http://x?a=b"),
        ("budget=", ("budget",), None),
        ("budget.first.9=x", ("budget", "first"), {"9": "x"}),
    ],
)
def test_set_reaches_everywhere(setting, keys, value):
    document = read_document(FILE, "f").override([setting], RULES)
    found = document.data
    for key in keys:
        found = found[key]
    assert found == value
    assert document.mistakes == ()
    assert document.place(keys[:1]) in (f"--set {setting}", f"f:{'2:3' if keys[0] == 'search' else '4:9'}")


def test_later_settings_win_and_the_file_is_left_as_it_was():
    document = read_document(FILE, "f")
    assert document.override(["name=a", "name=b"]).data["name"] == "b"
    assert document.data == read_document(FILE, "f").data


def test_a_setting_is_the_place_of_its_mistakes():
    document = read_document(FILE, "f").override(["budget.first.0.a=9", "new.part.x=1"])
    found = [Mistake(("budget", "first", 0, "a"), "wrong"), Mistake(("budget", "first", 1, "a"), "wrong")]
    assert str(document.error([*found, Mistake(("new",), "none", at_key=True)])).splitlines() == [
        "f:4:44: budget.first.1.a: wrong",
        "--set budget.first.0.a=9: budget.first.0.a: wrong",
        "--set new.part.x=1: new: none",
    ]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("budget", "--set budget: write a field, an equals sign and a value, as in --set budget.trials=5."),
        ("=5", "--set =5: write a field, an equals sign and a value, as in --set budget.trials=5."),
        ("a..b=5", "--set a..b=5: write a field, an equals sign and a value, as in --set budget.trials=5."),
        ("a=[1", "--set a=[1: this is not YAML: expected ',' or ']'"),
        ("a=[1\n", "--set a=[1"),
        ("a=.nan", "--set a=.nan: a: found .nan; it is not a finite number."),
    ],
)
def test_a_broken_setting_is_a_mistake(setting, sentence):
    document = read_document(FILE, "f").override([setting])
    assert str(document.error([])).startswith(sentence)


def test_a_setting_mends_a_mistake_of_the_file():
    assert read_document("a: .nan", "f").override(["a=1"]).mistakes == ()


yaml_like = st.text(alphabet="abn:-[]{}&*!|>'\"%#?,.\\ \n\t0159e~<=@`$_/\ufeff\x85\u2028", max_size=60)


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(yaml_like, st.text(max_size=60)), setting=yaml_like)
def test_junk_is_never_more_than_a_spec_error(text, setting):
    with contextlib.suppress(SpecError):
        document = read_document(text, "f").override([setting, f"a.b={setting}"]).expand({})
        assert isinstance(document.data, dict)
