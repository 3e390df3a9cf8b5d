"""A spec written as YAML and read again."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.spec.dump import dump_spec
from orchestrator.spec.load import load_spec
from orchestrator.spec.space.fields import FIELDS, Names, Numbers
from orchestrator.spec.sweep import SweepSpec
from tests.support.sweep_files import sweep
from trainers.backbones import BACKBONES
from trainers.config import canonical

GO_WITH_EVERYTHING = [row.name for row in BACKBONES.values() if row.smallest_size <= 32 and 16 in row.output_strides]

"""Backbones that take every image size and output stride that ``raw_sweeps`` draws."""


@st.composite
def raw_sweeps(draw):
    def value(name):
        rule = FIELDS[name]
        if name == "backbone":
            return draw(st.sampled_from(GO_WITH_EVERYTHING))
        if isinstance(rule, Names):
            # No backbone takes both the class token and everything else.
            return draw(st.sampled_from([each for each in rule.known() if each != "token"]))
        assert isinstance(rule, Numbers)
        if rule.words and draw(st.booleans()):
            return rule.words[0]
        low, high = max(rule.low, 32), min(rule.high, 512)
        return draw(st.integers(int(low), int(high))) if rule.whole else draw(st.floats(0.001, 0.9))

    def case(name):
        rule, kinds = FIELDS[name], ["value", "choice"]
        if isinstance(rule, Numbers):
            kinds += ["int"] if rule.whole else ["uniform", "loguniform"]
        kind = draw(st.sampled_from(kinds))
        if kind == "value":
            return {"value": value(name)}
        if kind == "choice":
            return {"choice": list(dict.fromkeys(value(name) for _ in range(draw(st.integers(1, 3)))))}
        low = draw(st.integers(32, 64)) if kind == "int" else draw(st.floats(0.001, 0.5))
        return {kind: [low, low + 64] if kind == "int" else [low, low + draw(st.floats(0.001, 0.3))]}

    search = {"head": ["softmax", "arcface"]}
    for name in draw(st.lists(st.sampled_from(sorted(set(FIELDS) - {"head", "multiplier"})), unique=True, max_size=6)):
        conditional = {**case(name), "when": {"head": draw(st.sampled_from(["arcface", ["arcface", "normface"]]))}}
        search[name] = draw(st.sampled_from([case(name), conditional, [conditional, case(name)]]))
    text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)
    return {
        "name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)),
        "data": {
            "source": draw(text.filter(lambda s: not s.startswith("builtin:"))),
            "seed": draw(st.integers(0, 99)),
            "splits": draw(st.sampled_from([{"train": 0.5, "validation": 0.25, "test": 0.25}, {}])),
        },
        "search": search,
        "budget": {
            "trials": draw(st.integers(1, 999)),
            "epochs": draw(st.integers(2, 99)),
            "hours": draw(st.none() | st.floats(1e-6, 1e6)),
            "scheduler": draw(st.sampled_from(["asha", "none", {"name": "median", "min_trials": 2}, "hyperband"])),
            "sampler": draw(st.sampled_from(["random", {"name": "tpe", "startup_trials": 4}])),
        },
        "tracking": {"tags": draw(st.dictionaries(text, text, max_size=3)), "experiment": draw(text)},
        "resources": {"gpus": draw(st.sampled_from(["auto", 0, 0.25, 1, 2])), "cpus": draw(st.floats(0.1, 64))},
    }


@settings(max_examples=40, deadline=None)
@given(raw=raw_sweeps())
def test_dumped_text_loads_to_an_equal_spec(raw, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "dumped.yaml"
    spec = SweepSpec.model_validate({**raw, "data": {**raw["data"], "source": os.path.abspath(raw["data"]["source"])}})
    file.write_bytes(dump_spec(spec).encode())
    assert load_spec(str(file), (), {}, check_machine=False) == spec


def test_small_numbers_are_numbers_for_every_yaml_tool(load):
    import yaml  # PyYAML reads YAML 1.1

    rates = [1e-05, 0.001, 2.5e-07, 1e-16]
    spec = load(
        "name: n\ndata: {source: 'builtin:digits'}\nweights: none\nsearch:\n  backbone: small_cnn\n"
        "  weight_decay: [1e-05, 0.001, 2.5e-07, 1e-16]\nbudget: {trials: 2, epochs: 2}\n"
    )
    assert yaml.safe_load(dump_spec(spec))["search"]["weight_decay"] == rates
    assert load(dump_spec(spec)) == spec


def test_configurations_survive_a_dump(load):
    spec = load(
        sweep("dropout: 0.1, configurations: [{name: 'no', head: arcface, margin: null}]"), "budget={epochs: 1}"
    )
    assert load(dump_spec(spec)) == spec
    assert [canonical(values).head for _, values in spec.configurations] == ["arcface"]
