"""What the benchmarks against peers decide without running anybody: lists, costs, plausibility, small sizes."""

from __future__ import annotations

import ast
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks import all_layers, head_only, mixed_depth
from benchmarks.common import sides
from benchmarks.common.measured import Cost, Side, TrialTime, cost_by_kind, implausible, makespan, trial_times
from benchmarks.common.sides import PEERS, breakdown, sweep_times
from benchmarks.common.task import Task, Trial, fewer_photos, trashnet
from benchmarks.common.versus import compare, parser
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.state import TrialState
from orchestrator.spec.load import load_spec

PROGRAMS = (head_only, mixed_depth, all_layers)


def trial(name: str, epochs: int = 2, depth: int | str = 0, backbone: str = "mobilenet_0.25") -> Trial:
    return Trial(name, epochs, {"backbone": backbone, "unfrozen_layers": depth})


def timed(one: Trial, began: float, overhead: float, epoch: float, accuracy: float = 0.8) -> TrialTime:
    epochs = (overhead + epoch, *[epoch] * (one.epochs - 1))
    return TrialTime(one, began, began + sum(epochs), epochs, accuracy)


def photos(folder: Path) -> Path:
    """24 tiny photos of two classes, as TrashNet lies on the disk."""
    rows = []
    for number in range(24):
        label = ("glass", "paper")[number % 2]
        split = ("train", "train", "validation", "test")[number // 2 % 4]
        path = folder / label / f"{label}{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 50, 3), np.uint8)).save(path)
        rows.append((f"{label}/{path.name}", label, split))
    table = folder / "split.csv"
    pd.DataFrame(rows, columns=["path", "label", "split"]).to_csv(table, index=False)
    return table


# --- what is measured ---


def test_an_epochs_cost_leaves_out_what_the_first_one_traces() -> None:
    times = [timed(trial("a", 3), 0.0, 4.0, 2.0), timed(trial("b", 1, 5), 0.0, 4.0, 3.0)]
    costs = cost_by_kind(times)
    assert costs == {("mobilenet_0.25", 0): Cost(4.0, 2.0), ("mobilenet_0.25", 5): Cost(0.0, 7.0)}
    assert costs["mobilenet_0.25", 0].of(10) == 24.0


def test_a_list_that_was_run_in_part_grows_by_its_cost_and_not_by_its_start() -> None:
    listed = [trial("a", 3), trial("b", 3), trial("c", 8), trial("d", 2, 5), trial("e", 4, 5)]
    ran = (timed(listed[0], 10.0, 4.0, 2.0), timed(listed[3], 20.0, 5.0, 3.0))
    side = Side("Ray", 0.0, 33.0, ran, threads=2, concurrent=1)
    assert side.span_s == 21.0  # 10 and 11 seconds of trials
    assert side.once_s == 12.0
    assert side.whole_s([listed[0], listed[3]]) == 33.0
    assert side.whole_s(listed) == pytest.approx(12 + 21 * (10 + 10 + 20 + 11 + 17) / 21)
    assert side.how == "1 trial at once, 2 threads each"


def test_trials_at_once_are_counted_as_they_would_run() -> None:
    assert makespan([3.0, 1.0, 1.0, 1.0], 2) == 3.0
    assert makespan([1.0, 1.0, 1.0, 3.0], 2) == 4.0
    assert makespan([2.0, 3.0], 1) == 5.0
    # Two at once, one long trial near the end of what was measured: its worker's neighbour idles, and would not in
    # the whole list, where the long ones are met by others.
    short, long = trial("short", 2), trial("long", 8, 5)
    ran = (timed(short, 0.0, 0.0, 1.0), timed(long, 0.0, 0.0, 1.0))
    side = Side("Ray", 0.0, 10.0, ran, threads=1, concurrent=2)
    assert side.once_s == 2.0
    assert side.whole_s([short, long, trial("long-2", 8, 5)]) == pytest.approx(2.0 + 10.0)


def test_a_side_that_did_other_work_voids_the_comparison() -> None:
    one = trial("a")

    def side(name: str, accuracy: float) -> Side:
        return Side(name, 0.0, 9.0, (timed(one, 1.0, 1.0, 1.0, accuracy),), 1, 1)

    assert implausible([side("x", 0.80), side("y", 0.84)], 0.05, 0.5) == ""
    assert "differs by more than 0.05: x 0.800, y 0.860" in implausible([side("x", 0.8), side("y", 0.86)], 0.05, 0.5)
    assert "below 0.5: x 0.400, y 0.410" in implausible([side("x", 0.4), side("y", 0.41)], 0.05, 0.5)
    assert "below 0.5" in implausible([side("x", 0.8), side("y", float("nan"))], 0.05, 0.5)
    other = Side("z", 0.0, 9.0, (timed(trial("b"), 1.0, 1.0, 1.0),), 1, 1)
    assert implausible([side("x", 0.8), other], 0.05, 0.5) == "the sides have no trial in common."


def test_a_peer_that_left_out_a_trial_or_an_epoch_is_refused() -> None:
    whole = {"name": "a", "began": 1.0, "ended": 4.0, "epochs": [2.0, 1.0], "val_accuracy": 0.5}
    found = trial_times({"trials": [whole]}, [trial("a")])
    assert found == (TrialTime(trial("a"), 1.0, 4.0, (2.0, 1.0), 0.5),)
    with pytest.raises(SystemExit, match="trial a should have run for 3 epochs and ran for 2 epochs"):
        trial_times({"trials": [whole]}, [trial("a", 3)])
    with pytest.raises(SystemExit, match="trial b should have run for 2 epochs and ran not at all"):
        trial_times({"trials": [whole]}, [trial("a"), trial("b")])


# --- what our ledger says ---


def write_sweep(folder: Path, state: TrialState = TrialState.COMPLETED) -> Any:
    clock = iter(range(100, 200, 5))
    with Ledger(folder, clock=lambda: float(next(clock))) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING", payload={})
        ledger.append(EventKind.STAGE, stage="data", state="ENDED", payload={})
        fill = {"decode_s": 2.5, "prefix_s": 4.0, "waited_s": 0.0, "seconds": 3.5, "for": "id-a"}
        ledger.append(EventKind.STAGE, stage="prefill", state="ENDED", payload=fill)
        ledger.append(EventKind.TRIAL, trial="id-a", state="PENDING", payload={"name": "a", "config": {}})
        ledger.append(EventKind.TRIAL, trial="id-a", state="RUNNING", payload={"log": "logs/a.log"})
        for epoch in (1, 2):
            ledger.append(EventKind.EPOCH, trial="id-a", epoch=epoch, seconds=1.5, val_accuracy=0.4 + epoch / 10)
        ledger.append(EventKind.TRIAL, trial="id-a", state=str(state), epoch=2)
        return ledger.events()


def test_our_times_come_from_the_ledger(tmp_path: Path) -> None:
    events = write_sweep(tmp_path / "ledger")
    (found,) = sweep_times(events, [trial("a")])
    assert (found.ended - found.began, found.epochs) == (15.0, (1.5, 1.5))
    assert found.val_accuracy == pytest.approx(0.6)
    parts = dict(breakdown(events, [found], events[0].time_s - 3, events[-1].time_s + 2))
    clock = {label: seconds for label, seconds in parts.items() if label.startswith("of the clock")}
    assert len(clock) == 6
    assert parts["of the clock: Ray and the first worker"] == 1.5  # the build ended 5 s later and took 3.5
    assert parts["of the clock: filling the store before the first trial"] == 13.5
    assert sum(clock.values()) == events[-1].time_s + 2 - (events[0].time_s - 3)
    assert parts["of workers: decoding"] == 2.5
    assert parts["of workers: frozen parts"] == 4.0
    assert parts["of workers: epochs with 0 layers unfrozen"] == 3.0
    assert parts["of workers: opening, tracing and closing trials"] == 12.0


def test_a_trial_of_ours_that_failed_ends_the_benchmark(tmp_path: Path) -> None:
    events = write_sweep(tmp_path / "ledger", TrialState.FAILED)
    with pytest.raises(SystemExit, match="trial a of orch ended as FAILED, not COMPLETED"):
        sweep_times(events, [trial("a")])
    with pytest.raises(SystemExit, match="trial b of orch ended as not run"):
        sweep_times(events, [trial("b")])


def test_a_side_that_fails_shows_the_end_of_its_output(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"python -m no_such_module failed with exit code 1:\n.*No module named"):
        sides.run_module(["no_such_module"], tmp_path)


# --- what is run ---


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_sizes_are_what_they_say(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "data" / "trashnet")
    weights = tmp_path / "weights"
    weights.mkdir()
    for width in ("0.25", "0.5", "0.75", "1.0"):
        (weights / f"mobilenet_{width}_128_no_top.weights.h5").touch()
    monkeypatch.setenv("ORCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ORCH_WEIGHTS", str(weights))
    full, small = program.full(tmp_path / "full"), program.small(tmp_path / "small")
    assert (full.size, full.target, small.size, small.target) == ("full", program.TARGET, "small", None)
    assert full.task.table == trashnet()[0]
    assert small.probe is None
    assert len(small.task.trials) <= 4
    names = [one.name for one in full.task.trials]
    assert len(names) == len(set(names)) == (4 if program is all_layers else 24)
    assert set(full.measured) <= set(names)
    for comparison in (full, small):
        comparison.task.sweep_file(tmp_path / "sweep.yaml", 1)
        spec = load_spec(str(tmp_path / "sweep.yaml"))
        assert [name for name, _ in spec.configurations] == [one.name for one in comparison.task.trials]
        for one, (_, values) in zip(comparison.task.trials, spec.configurations, strict=True):
            assert {key: values[key] for key in one.config} == one.config
            assert (values["schedule"], values["warmup"], values["clip_norm"]) == ("constant", 0, 0)


def test_the_recorded_list_is_of_the_configurations_that_the_program_names() -> None:
    content = json.loads(mixed_depth.LIST.read_text())
    listed = mixed_depth.read_list(content)
    assert [replace(one, epochs=mixed_depth.EPOCHS) for one in listed] == list(mixed_depth.configurations())
    assert {one.kind for one in listed} == {(b, d) for b in mixed_depth.BACKBONES for d in mixed_depth.DEPTHS}
    assert min(one.epochs for one in listed) >= 1
    assert max(one.epochs for one in listed) == mixed_depth.EPOCHS
    assert "--record-list" in content["how"]


def test_one_of_each_kind_is_measured_and_can_show_an_epoch_without_tracing() -> None:
    listed = [trial("a", 1), trial("b", 6), trial("c", 3), trial("d", 1, 5), trial("e", 1, 5), trial("f", 2, 20)]
    assert mixed_depth.one_of_each(listed) == ("c", "d", "f")


def test_fewer_trials_fill_all_workers() -> None:
    task = Task("t", Path("split.csv"), Path(), 96, tuple(trial(name) for name in "abcde"))
    assert [one.name for one in task.only(("b", "d", "e"), 2).trials] == ["a", "b", "d", "e"]
    assert [one.name for one in task.only(("b", "d"), 2).trials] == ["b", "d"]
    assert task.only(()) == task
    assert [(one.name, one.epochs) for one in task.first(2, epochs=7).trials] == [("a", 7), ("b", 7)]


def test_fewer_photos_are_as_even_and_can_be_read(tmp_path: Path) -> None:
    table = fewer_photos(photos(tmp_path / "all"), tmp_path / "few", train=6, others=2)
    rows = pd.read_csv(table)
    assert rows.groupby(["split", "label"]).size().to_dict() == {
        (split, label): count
        for split, count in (("train", 3), ("validation", 1), ("test", 1))
        for label in ("glass", "paper")
    }
    assert all((table.parent / path).is_file() for path in rows["path"])


def test_peers_decode_once(tmp_path: Path) -> None:
    from benchmarks.peers.photos import decode_once

    task = {"table": str(photos(tmp_path)), "image_size": 32, "cache": str(tmp_path / "cache"), "cores": 2}
    decode_once(task)
    images = np.load(tmp_path / "cache" / "train-images.npy")
    assert (images.shape, images.dtype) == ((12, 32, 32, 3), np.uint8)
    assert np.load(tmp_path / "cache" / "validation-labels.npy").tolist() == [0, 1, 0, 1, 0, 1]
    before = os.stat(tmp_path / "cache" / "train-images.npy").st_mtime_ns
    decode_once(task)
    assert os.stat(tmp_path / "cache" / "train-images.npy").st_mtime_ns == before


def test_peers_know_nothing_of_orch() -> None:
    folder = Path(sides.ROOT) / "benchmarks" / "peers"
    shared = ("photos", "network", "timing")
    for file in [folder / f"{name}.py" for name in (*PEERS.values(), *shared)]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith(("orchestrator", "trainers", "dashboards")), f"{file.name} imports {name}"
                known = name.removeprefix("benchmarks.peers.") if name.startswith("benchmarks") else ""
                assert known in ("", *shared), f"{file.name} imports {name}"


def test_small_is_asked_for_by_name() -> None:
    assert parser("about").parse_args(["--small"]).small is True
    assert parser("about").parse_args([]).small is False


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ORCH_DATA", raising=False)
    monkeypatch.delenv("ORCH_WEIGHTS", raising=False)
    with pytest.raises(SystemExit, match="ORCH_DATA and ORCH_WEIGHTS must be set"):
        trashnet()
    monkeypatch.setenv("ORCH_DATA", str(tmp_path))
    monkeypatch.setenv("ORCH_WEIGHTS", str(tmp_path))
    with pytest.raises(SystemExit, match=r"there is no .*split\.csv; ORCH_DATA must name"):
        trashnet()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="KerasTuner is not installed; `make bench` installs it"):
        compare(head_only.small, None, "")
