"""The greedy soup: the order of its ingredients, which are kept, and what is written once."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.sweep.forms import soup as module
from orchestrator.sweep.forms.soup import average, discard, greedy_soup, predicted, score, soup_id, soup_in_words
from orchestrator.sweep.refit import FinalModel, refit
from tests.orchestrator.sweep.forms.conftest import WINNER, Chosen
from tests.support.in_process import InProcess
from trainers.training.loop import WEIGHTS_FILE, read_weights

A, B, C, D = (FinalModel(f"winner/seed-{i}", fit, WINNER.config) for i, fit in enumerate("abcd"))
RIGHT = {"a": 90, "b": 93, "c": 93, "d": 80, "bc": 94, "abc": 92, "bcd": 94}
LOSS = {"b": 0.3, "c": 0.2}


def test_a_network_is_kept_unless_fewer_photos_are_right_with_it(
    chosen: Chosen, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, _ = chosen()
    monkeypatch.setattr(module, "predict_missing", lambda *arguments, **more: None)
    monkeypatch.setattr(module, "missing_jobs", lambda *arguments, **more: [])
    monkeypatch.setattr(module, "soup_id", lambda fits: "".join(sorted(fits)))
    monkeypatch.setattr(module, "score", lambda sweep, fit, policy: (RIGHT[fit], 100, LOSS.get(fit, 0.5)))
    found = greedy_soup(sweep, [A, B, C, D], "whole", 0, ("train",))
    assert [step.model[-1] for step in found.steps] == ["2", "1", "0", "3"]  # the lower log loss of two first
    assert [(step.correct, step.kept) for step in found.steps] == [(93, True), (94, True), (92, False), (94, True)]
    assert found.ingredients == (C, B, D)
    assert found.tried == ("bc", "abc", "bcd")
    assert soup_in_words(found) == (
        "The soup averages 3 of 4 networks (seed-2, seed-1, seed-3): 94 of 100 validation images."
    )


def test_an_average_is_written_once_and_again_if_it_is_damaged(chosen: Chosen, in_process: InProcess) -> None:
    sweep, manifest = chosen(forms=("ensemble", "soup"), refit="train")
    models = refit(sweep, manifest, WINNER)
    fit = average(sweep, models, 0, ("train",))
    assert average(sweep, models[::-1], 0, ("train",)) == fit == soup_id([m.fit for m in models])
    assert in_process.calls == ["average"]
    file = sweep.paths.fit(fit) / WEIGHTS_FILE
    _, weights = read_weights(sweep.paths.fit(fit))
    file.write_bytes(b"junk")
    average(sweep, models, 0, ("train",))
    assert in_process.calls == ["average", "average"]
    for old, new in zip(weights, read_weights(sweep.paths.fit(fit))[1], strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_discarded_soup_is_made_again_only_if_its_probabilities_are_damaged(
    chosen: Chosen, in_process: InProcess
) -> None:
    sweep, manifest = chosen(forms=("ensemble", "soup"), refit="train")
    models = refit(sweep, manifest, WINNER)
    fit = predicted(sweep, models, "whole", 0, ("train",))
    discard(sweep, [fit, "other"])
    assert not sweep.paths.fit(fit).exists()
    assert sweep.kept().below(sweep.paths.fit(fit)) == []
    events = len(sweep.ledger.events())
    assert predicted(sweep, models, "whole", 0, ("train",)) == fit
    discard(sweep, [fit])
    assert in_process.calls == ["average", "predict"]
    assert len(sweep.ledger.events()) == events
    file = sweep.paths.probabilities(fit, "validation", "whole")
    before = score(sweep, fit, "whole")
    file.write_bytes(b"junk")
    predicted(sweep, models, "whole", 0, ("train",))
    assert in_process.calls == ["average", "predict"] * 2
    assert score(sweep, fit, "whole") == before
