"""The leaderboard's figures against independent implementations, its order, and how it is written."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.evaluation.calibration import calibration_error
from orchestrator.evaluation.intervals import accuracy_interval, paired_difference
from orchestrator.evaluation.leaderboard import (
    COLUMNS,
    ModelPredictions,
    ensemble,
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
    assert (row.images, row.groups) == (360, 360)
    calibration = calibration_error(p.probabilities, labels)
    assert (row.ece, row.ece_floor, row.ece_debiased) == dataclasses.astuple(calibration)
    assert row.macro_f1_low < row.macro_f1 < row.macro_f1_high
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
    lines = shown(frame, 100, title="[trashnet] on test")
    assert max(map(len, lines)) <= 100
    assert "…" not in "".join(lines)
    assert lines[0].strip() == "[trashnet] on test, 360 photos"
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
    assert [style for style in table.styles if style] == ["bold green"]


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
    assert len(table.rows) == 5 + 2  # the winner's row and its whole row come after the first five
    assert table.notes[0] == "17 more rows in leaderboard.csv"


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


# --- photos of the same object ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grouped(predictions, labels) -> pd.DataFrame:
    """The same predictions, each four times: 90 objects of four photos, so 360 photos that say what 90 say."""
    four = [ModelPredictions(p.model, p.policy, p.probabilities[:90].repeat(4, axis=0), p.seconds) for p in predictions]
    return rank(four, labels[:90].repeat(4), WINNER, [f"object {i // 4}" for i in range(360)])


def test_copies_of_photos_make_no_figure_more_certain(grouped, predictions, labels):
    once = rank(
        [ModelPredictions(p.model, p.policy, p.probabilities[:90], p.seconds) for p in predictions], labels[:90], WINNER
    )
    for board in (once, grouped):
        assert board.groups.unique().tolist() == [90]
    keys = ["model", "policy"]
    both = once.merge(grouped, on=keys, suffixes=("", "_4"))
    assert len(both) == 12
    for name in ("accuracy", "macro_f1"):
        width, width_4 = (both[f"{name}_high{end}"] - both[f"{name}_low{end}"] for end in ("", "_4"))
        many = both.accuracy < 0.94  # with fewer than 6 errors the groups' variance is less certain, so t is larger
        assert many.sum() >= 3
        assert (width_4 / width).between(0.9, 1.6).all(), name
        assert (width_4 / width)[many].between(0.9, 1.2).all(), name
    np.testing.assert_allclose(both.p_value_4, both.p_value, rtol=1e-9)


def test_the_tables_say_how_many_objects(grouped):
    assert "360 photos of 90 objects. The winner was chosen" in to_markdown(grouped)
    assert shown(grouped, 100, title="on test")[0].strip() == "on test, 360 photos of 90 objects"


def test_too_few_objects_have_figures_but_no_differences(predictions, labels):
    frame = rank(predictions, labels, WINNER, [str(i % 9) for i in range(360)])
    assert frame[["macro_f1_low", "macro_f1_high"]].isna().all(axis=None)
    assert (frame.accuracy_high - frame.accuracy_low > 0.2).all(), "nine objects count as nine photos"
    other = frame[frame.policy != "whole"]
    assert other[["difference_low", "difference_high", "p_value"]].isna().all(axis=None)
    assert other.difference.notna().all()
    assert "nan" not in to_markdown(frame)
    assert "nan" not in "".join(shown(frame, 100, title="t"))


def test_a_board_written_before_is_still_shown(frame):
    old = frame.drop(columns=["macro_f1_low", "macro_f1_high", "ece_floor", "ece_debiased", "images", "groups"])
    lines = shown(old, 100, title="old")
    assert lines[0].strip() == "old"
    assert "without its bias" not in "".join(lines)
    row = old[old.winner].iloc[0]
    assert f"{100 * row.ece:.1f}" in next(line for line in lines if line.lstrip().startswith("★"))
    assert "**winner**" in to_markdown(old)


def test_the_terminal_shows_the_debiased_calibration_error_and_names_the_floor(frame):
    lines = shown(frame, 100, title="t")
    row = frame[frame.winner].iloc[0]
    assert f"{100 * row.ece_debiased:.1f}" in next(line for line in lines if line.lstrip().startswith("★"))
    assert f"a perfect model would show about {100 * frame.ece_floor.median():.1f} % here" in "".join(lines)
