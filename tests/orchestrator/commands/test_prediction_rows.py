"""How answers are written: a table, one JSON array, a CSV file that survives any interruption."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.commands.prediction_rows import (
    COLUMNS,
    HEADER,
    WITH_PRECISION,
    Prediction,
    PredictionFile,
    json_parts,
    print_predictions,
)
from orchestrator.errors import OrchError, SpecError

MODEL = "models:/garbage/3"
ROWS = [
    Prediction('a "quoted", name.png', "cat", 0.5, {"cat": 0.5, "dög": 0.5}),
    Prediction("two\nlines\r.png", "dög", 0.1 + 0.2, {"cat": 0.7, "dög": 0.3}),
    Prediction("broken.png", error="cannot be read: the file is empty."),
    Prediction("gr\udcfcn.png", "cat", 1.0, {"cat": 1.0, "dög": 0.0}),
]


def written(file: Path, rows: list[Prediction], resume: bool = False, model: str = MODEL) -> bytes:
    with PredictionFile(file, model, resume) as out:
        out.write([row for row in rows if not out.done[row.to_csv(model)[0]]])
    return file.read_bytes()


def test_other_programs_read_the_rows(tmp_path: Path) -> None:
    text = written(tmp_path / "a.csv", ROWS).decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert rows[1] == [ROWS[0].path, "cat", "0.5", '{"cat": 0.5, "dög": 0.5}', "", MODEL]
    assert float(rows[2][2]) == 0.1 + 0.2
    assert rows[3] == ["broken.png", "", "", "", "cannot be read: the file is empty.", MODEL]
    assert rows[4][0] == f"file://{Path.cwd()}/gr%FCn.png"
    frame = pd.read_csv(tmp_path / "a.csv")
    assert frame["label"].isna().tolist() == [False, False, True, False]
    assert frame["path"].tolist()[1] == "two\nlines\r.png"


def test_wherever_the_file_is_cut_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.csv", ROWS)
    file = tmp_path / "cut.csv"
    for at in range(len(whole) + 1):
        file.write_bytes(whole[:at])
        assert written(file, ROWS, resume=True) == whole, at
    assert len(whole) > 300


@given(st.lists(st.tuples(st.text(), st.text()), max_size=6), st.data())
def test_any_names_and_labels_come_back(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    pairs = [(path.replace("\0", ""), label.replace("\0", "")) for path, label in pairs]
    pairs = list({path: (path, label) for path, label in pairs}.values())
    rows = [Prediction(path, label, 0.5, {label: 0.5}) for path, label in pairs]
    with tempfile.TemporaryDirectory() as folder:
        whole = written(Path(folder) / "a.csv", rows)
        cut = data.draw(st.integers(0, len(whole)))
        (Path(folder) / "b.csv").write_bytes(whole[:cut])
        assert written(Path(folder) / "b.csv", rows, resume=True) == whole
    found = list(csv.reader(io.StringIO(whole.decode(), newline="")))[1:]
    assert [row[:2] for row in found] == [list(pair) for pair in pairs]


def test_an_older_file_is_kept_unless_it_is_resumed(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    whole = written(file, ROWS[:1])
    with pytest.raises(SpecError, match=r"a\.csv exists; add --resume to keep its rows .* or name another file\."):
        PredictionFile(file, MODEL, resume=False)
    assert file.read_bytes() == whole
    with PredictionFile(file, MODEL, resume=True) as out:
        assert (dict(out.done), out.errors) == ({ROWS[0].path: 1}, 0)
        out.write(ROWS[2:3])
        assert out.errors == 1
    with PredictionFile(file, MODEL, resume=True) as out:
        assert (out.done.total(), out.errors) == (2, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"a note",
        b"path,label\na.jpg,cat\n",
        b"\xff\xfe\x00",
        HEADER[:-1] + b",more\n",
        b'"' + b"x" * 2**21,
        bytes(100),
    ],
)
def test_what_is_no_table_of_answers_is_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(content)
    with pytest.raises(SpecError, match=r"a\.csv is not a table of `orch predict`, and is left as it is"):
        PredictionFile(file, MODEL, resume=True)
    assert file.read_bytes() == content


GOOD = b"a.png,cat,0.5,{},,models:/garbage/3\n"


@pytest.mark.parametrize(
    ("rows", "line", "why"),
    [
        (b"a.png,cat\n", 2, "it has 2 fields, not 6"),
        (GOOD + b"a.png,\xff,0.5,{},,models:/garbage/3\n" + GOOD, 3, "it is empty, or not of a CSV file in UTF-8"),
        (b'"a\nb.png",cat,0.5,{},,models:/garbage/3\n' + GOOD + b"\n", 5, "it is empty, or not of a CSV file in UTF-8"),
        (GOOD + b"b.png,cat,high,{},,models:/garbage/3\n", 3, "its probability is 'high', not a number from 0 to 1"),
        (GOOD + b'b.png,"cat,0.5,{},,models:/garbage/3\n' + GOOD, 3, "it opens a quote that is never closed"),
        (
            GOOD + b'b.png,"cat,0.5,{},,\n' + GOOD * 40_000,
            3,
            "it is longer than 1,048,576 bytes; a quote may be missing",
        ),
    ],
)
def test_a_bad_row_is_named_with_its_line(rows: bytes, line: int, why: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(HEADER + rows)
    with pytest.raises(SpecError) as caught:
        PredictionFile(file, MODEL, resume=True)
    assert str(caught.value) == (
        f"line {line} of {file} is not a row of `orch predict`: {why}. The file is left as it is; correct or delete "
        "that line and type the same again, or name another file."
    )
    assert file.read_bytes() == HEADER + rows


def test_answers_of_two_models_do_not_share_a_file(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.csv", ROWS)
    with pytest.raises(
        SpecError, match=r"holds answers of models:/garbage/3 \(line 2\), and the champion is models:/garbage/4 now"
    ):
        PredictionFile(tmp_path / "a.csv", "models:/garbage/4", resume=True)
    assert (tmp_path / "a.csv").read_bytes() == whole


def test_two_processes_do_not_write_to_one_file(tmp_path: Path) -> None:
    with open(tmp_path / "a.csv", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OrchError, match="another process is writing to"):
            PredictionFile(tmp_path / "a.csv", MODEL, resume=True)


def test_a_run_that_failed_before_its_first_row_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with PredictionFile(tmp_path / "new" / "a.csv", MODEL, resume=False):
            raise OrchError("MLflow is away.")

    for _ in range(2):
        with pytest.raises(OrchError, match="MLflow is away"):
            fail()
    assert not (tmp_path / "new" / "a.csv").exists()


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PredictionFile(tmp_path / "a.csv", MODEL, resume=False) as out:

        class Full:
            def write(self, content: bytes) -> None:
                raise OSError(28, "No space left on device")

            def fileno(self) -> int:
                return stream.fileno()

        stream = out._stream
        monkeypatch.setattr(out, "_stream", Full())
        with pytest.raises(OrchError, match=r"cannot be written to: No space left on device\. .* with --resume"):
            out.write(ROWS)
        monkeypatch.undo()


@given(st.lists(st.lists(st.sampled_from(ROWS), max_size=3), max_size=3))
def test_the_parts_are_the_array_that_json_writes(batches: list[list[Prediction]]) -> None:
    text = b"".join(json_parts(iter(batches))).decode()
    rows = [row.to_dict() for batch in batches for row in batch]
    assert text == json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def test_a_line_separator_in_a_name_stays_as_it_is() -> None:
    odd = "a\u2028b\x85c\vd.png"
    (row,) = json.loads(b"".join(json_parts(iter([[Prediction(odd, error="x")]]))))
    assert row["path"] == odd


def test_the_table_has_one_line_a_photo() -> None:
    text = io.StringIO()
    found = [
        Prediction("a [1].png", "cat", 0.5, {"cat": 0.5}),
        Prediction("b.png", error="broken"),
    ]
    print_predictions(found, Console(file=text, width=80), 30)
    lines = text.getvalue().splitlines()
    assert [line.split() for line in lines] == [["a", "[1].png", "0.500", "cat"], ["b.png", "broken"]]
    assert lines[0].index("0.500") > 30


def test_names_cannot_steer_the_terminal() -> None:
    text = io.StringIO()
    print_predictions([Prediction("a\x1b]0;x\x07\n.png", "c\x1b[31m", 0.5, {})], Console(file=text, width=80))
    assert "\x1b" not in text.getvalue()
    assert text.getvalue().split() == [r"a\x1b]0;x\x07\n.png", "0.500", r"c\x1b[31m"]


def test_a_row_of_thousands_of_classes_is_resumed(tmp_path: Path) -> None:
    many = {f"class number {i:05d} with a name": 1 / 6000 for i in range(6000)}
    rows = [Prediction(f"{i}.png", "class number 00000 with a name", 1 / 6000, many) for i in range(2)]
    whole = written(tmp_path / "f.csv", rows)
    assert len(whole) > 2 * 131_072
    assert written(tmp_path / "f.csv", rows, resume=True) == whole


# --- a wanted precision -------------------------------------------------------------------------------------------

UNSURE = Prediction("odd.png", None, 0.4, {"cat": 0.4, "dög": 0.3}, reason="none of these: the likeliest is cat, 0.4.")


def written_for(file: Path, rows: list[Prediction], precision: float, resume: bool = False) -> bytes:
    with PredictionFile(file, MODEL, resume, precision) as out:
        out.write([row for row in rows if not out.done[row.to_csv(MODEL)[0]]])
    return file.read_bytes()


def test_none_of_these_is_an_empty_label_with_the_reason(tmp_path: Path) -> None:
    text = written_for(tmp_path / "a.csv", [UNSURE, *ROWS], 0.95).decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert tuple(rows[0]) == WITH_PRECISION
    assert rows[1] == ["odd.png", "", "0.4", '{"cat": 0.4, "dög": 0.3}', "", UNSURE.reason, "0.95", MODEL]
    assert [row[5:] for row in rows[2:]] == [["", "0.95", MODEL]] * len(ROWS)
    assert UNSURE.to_dict() == {
        "path": "odd.png",
        "label": None,
        "probability": 0.4,
        "probabilities": {"cat": 0.4, "dög": 0.3},
        "reason": UNSURE.reason,
    }
    out = io.StringIO()
    print_predictions([UNSURE], Console(file=out, width=80))
    assert out.getvalue().split("  ")[-1].strip() == "none of these"


def test_wherever_it_is_cut_it_ends_as_if_it_had_not_been_for_a_precision_too(tmp_path: Path) -> None:
    whole = written_for(tmp_path / "whole.csv", [UNSURE, *ROWS], 0.95)
    file = tmp_path / "cut.csv"
    for at in range(len(whole) + 1):
        file.write_bytes(whole[:at])
        assert written_for(file, [UNSURE, *ROWS], 0.95, resume=True) == whole, at


@pytest.mark.parametrize(
    ("before", "now", "sentence"),
    [
        (0.0, 0.9, "holds answers without --precision; give the same as before, or name another file"),
        (0.9, 0.0, "holds answers with --precision; give the same"),
        (0.9, 0.95, r"holds answers with 0\.9, not 0\.95, as --precision \(line 2\); give the same"),
    ],
)
def test_rows_of_another_precision_are_not_mixed(before: float, now: float, sentence: str, tmp_path: Path) -> None:
    kept = written_for(tmp_path / "a.csv", [UNSURE], before)
    with pytest.raises(SpecError, match=sentence):
        PredictionFile(tmp_path / "a.csv", MODEL, True, now)
    assert (tmp_path / "a.csv").read_bytes() == kept


def test_a_path_that_is_too_long_is_on_a_line_of_its_own() -> None:
    long = f"{'folder of photos/' * 6}photo.jpg"
    out = io.StringIO()
    print_predictions(
        [Prediction(long, "cat", 0.5, {}), Prediction("b.jpg", error="broken")], Console(file=out, width=80)
    )
    assert out.getvalue() == f"{long}\n    0.500  cat\nb.jpg\n    broken\n"
