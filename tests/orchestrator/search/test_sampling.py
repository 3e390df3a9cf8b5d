"""Where trials come from: distinct, reproducible, and the same after an interruption."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState as OptunaState

from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.state import TrialState, derive
from orchestrator.search import sampling
from orchestrator.search.sampling import OptunaSampler, SamplerSettings
from orchestrator.search.source import TrialRequest
from orchestrator.spec.space.domains import Choice, Constant, IntRange, Uniform
from orchestrator.spec.space.space import Case, Space
from trainers.config import TrialConfig, canonical, trial_id
from trainers.contract import FitJob

WIDE = Space.of(
    {
        "learning_rate": [Case(Uniform(1e-4, 1e-1, log=True))],
        "dropout": [Case(Uniform(0.0, 0.5))],
        "hidden": [Case(IntRange(0, 512, step=64))],
    }
)
CONDITIONAL = Space.of(
    {
        "head": [Case(Choice(("softmax", "cosface", "arcface")))],
        "margin": [Case(Uniform(0.1, 0.5), (("head", ("cosface", "arcface")),))],
        "learning_rate": [
            Case(Uniform(1e-4, 1e-3, log=True), (("head", ("softmax",)),)),
            Case(Uniform(1e-3, 1e-2, log=True)),
        ],
    }
)
SMALL = Space.of({"dropout": [Case(Choice((0.0, 0.25, 0.5)))], "multiplier": [Case(Choice((1.0, 2.0)))]})


def job(trial: str, config: TrialConfig) -> FitJob:
    return FitJob(trial, config, seed=0, manifest="manifest.parquet")


def propose(space: Space, **changes: Any) -> OptunaSampler:
    values = {"trials": 1000, "epochs": 3, "seed": 0, "data": "data", "startup_trials": 4, **changes}
    return OptunaSampler(space, SamplerSettings(**values), job)


def score(config: TrialConfig) -> float:
    """Best at dropout 0.2 and a learning rate of 1e-2."""
    return 1 - abs(config.dropout - 0.2) - 0.1 * abs(math.log10(config.learning_rate) + 2)


def run(source: Any, trials: int, at_once: int = 1) -> list[TrialRequest]:
    """Ask for trials, ``at_once`` of them open, and tell what ``score`` says of the oldest."""
    done: list[TrialRequest] = []
    live: list[TrialRequest] = []
    while len(done) < trials:
        request = source.ask() if len(live) < at_once and len(done) + len(live) < trials else None
        if request is not None:
            live.append(request)
        elif live:
            oldest = live.pop(0)
            source.tell(oldest.id, TrialState.COMPLETED, [score(oldest.job.config)])
            done.append(oldest)
        else:
            break
    return done


def configs(requests: Sequence[TrialRequest]) -> list[TrialConfig]:
    return [request.job.config for request in requests]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_the_same_seed_proposes_the_same_trials(sampler: str) -> None:
    first, second = (run(propose(WIDE, sampler=sampler), 12) for _ in range(2))
    assert configs(first) == configs(second)
    assert len(set(configs(first))) == 12
    other = run(propose(WIDE, sampler=sampler, seed=1), 12)
    assert not set(configs(first)) & set(configs(other))


def test_a_trials_id_is_that_of_its_canonical_configuration() -> None:
    request = propose(WIDE).ask()
    assert request is not None
    assert request.id == request.job.id == trial_id(request.job.config, 0, "data")
    assert (request.number, request.name) == (1, "")
    assert request.job.config.epochs == 3
    assert canonical(request.job.config.to_dict()) == request.job.config


def test_tpe_learns() -> None:
    found = [score(config) for config in configs(run(propose(WIDE, startup_trials=10), 50))]
    assert sum(found[-20:]) / 20 > sum(found[:10]) / 10 + 0.05


def test_conditions_decide_what_is_proposed() -> None:
    found = configs(run(propose(CONDITIONAL), 30))
    margins = [config.margin is not None for config in found]
    assert margins == [config.head != "softmax" for config in found]
    assert {config.learning_rate < 1e-3 for config in found if config.head == "softmax"} == {True}
    assert {config.learning_rate < 1e-3 for config in found if config.head != "softmax"} == {False}
    assert len({config.head for config in found}) == 3


def test_the_first_configurations_come_first() -> None:
    first = ({"learning_rate": 0.01, "dropout": 0.2, "hidden": 64}, {"learning_rate": 0.02, "dropout": 0, "hidden": 0})
    for sampler in ("tpe", "random"):
        found = configs(run(propose(WIDE, sampler=sampler, first=first), 3))
        assert found[:2] == [canonical({**values, "epochs": 3}) for values in first]
    small = configs(run(propose(SMALL, sampler="grid", first=({"dropout": 0.5, "multiplier": 2.0},)), 99))
    assert small[0] == canonical({"dropout": 0.5, "multiplier": 2.0, "epochs": 3})
    assert len(small) == len(set(small)) == 6


# --- distinct -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
@pytest.mark.parametrize("at_once", [1, 4])
def test_a_small_space_is_gone_through_once_and_ends_with_a_sentence(sampler: str, at_once: int) -> None:
    source = propose(SMALL, sampler=sampler)
    found = run(source, 99, at_once)
    assert len(found) == len(set(configs(found))) == 6
    assert [request.number for request in found] == list(range(1, 7))
    assert source.exhausted == "the space holds 6 different configurations and all of them were tried."


def test_the_grids_order_depends_on_the_seed() -> None:
    orders = [configs(run(propose(SMALL, sampler="grid", seed=seed), 99)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert set(orders[0]) == set(orders[2])


def test_the_budget_counts_distinct_configurations() -> None:
    source = propose(SMALL, sampler="random", trials=4)
    found = run(source, 99)
    assert len(set(configs(found))) == 4
    assert source.exhausted == "All 4 trials of the budget were started."


def test_a_duplicate_of_a_running_trial_gets_its_result_when_that_ends() -> None:
    source = propose(SMALL, sampler="random", seed=1)
    live = [source.ask() for _ in range(6)]
    assert all(live)
    waiting = {ask for asks in source._waiting.values() for ask in asks}
    assert len(waiting) > 6, "the draws hold no duplicate; choose another seed"
    assert source.ask() is None
    for request in live:
        assert request is not None
        source.tell(request.id, TrialState.COMPLETED, [0.5, score(request.job.config)])
    told = source._study.trials
    assert {trial.state for trial in told} == {OptunaState.COMPLETE}
    assert len(told) == len(waiting)
    for trial in told:
        config = canonical({**trial.params, "epochs": 3})
        assert trial.value == score(config)


def test_a_sampler_that_repeats_itself_waits_for_running_trials_and_then_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampling, "DUPLICATES_IN_A_ROW", 20)
    monkeypatch.setattr(sampling, "_pick", lambda trial, name, domain: trial.suggest_float(name, 0.2, 0.2))
    source = propose(Space.of({"dropout": [Case(Uniform(0.0, 0.5))]}))
    only = source.ask()
    assert only is not None
    assert source.ask() is None
    assert source.exhausted == ""
    source.tell(only.id, TrialState.COMPLETED, [0.5])
    assert source.ask() is None
    assert source.exhausted == (
        "the last 20 proposals were all of known configurations; the search ends after 1 of 1000 trials."
    )


# --- what Optuna is told ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "values", "told", "value", "reported"),
    [
        (TrialState.COMPLETED, [0.1, 0.2, 0.3], OptunaState.COMPLETE, 0.3, {}),
        (TrialState.PRUNED, [0.1, 0.2], OptunaState.PRUNED, 0.2, {1: 0.1, 2: 0.2}),
        (TrialState.STOPPED, [0.1], OptunaState.PRUNED, 0.1, {1: 0.1}),
        (TrialState.STOPPED, [], OptunaState.FAIL, None, {}),
        (TrialState.FAILED, [0.1], OptunaState.FAIL, None, {}),
        (TrialState.COMPLETED, [math.nan], OptunaState.FAIL, None, {}),
        (TrialState.COMPLETED, [0.1, 0.2, math.nan], OptunaState.FAIL, None, {}),
        (TrialState.COMPLETED, [math.nan, 0.2], OptunaState.COMPLETE, 0.2, {}),
        (TrialState.COMPLETED, [], OptunaState.FAIL, None, {}),
    ],
)
def test_optuna_gets_the_state_as_it_is(
    state: TrialState, values: list[float], told: OptunaState, value: float | None, reported: dict[int, float]
) -> None:
    source = propose(WIDE)
    request = source.ask()
    assert request is not None
    source.tell(request.id, state, values)
    (trial,) = source._study.trials
    assert (trial.state, trial.value, trial.intermediate_values) == (told, value, reported)


# --- after an interruption ----------------------------------------------------------------------------------------


class Recorded:
    """A source whose trials are put into a ledger, as the search does it."""

    def __init__(self, source: OptunaSampler, ledger: Ledger) -> None:
        self.source, self.ledger = source, ledger

    def ask(self) -> TrialRequest | None:
        request = self.source.ask()
        if request is not None:
            known = request.id in derive(self.ledger.events()).trials
            payload = {} if known else {"number": request.number, "proposal": dict(request.proposal)}
            self.ledger.append(EventKind.TRIAL, trial=request.id, state="PENDING", payload=payload)
            self.ledger.append(EventKind.TRIAL, trial=request.id, state="RUNNING", attempt=1)
        return request

    def tell(self, trial: str, state: TrialState, values: Sequence[float]) -> None:
        for epoch, value in enumerate(values, start=1):
            self.ledger.append(EventKind.EPOCH, trial=trial, epoch=epoch, val_accuracy=value)
        self.ledger.append(EventKind.TRIAL, trial=trial, state=str(state))
        self.source.tell(trial, state, values)


SPACES = {"wide": WIDE, "conditional": CONDITIONAL, "small": SMALL}


@pytest.mark.parametrize(
    ("space", "sampler"),
    [
        ("wide", "tpe"),
        ("wide", "random"),
        ("wide", "cmaes"),
        ("conditional", "tpe"),
        ("small", "tpe"),
        ("small", "random"),
        ("small", "grid"),
    ],
)
@pytest.mark.parametrize("killed_after", [1, 5, 11])
def test_a_replayed_source_goes_on_as_if_never_interrupted(
    tmp_path: Path, space: str, sampler: str, killed_after: int
) -> None:
    total = 6 if space == "small" else 14
    killed_after = min(killed_after, total - 1)
    whole = run(propose(SPACES[space], sampler=sampler), total)
    with Ledger(tmp_path / "ledger") as ledger:
        before = run(Recorded(propose(SPACES[space], sampler=sampler), ledger), killed_after)
        resumed = propose(SPACES[space], sampler=sampler)
        resumed.replay(ledger.events())
        after = run(Recorded(resumed, ledger), total - killed_after)
        state = derive(ledger.events())
    assert configs(before + after) == configs(whole)
    assert [request.number for request in after] == list(range(killed_after + 1, total + 1))
    assert len(state.trials) == total


def test_trials_that_ran_at_the_kill_come_first_with_their_old_ids(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        recorded = Recorded(propose(WIDE), ledger)
        asked = [recorded.ask() for _ in range(4)]
        assert asked[1] is not None
        recorded.tell(asked[1].id, TrialState.PRUNED, [0.3, 0.4])
        expected = recorded.source.ask()
        resumed = propose(WIDE)
        resumed.replay(ledger.events())
        again = [resumed.ask() for _ in range(3)]
        fresh = resumed.ask()
        told = resumed._study.trials[1]
    assert again == [asked[0], asked[2], asked[3]]
    assert fresh == expected
    assert (told.state, told.intermediate_values) == (OptunaState.PRUNED, {1: 0.3, 2: 0.4})


def test_a_finished_search_can_be_given_a_larger_budget(tmp_path: Path) -> None:
    whole = run(propose(WIDE, trials=12), 99)
    with Ledger(tmp_path / "ledger") as ledger:
        before = run(Recorded(propose(WIDE, trials=5), ledger), 99)
        ended = propose(WIDE, trials=5)
        ended.replay(ledger.events())
        assert ended.ask() is None
        assert ended.exhausted
        extended = propose(WIDE, trials=12)
        extended.replay(ledger.events())
        after = run(extended, 99)
    assert configs(before + after) == configs(whole)


def test_a_ledger_of_another_space_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        run(Recorded(propose(WIDE), ledger), 2)
        with pytest.raises(OrchError, match="does not belong to this space, seed and data; give the changed sweep a f"):
            propose(WIDE, data="other data").replay(ledger.events())


# --- refused ------------------------------------------------------------------------------------------------------


def test_a_sampler_without_its_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name in ("torch", "cmaes"):
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    for sampler, library in (("gp", "torch"), ("cmaes", "cmaes")):
        with pytest.raises(OrchError, match=rf"needs a library.*\({library}\); .*'orch\[{sampler}\]'"):
            propose(WIDE, sampler=sampler)


def test_an_unknown_sampler_names_the_known_ones() -> None:
    with pytest.raises(OrchError, match="no sampler 'best'; known are tpe, random, grid, cmaes, gp"):
        propose(WIDE, sampler="best")


def test_a_grid_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "LARGEST_COUNTED", 5)
    with pytest.raises(OrchError, match="more than 5 combinations; shorten its lists"):
        propose(SMALL, sampler="grid")


def test_a_space_of_one_configuration_is_one_trial() -> None:
    source = propose(Space.of({"dropout": [Case(Constant(0.3))]}))
    assert configs(run(source, 99)) == [canonical({"dropout": 0.3, "epochs": 3})]
    assert source.exhausted == "the space holds 1 different configurations and all of them were tried."


# --- several objectives -------------------------------------------------------------------------------------------

BOTH = ("val_accuracy", "images_per_s")


def figures(config: TrialConfig) -> list[float]:
    """Of a configuration: its score, and a speed that falls with the hidden units."""
    return [score(config), 1000 / (1 + config.hidden)]


def run_several(source: Any, trials: int) -> list[TrialRequest]:
    """One after the other; every third trial is PRUNED after its first epoch, every fifth FAILED."""
    done = []
    while len(done) < trials and (request := source.ask()) is not None:
        last = figures(request.job.config)
        state = {0: TrialState.PRUNED, 1: TrialState.FAILED}.get(request.number % 5, TrialState.COMPLETED)
        values = [last[0]] if state == TrialState.PRUNED else [last[0] / 2, last[0]]
        source.tell(request.id, state, values, last)
        done.append(request)
    return done


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_several_objectives_are_reported_as_they_are(sampler: str) -> None:
    source = propose(WIDE, sampler=sampler, objectives=BOTH, startup_trials=3)
    done = run_several(source, 20)
    told = source._study.trials
    assert [trial.state for trial in told[:5]] == [
        *(OptunaState.FAIL, OptunaState.COMPLETE, OptunaState.COMPLETE, OptunaState.COMPLETE, OptunaState.PRUNED)
    ]
    complete = [(t, r) for t, r in zip(told, done, strict=True) if t.state == OptunaState.COMPLETE]
    assert len(complete) == 12
    assert all(trial.values == figures(request.job.config) for trial, request in complete)
    assert all(t.values is None and not t.intermediate_values for t in told if t.state != OptunaState.COMPLETE)


@pytest.mark.parametrize(("last", "told"), [((0.9, math.nan), "FAIL"), ((), "FAIL"), ((0.9, 5.0), "COMPLETE")])
def test_an_objective_that_is_no_number_is_a_failure(last: tuple[float, ...], told: str) -> None:
    source = propose(WIDE, objectives=BOTH)
    request = source.ask()
    assert request is not None
    source.tell(request.id, TrialState.COMPLETED, [0.5, 0.9], last)
    assert source._study.trials[0].state.name == told


def test_a_loss_is_minimised_and_one_objective_needs_no_last_values() -> None:
    source = propose(WIDE, objectives=("val_loss",))
    for loss in (0.5, 0.2, 0.9):
        request = source.ask()
        assert request is not None
        source.tell(request.id, TrialState.COMPLETED, [1.0, loss])
    assert source._study.best_value == 0.2


def test_a_duplicate_gets_every_objective() -> None:
    source = propose(SMALL, sampler="random", seed=1, objectives=BOTH)
    while (request := source.ask()) is not None:
        source.tell(request.id, TrialState.COMPLETED, [0.5], figures(request.job.config))
    told = source._study.trials
    assert len(told) > 6, "the draws hold no duplicate; choose another seed"
    for trial in told:
        assert trial.values == figures(canonical({**trial.params, "epochs": 3}))


@pytest.mark.parametrize("killed_after", [1, 7, 13])
def test_several_objectives_survive_a_kill(tmp_path: Path, killed_after: int) -> None:
    def source() -> OptunaSampler:
        return propose(WIDE, objectives=BOTH, startup_trials=3)

    whole = run_several(source(), 16)
    with Ledger(tmp_path / "ledger") as ledger:
        for request in run_several(first := source(), killed_after):
            state, values, last = first._ended[request.id]
            payload = {"number": request.number, "proposal": dict(request.proposal)}
            ledger.append(EventKind.TRIAL, trial=request.id, state="PENDING", payload=payload)
            ledger.append(EventKind.TRIAL, trial=request.id, state="RUNNING", attempt=1)
            for epoch, value in enumerate(values, start=1):
                ledger.append(EventKind.EPOCH, trial=request.id, epoch=epoch, fold=1, val_accuracy=0.1)
                row = {"val_accuracy": value, "images_per_s": last[1]}
                ledger.append(EventKind.EPOCH, trial=request.id, epoch=epoch, objectives=(value, last[1]), **row)
            ledger.append(EventKind.TRIAL, trial=request.id, state=str(state))
        resumed = source()
        resumed.replay(ledger.events())
    after = run_several(resumed, 16 - killed_after)
    assert configs(after) == configs(whole)[killed_after:]
    assert len(whole) == 16


def test_tpe_finds_the_whole_front() -> None:
    """Half of the last trials lie near the front: the best dropout and rate, at any number of hidden units."""
    source = propose(WIDE, objectives=BOTH, startup_trials=10, seed=3)
    scores = []
    while len(scores) < 60 and (request := source.ask()) is not None:
        scores.append(score(request.job.config))
        source.tell(request.id, TrialState.COMPLETED, scores[-1:], figures(request.job.config))
    assert sum(scores[-20:]) / 20 > sum(scores[:10]) / 10 + 0.03


def test_cmaes_takes_one_objective_only() -> None:
    with pytest.raises(OrchError, match="cmaes learns from one objective alone; use tpe, gp or random with several"):
        propose(WIDE, sampler="cmaes", objectives=BOTH)
