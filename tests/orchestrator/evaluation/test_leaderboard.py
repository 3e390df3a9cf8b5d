"""The leaderboard's figures against independent implementations, its order, and how it is written."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.evaluation.leaderboard import (
    COLUMNS,
    ModelPredictions,
    accuracy_interval,
    ensemble,
    exact_mcnemar,
    expected_calibration_error,
    paired_difference,
    rank,
    signed,
    to_markdown,
    to_rich,
    write,
)
from orchestrator.paths import SweepPaths


def probabilities(rng: np.random.Generator, labels: np.ndarray, classes: int, signal: float) -> np.ndarray:
    scores = rng.normal(size=(len(labels), classes))
    scores[np.arange(len(labels)), labels] += signal
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 6, 360)


@pytest.fixture(scope="module")
def predictions(labels) -> list[ModelPredictions]:
    rng = np.random.default_rng(1)
    rows = []
    for model, policy in itertools.product(("w-s1", "w-s2", "w-ensemble", "r-s1"), ("whole", "ten_crop", "random_16")):
        rows.append(ModelPredictions(model, policy, probabilities(rng, labels, 6, 3.0), seconds=2.5))
    return rows


WINNER = ("w-ensemble", "ten_crop")


@pytest.fixture(scope="module")
def frame(predictions, labels) -> pd.DataFrame:
    return rank(predictions, labels, WINNER)


# --- single figures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("correct", "total", "interval"),
    [  # as 0.1.0 wrote them into leaderboards, from the formula
        (0, 1, (0.0, 0.7934506856227626)),
        (1, 1, (0.20654931437723742, 1.0)),
        (0, 382, (0.0, 0.009956055091734722)),
        (191, 382, (0.4501099832337803, 0.5498900167662196)),
        (353, 382, (0.8930982784291226, 0.9466248580899296)),
        (382, 382, (0.9900439449082653, 1.0)),
        (14967, 20000, (0.7422884121039902, 0.7543162035869425)),
    ],
)
def test_the_interval_is_wilsons(correct, total, interval):
    assert accuracy_interval(correct, total) == pytest.approx(interval, abs=1e-14)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_no_interval_of_what_is_no_accuracy(correct, total):
    with pytest.raises(ValueError, match=f"{correct} correct of {total} images is no accuracy"):
        accuracy_interval(correct, total)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [  # as 0.1.0 wrote them into leaderboards, in whole numbers to the last step
        (0, 0, 1.0),
        (0, 1, 1.0),
        (3, 9, 0.14599609375),
        (9, 3, 0.14599609375),
        (17, 40, 0.003201543767450382),
        (412, 388, 0.4161355285396153),
        (5000, 5200, 0.04878796312682245),
        (0, 9000, 0.0),
    ],
)
def test_the_p_value_is_the_exact_mcnemar_test(only_a, only_b, p_value):
    assert exact_mcnemar(only_a, only_b) == pytest.approx(p_value, rel=1e-11)


def test_the_paired_difference_of_a_table_worked_by_hand():
    """50 images; 3 right under a only, 9 under b only: d = 6/52, 1.96 sqrt(13 - 36/52) / 52."""
    a = [True] * 3 + [False] * 9 + [True] * 30 + [False] * 8
    b = [False] * 3 + [True] * 9 + [True] * 30 + [False] * 8
    paired = paired_difference(a, b)
    half = 1.959963984540054 * (13 - 36 / 52) ** 0.5 / 52
    assert paired.difference == pytest.approx(0.12)
    assert (paired.low, paired.high) == pytest.approx((6 / 52 - half, 6 / 52 + half))
    assert paired.p_value == pytest.approx(2 * sum([1, 12, 66, 220]) / 4096)


ANSWERS = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.booleans(), min_size=n, max_size=n), st.lists(st.booleans(), min_size=n, max_size=n)
    )
)


@settings(deadline=None)
@given(ANSWERS)
def test_a_paired_difference_lies_in_its_interval_and_turns_with_its_sides(pair):
    a, b = pair
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert -1 <= there.low <= there.difference <= there.high <= 1
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))
    assert back.p_value == there.p_value


def test_a_paired_difference_needs_the_same_images():
    with pytest.raises(ValueError, match=r"the same images, at least 1; got shapes \(2,\) and \(3,\)"):
        paired_difference([True] * 2, [True] * 3)
    with pytest.raises(ValueError, match="at least 1"):
        paired_difference([], [])


@pytest.mark.parametrize("images", [100, 360, 2500])
@pytest.mark.parametrize(("only_a", "only_b"), [(0.005, 0.015), (0.02, 0.02), (0.01, 0.04)])
def test_the_paired_interval_covers_the_truth_in_95_of_100_repetitions(images, only_a, only_b):
    """3,000 repetitions: the standard error of a coverage of 0.95 is 0.004."""
    rng = np.random.default_rng(images)
    tables = rng.multinomial(images, [only_a, only_b, 1 - only_a - only_b], size=3000)
    found, repetitions = np.unique(tables, axis=0, return_counts=True)
    covered = 0
    for (b, c, _), times in zip(found, repetitions, strict=True):
        first, second = np.zeros(images, bool), np.zeros(images, bool)
        first[:b], second[b : b + c] = True, True
        paired = paired_difference(first, second)
        covered += times * (paired.low <= only_b - only_a <= paired.high)
    assert 0.935 <= covered / 3000 <= 1


def test_calibration_of_a_table_worked_by_hand():
    """Bins of a fifteenth: 0.9 (right, wrong), 0.6 (right), and 0.6 again, 9/15, on the upper edge of its bin."""
    confidence = np.array([0.9, 0.9, 0.6, 0.6])
    p = np.stack([confidence, 1 - confidence], axis=1)
    assert expected_calibration_error(p, np.array([0, 1, 0, 0])) == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)


def test_calibration_of_the_extremes():
    certain = np.eye(2)[[0, 1, 1]]
    assert expected_calibration_error(certain, np.array([0, 1, 1])) == 0
    assert expected_calibration_error(certain, np.array([1, 0, 0])) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_calibration_equals_the_formula_bin_by_bin(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 80)
    p = probabilities(rng, truth, 4, 1.5)
    confidence, right, total = p.max(axis=1), p.argmax(axis=1) == truth, 0.0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(p, truth) == pytest.approx(total)


def test_an_ensemble_is_the_mean():
    a, b = np.array([[0.8, 0.2]], np.float32), np.array([[0.4, 0.6]], np.float32)
    np.testing.assert_allclose(ensemble([a, b]), [[0.6, 0.4]], rtol=1e-6)
    with pytest.raises(ValueError, match="at least one"):
        ensemble([])
    with pytest.raises(ValueError, match=r"one shape; got \[\(1, 2\), \(2, 2\)\]"):
        ensemble([a, np.ones((2, 2)) / 2])


# --- the table ----------------------------------------------------------------------------------------------------


def test_the_columns_and_one_row_each(frame, predictions):
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == len(predictions) == 12
    assert frame[["model", "policy"]].drop_duplicates().shape[0] == 12


def test_the_figures_of_a_row(frame, predictions, labels):
    p = next(p for p in predictions if (p.model, p.policy) == ("w-s1", "ten_crop"))
    whole = next(p for p in predictions if (p.model, p.policy) == ("w-s1", "whole"))
    row = frame[(frame.model == "w-s1") & (frame.policy == "ten_crop")].iloc[0]
    hits, plain = p.probabilities.argmax(1) == labels, whole.probabilities.argmax(1) == labels
    assert row.accuracy == hits.mean()
    assert (row.accuracy_low, row.accuracy_high) == accuracy_interval(hits.sum(), 360)
    assert row.images_per_s == 144
    assert row.difference == pytest.approx(hits.mean() - plain.mean())
    paired = paired_difference(plain, hits)
    assert (row.difference_low, row.difference_high, row.p_value) == (paired.low, paired.high, paired.p_value)


def test_whole_rows_differ_from_themselves_by_nothing(frame):
    whole = frame[frame.policy == "whole"]
    assert len(whole) == 4
    assert (whole[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert (whole.p_value == 1).all()


def test_sorted_by_accuracy_then_log_loss_and_never_by_the_order_given(frame, predictions, labels):
    keys = list(zip(-frame.accuracy, frame.log_loss, frame.model, frame.policy, strict=True))
    assert keys == sorted(keys)
    pd.testing.assert_frame_equal(rank(predictions[::-1], labels, WINNER), frame)


def test_equal_rows_are_sorted_by_name(predictions, labels):
    p = predictions[0].probabilities
    rows = [ModelPredictions(m, q, p, 1.0) for m, q in (("b", "whole"), ("a", "whole"), ("a", "flip"))]
    assert rank(rows, labels, ("a", "whole"))[["model", "policy"]].to_numpy().tolist() == [
        ["a", "flip"],
        ["a", "whole"],
        ["b", "whole"],
    ]


def test_the_winner_is_the_one_given_even_when_it_comes_last(predictions, labels, frame):
    worst = tuple(frame.iloc[-1][["model", "policy"]])
    again = rank(predictions, labels, worst)
    assert again.winner.tolist() == [False] * 11 + [True]
    pd.testing.assert_frame_equal(again.drop(columns="winner"), frame.drop(columns="winner"))


def test_seconds_of_nothing_are_no_speed(predictions, labels):
    row = rank([ModelPredictions("a", "whole", predictions[0].probabilities, 0.0)], labels, ("a", "whole")).iloc[0]
    assert np.isnan(row.images_per_s)
    assert "nan" not in to_markdown(row.to_frame().T)


def test_what_does_not_fit_is_refused(predictions, labels):
    first, second = predictions[:2]
    good = first.probabilities
    cases = [
        ([first, first], labels, "duplicates: w-s1/whole"),
        ([second], labels, "every model needs its `whole` row; missing for w-s1"),
        ([first], labels, "the winner w-s1/ten_crop is not among the 1 rows"),
        (
            [first, second],
            labels[:-1],
            r"w-s1/whole: probabilities of shape \(360, 6\) do not fit 359 labels from 0 to 5",
        ),
        ([first, second], labels + 1, r"do not fit 360 labels from 1 to 6"),
        ([first, second], labels[:0], r"at least 1; got shape \(0,\)"),
        (
            [first, ModelPredictions("w-s1", "ten_crop", np.where(good > 0.5, np.nan, good), 1)],
            labels,
            "w-s1/ten_crop: a probability is not a finite number",
        ),
    ]
    for rows, truth, text in cases:
        with pytest.raises(ValueError, match=text):
            rank(rows, truth, ("w-s1", "ten_crop"))


# --- how it is shown ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0123, "+1.2"),
        (-0.0123, "\N{MINUS SIGN}1.2"),
        (0.0, "0.0"),
        (0.0004, "0.0"),
        (-0.0004, "0.0"),
        (1.0, "+100.0"),
    ],
)
def test_signed_points(share, text):
    assert signed(share) == text


def test_markdown_has_a_row_each_and_one_bold_winner(frame):
    lines = to_markdown(frame).splitlines()
    assert len(lines) == 12 + 4
    columns = {line.count("|") for line in lines[:14]}
    assert len(columns) == 1
    bold = [line for line in lines if "**" in line]
    assert len(bold) == 1
    assert bold[0].startswith("| **w-ensemble** | **ten_crop** | **")
    assert bold[0].endswith("| **winner** |")
    assert "chosen on validation, not here" in lines[-1]


def test_markdown_survives_a_pipe_in_a_name(predictions, labels):
    row = rank([ModelPredictions("a|b", "whole", predictions[0].probabilities, 1.0)], labels, ("a|b", "whole"))
    assert "**a\\|b**" in to_markdown(row)


def shown(frame: pd.DataFrame, width: int, **more) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(to_rich(frame, **more))
    return capture.get().splitlines()


def test_the_terminal_table_fits_100_columns_with_every_figure_whole(frame):
    lines = shown(frame, 100, title="[trashnet], 360 test images")
    assert max(map(len, lines)) <= 100
    assert "…" not in "".join(lines)
    assert lines[0].strip() == "[trashnet], 360 test images"
    stars = [line for line in lines if line.lstrip().startswith("★") and "chosen" not in line]
    assert len(stars) == 1
    row = frame[frame.winner].iloc[0]
    for figure in ("w-ensemble", "ten_crop", f"{100 * row.accuracy:.1f}", f"{row.log_loss:.3f}", "144"):
        assert figure in stars[0]
    rows = [line.lstrip("★ ").split()[:2] for line in lines if "-s" in line or "w-ensemble" in line]
    assert rows == frame[["model", "policy"]].to_numpy().tolist()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=60), min_size=1, max_size=4))
def test_the_terminal_table_folds_long_names_and_takes_them_literally(names):
    assume(len(set(names)) == len(names))
    truth = np.zeros(3, int)
    rows = [ModelPredictions(f"[bold]{name}", "whole", np.eye(2)[truth], 1.0) for name in names]
    lines = shown(rank(rows, truth, (f"[bold]{names[0]}", "whole")), 100)
    assert "[bold]" in "".join(lines)
    assert "…" not in "".join(lines) or any("…" in name for name in names)


def test_the_winners_line_is_bold(frame):
    table = to_rich(frame)
    assert [row.style for row in table.rows if row.style] == ["bold green"]


def test_written_three_ways_and_read_back(frame, tmp_path):
    paths = SweepPaths(tmp_path / "my sweep")
    write(frame, paths)
    write(frame, paths)
    names = {p.name for p in paths.root.iterdir()}
    assert names == {"leaderboard.csv", "leaderboard.parquet", "leaderboard.md"}
    pd.testing.assert_frame_equal(pd.read_parquet(paths.leaderboard_parquet), frame)
    pd.testing.assert_frame_equal(pd.read_csv(paths.leaderboard_csv), frame)
    assert paths.leaderboard_md.read_text(encoding="utf-8") == to_markdown(frame)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(frame, tmp_path, monkeypatch):
    paths = SweepPaths(tmp_path)
    write(frame, paths)
    before = paths.leaderboard_csv.read_bytes()

    def full_disk(self, path, index):
        path.write_text("half a")
        raise OSError("no space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write(frame.head(1), paths)
    assert paths.leaderboard_csv.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_a_long_table_is_cut_on_a_terminal_and_says_so() -> None:
    labels = np.arange(40) % 4
    right = np.eye(4)[labels]
    predictions = []
    for number in range(12):
        worse = right.copy()
        worse[: number + 1] = np.roll(worse[: number + 1], 1, axis=1)
        predictions += [ModelPredictions(f"m{number:02d}", policy, worse, 1.0) for policy in ("whole", "flip")]
    table = to_rich(rank(predictions, labels, ("m11", "flip")), most=5)
    assert table.row_count == 5 + 2  # the winner's row and its whole row come after the first five
    assert str(table.caption).startswith("17 more rows in leaderboard.csv\n")


def test_a_name_that_a_person_gave_is_a_last_column_and_stands_next_to_the_model() -> None:
    labels = np.array([0, 1, 1])
    p = np.eye(2)[[0, 1, 0]]
    models = [ModelPredictions("winner/seed-0", "whole", p, 1.0, "x2"), ModelPredictions("other", "whole", p, 1.0)]
    frame = rank(models, labels, ("winner/seed-0", "whole"))
    assert list(frame.columns) == [*COLUMNS, "configuration"]
    assert dict(zip(frame["model"], frame["configuration"], strict=True)) == {"winner/seed-0": "x2", "other": ""}
    assert "| **winner/seed-0 x2** |" in to_markdown(frame)
    plain = rank([ModelPredictions("winner/seed-0", "whole", p, 1.0)], labels, ("winner/seed-0", "whole"))
    assert list(plain.columns) == list(COLUMNS)
