"""Numbers with their nouns, and the nearest known word; the same in every sentence that uses them."""

import pytest

from orchestrator.spec.mistakes import nearest as quoted
from trainers.errors import TrainerError
from trainers.export.formats import export_formats
from trainers.images.policies import policy
from trainers.wording import count, did_you_mean, first_line, nearest


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (2527, "2,527 images")]
)
def test_a_number_and_its_noun(number, words):
    assert count(number, "image") == words


def test_the_nearest_word_has_the_case_of_the_known_one():
    assert nearest("SQUASHED", ["centre_crop", "squash"]) == "squash"
    assert nearest("labels", ["Label", "Path"]) == "Label"
    assert nearest("q", ["centre_crop", "squash"]) is None
    assert nearest("labe", ["label"], cutoff=0.95) is None


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("val", ["train", "validation", "test"], "validation"),
        ("lr", ["learning_rate", "label_smoothing", "loss"], "learning_rate"),
        ("grace", ["name", "grace_epochs", "min_trials"], "grace_epochs"),
        ("WD", ["weight_decay", "width"], "weight_decay"),
        ("ls", ["label_smoothing", "last_step"], None),
        ("tr", ["train"], None),
        ("l", ["loss"], None),
    ],
)
def test_an_abbreviation_of_one_word_alone_is_that_word(word: str, known: list[str], expected: str | None) -> None:
    assert nearest(word, known) == expected


def test_a_clause_ends_in_a_question_or_a_full_stop():
    assert did_you_mean("squash_", ["squash"]) == "; did you mean squash?"
    assert did_you_mean("zzz", ["squash"]) == "."
    assert quoted("squash_", ["squash"]) == '; did you mean "squash"?'
    with pytest.raises(TrainerError, match=r"'TFLITE'; did you mean tflite\? Known are"):
        export_formats(["TFLITE"])
    with pytest.raises(TrainerError, match=r"'Ten_Crop'; did you mean ten_crop\? Known are"):
        policy("Ten_Crop")


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValueError("it broke.\nmore"), "it broke"), (KeyError(), "KeyError"), (OSError("a.b"), "a.b")],
)
def test_the_first_line_of_an_error_goes_into_a_sentence(error: Exception, expected: str) -> None:
    assert first_line(error) == expected
