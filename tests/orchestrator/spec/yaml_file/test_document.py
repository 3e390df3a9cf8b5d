"""One file as a document: places, the order of its mistakes, --set."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import SpecError
from orchestrator.spec.mistakes import Mistake
from orchestrator.spec.yaml_file.document import SettingRules, read_document


def test_values_are_plain_and_know_their_places():
    document = read_document("name: a\ndata:\n  source: b\n  list: [1, {x: 2}]\n", "f.yaml")
    assert document.data == {"name": "a", "data": {"source": "b", "list": [1, {"x": 2}]}}
    assert document.place(("data", "source")) == "f.yaml:3:11"
    assert document.place(("data", "source"), at_key=True) == "f.yaml:3:3"
    assert document.place(("data", "list", 1, "x")) == "f.yaml:4:17"
    assert document.place(("data", "nowhere", "deep")) == "f.yaml:3:3"
    assert document.place(("nowhere",)) == "f.yaml:1:1"


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


def test_a_long_list_of_allowed_words_is_printed_once() -> None:
    document = read_document("a: 1\nb: 2\nc: 3\nd: 4\n", "f.yaml")
    words = ", ".join(f"backbone_{n}" for n in range(20))
    long = [Mistake((key,), f"found x. Allowed: {words}.") for key in "ab"]
    short = [Mistake((key,), "found x. Allowed: y, z.") for key in "cd"]
    assert str(document.error([*long, *short])).splitlines() == [
        f"f.yaml:1:4: a: found x. Allowed: {words}.",
        "f.yaml:2:4: b: found x. Allowed: as above.",
        "f.yaml:3:4: c: found x. Allowed: y, z.",
        "f.yaml:4:4: d: found x. Allowed: y, z.",
    ]
