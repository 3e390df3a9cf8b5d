"""What a few fields can be together: conditions honoured, ranges by their ends, nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.spec.load import load_spec
from orchestrator.spec.reachable import reachable, values_of
from orchestrator.spec.sweep import SweepSpec


def spec_of(folder: Path, search: str) -> SweepSpec:
    path = folder / "file.yaml"
    path.write_text(
        f"name: some\ndata: {{source: 'builtin:digits'}}\nsearch:\n{search}\n"
        "budget: {trials: 2, epochs: 1}\nweights: none\n"
    )
    return load_spec(str(path))


CONDITIONAL = """
  unfrozen_layers: [0, 5]
  multiplier: [1, 2, 5]
  recipe:
    - {choice: [flips, rand], when: {multiplier: 2}}
    - {value: contest, when: {multiplier: 5}}
"""


INNER = """
  multiplier: {int: [1, 7]}
  recipe:
    - {value: rand, when: {multiplier: [1, 3]}}
    - {value: rich, when: {multiplier: 7}}
    - {value: contest}
"""


@pytest.mark.parametrize(
    ("search", "names", "expected"),
    [
        (
            INNER,
            ("multiplier", "recipe"),
            [(1.0, "flips"), (2.0, "contest"), (3.0, "rand"), (6.0, "contest"), (7.0, "rich")],
        ),
        (INNER.replace("[1, 3]", "[3, 50]"), ("recipe",), [("flips",), ("rand",), ("contest",), ("rich",)]),
        ("  multiplier: {int: [1, 7]}", ("multiplier",), [(1.0,), (7.0,)]),
        ("  dropout: 0.5", ("dropout",), [(0.5,)]),
        ("  dropout: 0.5", ("multiplier", "balance"), [(1.0, "none")]),
        ("  dropout: {uniform: [0.1, 0.6]}", ("dropout",), [(0.1,), (0.6,)]),
        ("  image_size: {int: [32, 96], step: 32}", ("image_size",), [(32,), (96,)]),
        (
            CONDITIONAL,
            ("recipe", "multiplier"),
            [("flips", 1.0), ("flips", 2.0), ("rand", 2.0), ("contest", 5.0)],
        ),
        (CONDITIONAL, ("recipe",), [("flips",), ("rand",), ("contest",)]),
        ("  multiplier: 1\n  recipe: [rand, trivial]", ("recipe",), [("flips",)]),  # without copies: no effect
        (
            "  configurations:\n    - {name: a, multiplier: 3, recipe: rand}\n    - {name: b, dropout: 0.1}",
            ("multiplier", "recipe"),
            [(3.0, "rand"), (1.0, "flips")],
        ),
    ],
)
def test_every_combination_once(
    tmp_path: Path, search: str, names: tuple[str, ...], expected: list[tuple[object, ...]]
) -> None:
    found = reachable(spec_of(tmp_path, search), *names)
    assert [tuple(values[name] for name in names) for values in found] == expected


def test_values_of_a_field_under_a_condition_of_another(tmp_path: Path) -> None:
    search = "  head: [softmax, arcface]\n  mixup: {choice: [0, 0.2], when: {head: softmax}}"
    assert values_of(spec_of(tmp_path, search), "mixup") == [0.0, 0.2]
