"""``make space``: what counts as covered, and that its settings are ones that ``full`` takes."""

from __future__ import annotations

import pytest

from benchmarks.space_coverage import (
    backbone_search,
    coverage,
    head_search,
    main,
    report,
    settings,
    smallest_sizes,
)
from orchestrator.ledger.state import SweepState, TrialRecord, TrialState
from orchestrator.spec.load import load_spec
from trainers.backbones import BACKBONES
from trainers.heads import HEADS


def record(number, backbone, state, reason="", epochs=1):
    rows = tuple({"epoch": epoch, "val_accuracy": 0.5} for epoch in range(1, epochs + 1))
    config = {"backbone": backbone, "head": "softmax"}
    return TrialRecord(f"t{number}", f"t{number}", number, "search", config, state, reason, rows)


def state_of(*records):
    return SweepState({each.id: each for each in records})


def test_only_completed_trials_count():
    state = state_of(
        record(1, "vgg16", TrialState.COMPLETED),
        record(2, "vgg19", TrialState.FAILED, "out of memory"),
        record(3, "resnet50", TrialState.RUNNING, epochs=0),
        record(4, "xception", TrialState.COMPLETED, epochs=0),
        record(5, "resnet50", TrialState.PRUNED),
    )
    found = coverage("backbone", ["vgg16", "vgg19", "resnet50", "xception", "nasnet_mobile"], state)
    assert found.completed == 1
    assert found.failures == {
        "vgg19": "FAILED: out of memory",
        "resnet50": "RUNNING: no reason was recorded; PRUNED: no reason was recorded",
        "xception": "COMPLETED: no reason was recorded",
        "nasnet_mobile": "no trial of it was run",
    }
    heads = coverage("head", ["softmax", "arcface"], state)
    assert heads.failures == {"arcface": "no trial of it was run"}
    assert report([found, heads], 90)[-1] == "5 backbones, 2 heads, 5 failed"
    assert report([found, heads], 90)[0] == "backbone nasnet_mobile: no trial of it was run"
    assert "in 1.5 minutes" in report([found, heads], 90)


def test_the_cut_sweeps_hold_every_row_once():
    for search, names in ((backbone_search(list(BACKBONES)), BACKBONES), (head_search(list(HEADS)), HEADS)):
        spec = load_spec("full", settings(search, len(names), 2), {})
        assert spec.space.size() == len(names) == spec.budget.trials
        assert spec.budget.epochs == 1
        assert spec.weights == "none"
        assert not spec.tracking.enabled
    assert len(BACKBONES) >= 40
    assert len(HEADS) >= 7


def test_each_backbone_gets_the_smallest_image_that_it_takes():
    cases = smallest_sizes(BACKBONES.values())
    sizes = {name: case["value"] for case in cases for name in case["when"]["backbone"]}
    assert sizes == {name: row.smallest_size for name, row in BACKBONES.items()}


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--heads", "softmx"])
    assert "invalid choice: 'softmx'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_run_through_the_command_line(capfd, tmp_path):
    arguments = ["--backbones", "small_cnn", "--heads", "softmax", "cosface", "--keep", str(tmp_path / "kept")]
    assert main(arguments) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "1 backbones, 2 heads, 0 failed"
    assert (tmp_path / "kept" / "heads" / "ledger").is_dir()
