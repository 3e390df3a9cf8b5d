"""A worker's answers to Tune: short epochs together, long ones each, and the last by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import worker
from orchestrator.cluster.worker import FitTrainable
from trainers.config import TrialConfig
from trainers.contract import FitJob


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trial of six epochs by the fake trainer, whose recipe is the argument; in this process."""
    monkeypatch.setattr(worker, "redirect_output", lambda log: None)

    def trial(recipe: str) -> FitTrainable:
        job = FitJob("t", TrialConfig(recipe=recipe), 0, "m", output=str(tmp_path))
        config = {"job": job.to_dict(), "log": str(tmp_path / "log"), "epochs": 6, "save_after_s": 10.0}
        return FitTrainable({**config, "factory": "tests.support.fake_trainer:open_fit"})

    return trial


def epochs_of(answers: list[dict[str, Any]]) -> list[int]:
    return [answer["epoch"] for answer in answers]


def test_short_epochs_come_in_one_answer_and_the_last_by_itself(trial: Any, tmp_path: Path) -> None:
    fit = trial("none")
    assert epochs_of(fit.train_buffered(1000, 0.1)) == [1, 2, 3, 4, 5]
    assert not (tmp_path / "t.done").exists(), "the scheduler has not seen yet whether the trial goes on"
    last = fit.train_buffered(1000, 0.1)
    assert (epochs_of(last), last[0]["done"]) == ([6], True)
    assert (tmp_path / "t.done").exists()


def test_a_long_epoch_is_answered_at_once(trial: Any) -> None:
    fit = trial("sleep:0.11")
    assert [epochs_of(fit.train_buffered(1000, 0.1)) for _ in range(2)] == [[1], [2]]


def test_an_exception_comes_after_what_was_trained_before_it(trial: Any) -> None:
    fit = trial("memory,at:3")
    assert epochs_of(fit.train_buffered(1000, 0.1)) == [1, 2]
    with pytest.raises(MemoryError):
        fit.train_buffered(1000, 0.1)


def test_nothing_comes_after_a_failure(trial: Any) -> None:
    answers = trial("refuse,at:3").train_buffered(1000, 0.1)
    assert epochs_of(answers) == [1, 2, 2]
    assert [answer["outcome"] for answer in answers] == ["", "", "failed"]
