"""What a sweep's folder says, from the ledger alone."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from orchestrator.evaluation.per_class import per_class, write
from orchestrator.ledger.folder import read_sweep
from orchestrator.ledger.kept import checksums
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import REPLACED_WORKER, EventKind
from orchestrator.paths import SweepPaths
from orchestrator.plain_json import json_ready
from orchestrator.report import status
from tests.support.sweep_on_disk import ROW, WINNER, write_sweep


def test_describe_has_exactly_the_keys_that_programs_rely_on(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny")
    found = status.describe(tmp_path / "tiny")
    names = [
        "name",
        "stage",
        "states",
        "trials",
        "winner",
        "leaderboard",
        "per_class",
        "calibration",
        "mlflow",
        "looks",
        "replaced_workers",
    ]
    assert list(found) == names
    assert found["name"] == "tiny"
    assert found["stage"] == "finished"
    assert found["states"] == {"COMPLETED": 1, "PRUNED": 1, "FAILED": 1}
    assert found["winner"] == WINNER
    assert found["leaderboard"] == [ROW]
    assert found["mlflow"] == "run-1"
    assert [list(trial) for trial in found["trials"]] == [
        ["id", "state", "reason", "epochs", "val_accuracy", "config"]
    ] * 3
    first, pruned, failed = found["trials"]
    assert (first["id"], first["state"], first["epochs"], first["val_accuracy"]) == ("aaaaaaaaa1", "COMPLETED", 2, 0.95)
    assert first["config"]["backbone"] == "small_cnn"
    assert (pruned["state"], pruned["reason"]) == ("PRUNED", "stopped at rung 1")
    assert (failed["state"], failed["val_accuracy"]) == ("FAILED", None)
    json.dumps(found, allow_nan=False)


def test_workers_that_were_replaced_for_their_memory_are_counted(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny")
    assert not [line for line in status.status_lines(read_sweep(tmp_path / "tiny"), 0.0) if "replaced" in line]
    with Ledger(tmp_path / "tiny" / "ledger") as ledger:
        for jobs, held in ((9, 3_000_000_000), (42, 4_810_000_000)):
            row = {"jobs": jobs, "rss_bytes": held, "machine_bytes": 16 * 10**9}
            ledger.append(EventKind.NOTE, payload={REPLACED_WORKER: row})
    said = status.status_lines(read_sweep(tmp_path / "tiny"), 0.0)
    assert "workers  2 workers replaced for memory; the largest held 4.8 GB" in said
    found = status.describe(tmp_path / "tiny")["replaced_workers"]
    assert found == [{"jobs": 9, "rss_bytes": 3_000_000_000}, {"jobs": 42, "rss_bytes": 4_810_000_000}]


def test_retrained_models_are_no_trials_of_the_search(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny")
    sweep = read_sweep(tmp_path / "tiny")
    assert "aaaaaaaaa9" in sweep.state.trials
    assert "aaaaaaaaa9" not in [trial["id"] for trial in status.describe(tmp_path / "tiny")["trials"]]


def test_a_sweep_that_only_just_began_is_described(tmp_path: Path) -> None:
    (tmp_path / "new" / "ledger").mkdir(parents=True)
    found = status.describe(tmp_path / "new")
    assert found == {
        "name": "new",
        "stage": "",
        "states": {},
        "trials": [],
        "winner": None,
        "leaderboard": [],
        "per_class": [],
        "calibration": None,
        "mlflow": None,
        "looks": None,
        "replaced_workers": [],
    }


def test_status_of_a_running_sweep_says_how_it_goes_and_how_long_it_takes(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny", ended="RUNNING")
    sweep = replace(read_sweep(tmp_path / "tiny"), runner="4711")
    text = "\n".join(status.status_lines(sweep, now_s=1_000_000.0 + 240))
    assert "tiny: in the stage search; running, PID 4711\n" in text
    assert "3 of 4 ended; 1 RUNNING, 1 COMPLETED, 1 PRUNED, 1 FAILED" in text
    assert "0.950 on validation: aaaaaaaaa1" in text
    assert "45 trials an hour over 0:04:00" in text
    assert "about 0:01:20 of search" in text
    assert "the loss became NaN in epoch 1" in text
    assert "next     let it run; Ctrl-C" in text
    assert "--resume" not in text


def test_trials_are_shown_with_what_their_names_mean(tmp_path: Path) -> None:
    paths = write_sweep(tmp_path / "tiny", ended="RUNNING")
    config = {"backbone": "small_cnn", "unfrozen_layers": 3, "multiplier": 2.0}
    with Ledger(paths.ledger) as ledger:
        about = {"trial": "bbb", "stage": "search"}
        payload = {"name": "bbb", "number": 7, "config": config}
        ledger.append(EventKind.TRIAL, **about, state="PENDING", payload=payload)
        ledger.append(EventKind.TRIAL, **about, state="RUNNING", attempt=1)
        ledger.append(EventKind.EPOCH, **about, epoch=1, val_accuracy=0.99, seconds=1.0)
        ledger.append(EventKind.EPOCH, **about, epoch=2, val_accuracy=0.99, seconds=1.0)
        ledger.append(EventKind.TRIAL, **about, state="COMPLETED", epoch=2)
    lines = status.status_lines(read_sweep(paths.root), 9e9)
    best = next(place for place, line in enumerate(lines) if line.startswith("best"))
    assert "n=3 x2" in lines[best]
    assert lines[best + 1] == "names    n: unfrozen_layers, x: multiplier"
    assert "in their names: n: unfrozen_layers, x: multiplier" in _shown(paths.root)


def test_status_of_a_sweep_whose_process_is_gone_calls_its_trials_interrupted(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny", ended="RUNNING")
    lines = status.status_lines(read_sweep(tmp_path / "tiny"), now_s=9e9)
    assert lines[0] == "tiny: in the stage search; not running"
    assert lines[1] == "trials   3 of 4 ended; 1 interrupted, 1 COMPLETED, 1 PRUNED, 1 FAILED"
    assert "rate     60 trials an hour over 0:03:00" in lines
    assert not [line for line in lines if line.startswith("left")]
    assert lines[-1] == f"next     orch sweep --resume --out {tmp_path / 'tiny'}"
    described = status.describe(tmp_path / "tiny")
    assert described["states"]["RUNNING"] == 1
    assert described["trials"][3]["state"] == "RUNNING"
    shown = _shown(tmp_path / "tiny")
    assert "1 interrupted" in shown
    assert "RUNNING" not in shown


def test_progress_counts_the_time_in_which_trials_ran(tmp_path: Path) -> None:
    write_sweep(tmp_path / "stopped", ended="INTERRUPTED")
    done = status.progress(read_sweep(tmp_path / "stopped"), now_s=9e9)
    assert (done.ended, done.total, done.running, done.elapsed_s) == (3, 4, 0, 180.0)
    assert done.per_hour == pytest.approx(60.0)
    assert done.left_s == pytest.approx(60.0)


def test_progress_before_the_first_trial_has_no_rate(tmp_path: Path) -> None:
    (tmp_path / "new" / "ledger").mkdir(parents=True)
    done = status.progress(read_sweep(tmp_path / "new"), now_s=0.0)
    assert (done.ended, done.elapsed_s) == (0, 0.0)
    assert math.isnan(done.per_hour)
    assert math.isnan(done.left_s)


@pytest.mark.parametrize(
    ("ended", "reason", "words"),
    [
        ("FINISHED", "", "tiny: finished"),
        ("STOPPED", "until search, as asked", "in the stage search (stopped as asked); not running"),
        ("INTERRUPTED", "", "in the stage search (interrupted); not running"),
        (
            "INTERRUPTED",
            "interrupted by Ctrl-C: 2 trials to go.",
            "in the stage search (interrupted by Ctrl-C: 2 trials to go); not running",
        ),
        ("FAILED", "no disk", "in the stage search (failed: no disk); not running"),
    ],
)
def test_the_stage_in_words(tmp_path: Path, ended: str, reason: str, words: str) -> None:
    write_sweep(tmp_path / "tiny", ended=ended, reason=reason)
    assert words in status.status_lines(read_sweep(tmp_path / "tiny"), 0.0)[0]


def _shown(folder: Path, *, width: int = 140, terminal: bool = False) -> str:
    text = io.StringIO()
    status.print_sweep(folder, Console(file=text, width=width, force_terminal=terminal, no_color=True, highlight=False))
    return text.getvalue()


def test_long_lines_break_between_words_on_a_terminal_and_not_in_a_pipe(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny", ended="INTERRUPTED", reason="interrupted by Ctrl-C: " + "many words " * 12 + "end.")
    assert "many words " * 12 + "end)" in _shown(tmp_path / "tiny", width=60).splitlines()[0]
    first, second, *_ = _shown(tmp_path / "tiny", width=60, terminal=True).splitlines()
    assert len(first) <= 60
    assert first.endswith(("many", "words"))
    assert second.startswith("    ")
    text = io.StringIO()
    status.print_status(tmp_path / "tiny", Console(file=text, width=60, force_terminal=True, no_color=True))
    *lines, following = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert following == f"next     orch sweep --resume --out {tmp_path / 'tiny'}"


def test_a_winners_floats_are_rounded_for_a_person() -> None:
    winner = {"trial": "a", "config": {"dropout": 0.4086349130852387, "epochs": 12, "flip": True, "rate": 1e-05}}
    assert status.winner_lines(winner)[1] == "  dropout=0.4086 epochs=12 flip=True rate=1e-05"


@pytest.mark.parametrize(("reads", "said"), [(1, False), (2, True)])
def test_more_than_one_look_at_the_test_split_is_reported(tmp_path: Path, reads: int, said: bool) -> None:
    paths = write_sweep(tmp_path / "tiny")
    with Ledger(paths.ledger) as ledger:
        for _ in range(reads):
            ledger.append(EventKind.STAGE, stage="leaderboard", state="BEGUN", payload={"reads_test": 3})
        ledger.append(EventKind.STAGE, stage="leaderboard", state="BEGUN", payload={"fits": 1})
        ledger.append(EventKind.STAGE, stage="export", state="BEGUN", payload={"reads_test": 1})
    sentence = "this test split was read 2 times by this sweep; each further look makes"
    assert (sentence in " ".join(_shown(tmp_path / "tiny").split())) == said
    assert status.describe(tmp_path / "tiny")["looks"] == {"reads": reads, "sweeps": 1, "in_part": False}


def test_a_damaged_leaderboard_stops_neither_show_nor_its_json(tmp_path: Path) -> None:
    paths = write_sweep(tmp_path / "tiny")
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.NOTE, payload={"files": checksums(paths, [paths.leaderboard_parquet])})
    assert status.describe(paths.root)["leaderboard"] == [ROW]
    content = bytearray(paths.leaderboard_parquet.read_bytes())
    content[len(content) // 3] ^= 1
    paths.leaderboard_parquet.write_bytes(bytes(content))
    found = status.describe(paths.root)
    assert found["leaderboard"] == []
    assert f"{paths.leaderboard_parquet} is damaged: its bytes do not match the checksum" in found["damaged"]
    shown = " ".join(_shown(paths.root).split())
    assert "the leaderboard is not shown: " in shown
    assert f"`orch sweep --resume --out {paths.root}` makes it again." in shown
    assert "winner: trial aaaaaaaaa1" in shown


def test_one_trial_is_not_called_trials(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "one")
    about = {"trial": "aaaaaaaaa1", "stage": "search"}
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.TRIAL, **about, state="PENDING", payload={"number": 1}, time_s=0.0)
        ledger.append(EventKind.TRIAL, **about, state="RUNNING", time_s=0.0)
        ledger.append(EventKind.EPOCH, **about, epoch=1, val_accuracy=0.5, time_s=3000.0)
        ledger.append(EventKind.TRIAL, **about, state="COMPLETED", epoch=1, time_s=3600.0)
    assert "the best 1 of 1 trial, on validation" in _shown(paths.root)
    assert "rate     1 trial an hour over 1:00:00" in status.status_lines(read_sweep(paths.root), 9e9)


def test_show_prints_winner_reason_leaderboard_trials_and_what_to_type_next(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny")
    shown = _shown(tmp_path / "tiny")
    for part in (
        "winner: trial aaaaaaaaa1, model ensemble, policy whole",
        "because aaaaaaaaa1 has the highest validation accuracy.",
        "winner/ensemble",
        "the best 2 of 3 trials",
        "aaaaaaaaa3 003 small_cnn drop=0.2: the loss became NaN in epoch 1 (logs/aaaaaaaaa3.log)",
        f"next: orch promote best {tmp_path / 'tiny'}",
    ):
        assert part in shown, part


def test_trials_trained_in_full_come_before_pruned_ones_that_looked_better(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny", ended="RUNNING")
    best = read_sweep(tmp_path / "tiny").best()
    assert [record.id for record in best] == ["aaaaaaaaa1", "aaaaaaaaa4", "aaaaaaaaa2"]


# --- several objectives and folds ---------------------------------------------------------------------------------


def _several(root: Path) -> SweepPaths:
    """Three COMPLETED trials and a PRUNED one, with folds and speeds; the second is beaten by the first."""
    paths = SweepPaths(root)
    with Ledger(paths.ledger) as ledger:
        facts = {"name": "s", "budget": {"trials": 4, "epochs": 1}, "objectives": ["val_accuracy", "images_per_s"]}
        ledger.append(EventKind.SWEEP, state="RUNNING", payload=facts)
        for number, (accuracy, speed) in enumerate([(0.9, 20.0), (0.8, 10.0), (0.7, 300.0), (0.95, 500.0)], start=1):
            about = {"trial": f"t{number}", "stage": "search"}
            proposal = {"ask": number, "parameters": {"dropout": 0.1, "learning_rate@1": 0.02}}
            config = {"backbone": "small_cnn", "learning_rate": 0.02, "pooling": "max"}
            created = {"number": number, "config": config, "proposal": proposal}
            ledger.append(EventKind.TRIAL, **about, state="PENDING", payload=created)
            ledger.append(EventKind.TRIAL, **about, state="RUNNING")
            for fold in (1, 2):
                ledger.append(EventKind.EPOCH, **about, epoch=1, fold=fold, val_accuracy=accuracy + (fold - 1.5) / 50)
            ledger.append(EventKind.EPOCH, **about, epoch=1, val_accuracy=accuracy, images_per_s=speed, seconds=1.0)
            ledger.append(EventKind.TRIAL, **about, state="PRUNED" if number == 4 else "COMPLETED", epoch=1)
        front = [
            {
                "trial": "t1",
                "name": "001 small_cnn",
                "values": {"val_accuracy": 0.9, "images_per_s": 20},
                "chosen": True,
            },
            {"trial": "t3", "name": "", "values": {"val_accuracy": 0.7, "images_per_s": 300}, "chosen": False},
        ]
        winner = {"trial": "t1", "model": "single", "policy": "whole", "reason": "it is.", "front": front}
        ledger.append(EventKind.STAGE, stage="select", state="ENDED", payload={"winner": winner})
    return paths


def test_the_front_is_shown_to_programs_and_to_people(tmp_path: Path) -> None:
    paths = _several(tmp_path / "s")
    sweep = read_sweep(paths.root)
    assert [record.id for record in sweep.front()] == ["t1", "t3"]
    described = status.describe(paths.root)
    assert [row["trial"] for row in described["winner"]["front"]] == ["t1", "t3"]
    assert described["trials"][0]["objectives"] == {"val_accuracy": 0.9, "images_per_s": 20.0}
    assert described["trials"][0]["folds"] == pytest.approx([0.89, 0.91])
    said = status.status_lines(sweep, 9e9)
    assert "best     0.900 on validation, 20.0 images/s: t1 001 small_cnn lr=0.02, COMPLETED" in said
    assert "front    2 trials that none beats in all of val_accuracy, images_per_s" in said
    shown = _shown(paths.root)
    for part in (
        "2 trials that none beats in all of val_accuracy, images_per_s:",
        "* 90.00 %, 20.0 images/s: 001 small_cnn",
        "    70.00 %, 300 images/s: t3",
        "0.890 to 0.910",
        "20.0 images/s",
    ):
        assert part in shown, part


def test_a_winner_that_is_beaten_by_the_front_is_said() -> None:
    front = [{"trial": "a", "name": "a", "values": {"val_accuracy": 0.9, "images_per_s": 5.0}, "chosen": False}]
    assert status.front_lines({"front": front})[-1].startswith("The winner is none of them")
    assert status.front_lines({}) == []


def test_one_objective_has_no_front(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny")
    assert read_sweep(tmp_path / "tiny").front() == []
    assert not [line for line in status.status_lines(read_sweep(tmp_path / "tiny"), 0.0) if "front" in line]


@pytest.mark.parametrize("columns", [80, 140])
def test_show_prints_the_winner_on_each_class(columns: int, tmp_path: Path) -> None:
    paths = write_sweep(tmp_path / "tiny")
    assert "on each class" not in _shown(paths.root)  # as older sweeps
    labels = np.arange(60) % 3
    frame = per_class(labels, np.where(np.arange(60) < 9, 0, labels), ("a", "NA", "a class, with a long name"))
    write(frame, paths)
    assert status.describe(paths.root)["per_class"] == json_ready(frame.to_dict("records"))
    console = Console(file=io.StringIO(), width=columns, record=True)
    status.print_sweep(paths.root, console)
    lines = console.export_text().splitlines()
    assert "the winner on each class, on the test split (95 %)" in [line.strip() for line in lines]
    table = lines[lines.index(next(line for line in lines if "on each class" in line)) :]
    assert max(map(len, table[:8])) <= columns
    assert any(line.split()[:1] == ["NA"] for line in table)


@pytest.mark.parametrize("content", [b"class,f1\na,high\n", b"\xff\xfe", b'class\n"a', b"class,support\na\n"])
def test_a_damaged_table_of_classes_is_a_sentence(content: bytes, tmp_path: Path) -> None:
    paths = write_sweep(tmp_path / "tiny")
    paths.per_class.write_bytes(content)
    found = status.describe(paths.root)
    assert found["per_class"] == []
    assert f"{paths.per_class} is damaged: it is not a table that can be read" in found["damaged"]
    assert "the table of classes is not shown: " in " ".join(_shown(paths.root).split())


def test_the_winners_calibration_follows_the_leaderboard(tmp_path: Path) -> None:
    paths = write_sweep(tmp_path / "tiny")
    assert "temperature" not in " ".join(_shown(paths.root).split()).lower()  # as older sweeps
    figures = {"log_loss": 0.5, "ece": 0.2, "ece_floor": 0.02, "ece_debiased": 0.19}
    wanted = {"precision": 0.9, "threshold": 0.7, "photos": 90, "coverage": 0.9}
    wanted |= {"precision_on_test": 0.95, "low": 0.9, "high": 0.98}
    facts: dict[str, Any] = {"temperature": 0.5, "levels": [], "photos": 100, "source": "100 photos", "reason": ""}
    facts |= {"before": figures, "after": figures | {"ece_debiased": 0.01}, "wanted": [wanted], "highest": 0.93}
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.STAGE, stage="leaderboard", state="ENDED", payload={"calibrated": facts})
    assert status.describe(paths.root)["calibration"] == facts
    shown = " ".join(_shown(paths.root).split())
    assert "Temperature 0.500, fitted on 100 photos: on test the winner's ECE changes from 19.0 to 1.0 %" in shown
    assert "90.0 % of the photos are answered (90), 95.0 % of them correctly (90.0\N{EN DASH}98.0)." in shown
