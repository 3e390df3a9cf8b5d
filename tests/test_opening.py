"""Opening a sweep's folder: new, existing, extended, refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import OrchError, SweepExists
from orchestrator.opening import differences, model_name, next_free, open_existing, open_new
from orchestrator.spec import load_spec


def test_new_sweep_writes_its_spec_and_is_refused_the_second_time(tmp_path: Path) -> None:
    spec = load_spec("quick")
    opened = open_new(spec, tmp_path / "a sweep", fresh=False)
    assert not opened.resumed
    assert load_spec(str(opened.paths.spec)) == spec
    with pytest.raises(
        SweepExists, match=r"exists already\. Go on with that sweep: orch sweep --resume --out .*--fresh"
    ):
        open_new(spec, tmp_path / "a sweep", fresh=False)


def test_fresh_takes_the_next_free_folder(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        opened = open_new(load_spec("quick"), tmp_path / "quick", fresh=True)
        names.append(opened.paths.root.name)
    assert names == ["quick", "quick-2", "quick-3"]
    assert next_free(tmp_path / "quick").name == "quick-4"


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert open_new(load_spec("quick"), tmp_path / "empty", fresh=False).paths.spec.is_file()


@pytest.mark.parametrize(("trials", "expected"), [("+20", 30), ("12", 12), (None, 10)])
def test_more_trials_extend_a_sweep_and_are_kept(tmp_path: Path, trials: str | None, expected: int) -> None:
    root = open_new(load_spec("quick"), tmp_path / "quick", fresh=False).paths.root
    opened = open_existing(root, None, (), trials)
    assert opened.resumed
    assert opened.spec.budget.trials == expected
    assert load_spec(str(opened.paths.spec)).budget.trials == expected


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("budget.trials=99", True),
        ("budget.hours=2", True),
        ("budget.target_accuracy=0.9", True),
        ("final.seeds=7", True),
        ("resources.cpus=2", True),
        ("tracking.experiment=other", True),
        ("budget.epochs=9", False),
        ("budget.seed=9", False),
        ("search.dropout=0.5", False),
        ("data.seed=9", False),
        ("resources.precision=mixed_float16", False),
        ("budget.scheduler=none", False),
    ],
)
def test_only_the_budget_and_what_comes_after_may_change(tmp_path: Path, override: str, allowed: bool) -> None:
    root = open_new(load_spec("quick"), tmp_path / "quick", fresh=False).paths.root
    if allowed:
        assert open_existing(root, None, (override,), None).spec == load_spec("quick", (override,))
        return
    before = (root / "spec.yaml").read_text()
    with pytest.raises(OrchError, match=r"differs from the sweep in .* start another sweep with --out DIR"):
        open_existing(root, None, (override,), None)
    assert (root / "spec.yaml").read_text() == before


def test_differences_are_named_by_field() -> None:
    changed = load_spec("quick", ("budget.epochs=9", "data.seed=4", "budget.trials=3"))
    assert differences(load_spec("quick"), changed) == ["data.seed", "budget.epochs"]


def test_a_folder_without_a_spec_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(OrchError, match=r"is not a sweep's folder: it has no spec\.yaml"):
        open_existing(tmp_path, None, (), None)


def test_the_registered_model_is_called_after_the_data(tmp_path: Path) -> None:
    photos = tmp_path / "my photos"
    photos.mkdir()
    (tmp_path / "trashnet").mkdir()
    (tmp_path / "trashnet" / "split.csv").write_text("path,label\n")
    named = [
        model_name(load_spec("quick", overrides))
        for overrides in (
            (),
            (f"data.source={photos}",),
            (f"data.source={tmp_path / 'trashnet' / 'split.csv'}",),
            ("tracking.model=garbage",),
        )
    ]
    assert named == ["digits", "my-photos", "trashnet", "garbage"]
