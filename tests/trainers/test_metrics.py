"""Macro F1 and log loss against scikit-learn's, and that the search and the leaderboard show the same figure."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import f1_score
from sklearn.metrics import log_loss as sklearn_log_loss

from orchestrator.evaluation import leaderboard
from orchestrator.evaluation.leaderboard import ModelPredictions, rank
from trainers.metrics import SMALLEST_PROBABILITY, log_loss, macro_f1, macro_f1_influence
from trainers.training import loop

CLASSES = st.integers(0, 6)
ANSWERS = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.int32, n, elements=CLASSES),  # labels as the manifest gives them
        arrays.arrays(np.int64, n, elements=CLASSES),  # predictions as argmax gives them
    )
)


@settings(deadline=None)
@given(ANSWERS)
def test_macro_f1_is_that_of_scikit_learn(answers):
    labels, predicted = answers
    theirs = f1_score(labels, predicted, average="macro", zero_division=0)
    assert macro_f1(labels, predicted) == pytest.approx(theirs, rel=1e-12)


def test_a_class_that_is_only_predicted_counts_in_the_search_and_on_the_leaderboard():
    labels, predicted = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 2, 1, 1, 1])
    assert macro_f1(labels, predicted) == pytest.approx(0.6)
    frame = rank([ModelPredictions("m", "whole", np.eye(3)[predicted], 1.0)], labels, ("m", "whole"))
    assert frame["macro_f1"].tolist() == pytest.approx([0.6])


def test_the_search_and_the_leaderboard_share_their_definitions():
    for module in (loop, leaderboard):
        assert (module.macro_f1, module.log_loss) == (macro_f1, log_loss)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_is_that_of_scikit_learn(dtype):
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 200)
    probabilities = random.dirichlet(np.ones(5), 200).astype(dtype)
    theirs = sklearn_log_loss(labels, probabilities)
    assert log_loss(probabilities, labels) == pytest.approx(theirs, rel=1e-12 if dtype == np.float64 else 1e-5)


def test_log_loss_keeps_the_bits_of_recorded_validation_losses():
    """A resumed sweep replays recorded losses next to new ones."""
    random = np.random.default_rng(7)
    labels = random.integers(0, 6, 380)
    probabilities = random.dirichlet(np.full(6, 0.2), 380).astype(np.float32)
    assert repr(log_loss(probabilities, labels)) == "4.835123538970947"


def test_certain_and_wrong_costs_a_bounded_loss():
    assert log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(SMALLEST_PROBABILITY))


@settings(deadline=None)
@given(ANSWERS)
def test_the_influence_adds_up_to_macro_f1(answers):
    labels, predicted = answers
    figure, influence = macro_f1_influence(labels, predicted)
    assert float(figure) == pytest.approx(macro_f1(labels, predicted), rel=1e-12)
    assert influence.sum() == pytest.approx(0, abs=1e-9 * len(labels))
    both = macro_f1_influence(labels, np.stack([predicted, labels]))
    np.testing.assert_allclose(both[0], [figure, 1.0])
    np.testing.assert_allclose(both[1][0], influence)


def test_the_influence_is_the_change_by_one_image_more():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 3000), rng.integers(0, 4, 3000)
    figure, influence = macro_f1_influence(labels, predicted)
    for i in range(5):
        more = macro_f1(np.append(labels, labels[i]), np.append(predicted, predicted[i]))
        assert 3001 * (more - figure) == pytest.approx(influence[i], rel=0.01, abs=0.002)
