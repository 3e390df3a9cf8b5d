"""Answers of `orch predict` as they come: a table in the terminal, a JSON array, a CSV file that can be resumed."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestrator.commands.named_photos import shown
from orchestrator.errors import OrchError, SpecError
from orchestrator.plain_json import json_ready
from orchestrator.terminal_table import printable
from trainers.calibration import NONE_OF_THESE
from trainers.wording import count

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

COLUMNS = ("path", "label", "probability", "probabilities", "error", "model")
"""Columns of the CSV file. ``probabilities``: JSON, class -> probability. ``model``: MLflow's address of a version."""
HEADER = (",".join(COLUMNS) + "\n").encode()
WITH_PRECISION = (*COLUMNS[:-1], "reason", "precision", COLUMNS[-1])
"""Columns of the CSV file where a precision is wanted. ``reason``: why there is no label. ``precision``: the wanted."""
HEADER_WITH_PRECISION = (",".join(WITH_PRECISION) + "\n").encode()
LONGEST_ROW = 2**20
"""Maximum bytes of a row of a CSV file that is resumed."""


@dataclass(frozen=True)
class Prediction:
    """The champion's answer for one file. ``error``: "", or why there is no answer; the other fields are then None.

    ``reason``: "", or why it is none of the classes; the label is then None, and the probability the highest.
    """

    path: str
    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    error: str = ""
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; ``error`` and ``reason`` only if there is one."""
        if self.error:
            return {"path": shown(self.path), "error": _utf8(self.error)}
        return {
            "path": shown(self.path),
            "label": self.label,
            "probability": self.probability,
            "probabilities": self.probabilities,
            **({"reason": self.reason} if self.reason else {}),
        }

    def to_csv(self, model: str, precision: float = 0.0) -> list[str]:
        """Return the fields of ``COLUMNS``, or of ``WITH_PRECISION``; those without a value are empty."""
        end = [self.reason, repr(precision), model] if precision else [model]
        if self.error:
            return [shown(self.path), "", "", "", _utf8(self.error), *end]
        probabilities = json.dumps(json_ready(self.probabilities), ensure_ascii=False)
        return [shown(self.path), self.label or "", repr(self.probability), probabilities, "", *end]


def json_parts(batches: Iterator[list[Prediction]]) -> Iterator[bytes]:
    """Yield the text of one JSON array of all answers, UTF-8, indented by 2, a part per batch."""
    separator = "[\n  "
    for batch in batches:
        for one in batch:
            text = json.dumps(json_ready(one.to_dict()), indent=2, ensure_ascii=False)
            yield (separator + text.replace("\n", "\n  ")).encode()
            separator = ",\n  "
    yield b"[]\n" if separator.startswith("[") else b"\n]\n"


def print_predictions(found: Sequence[Prediction], console: Console, path_columns: int = 0) -> None:
    """Print a line for each photo; where one is too long for the terminal, each path on a line of its own.

    ``path_columns``: width of the paths.
    """
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    shown_paths = [printable(shown(one.path)) for one in found]
    answers = [_answer(one) for one in found]
    width = max([path_columns, *map(cell_len, shown_paths)])
    fits = width + 2 + max(answer.cell_len for answer in answers) <= console.width
    for path, answer in zip(shown_paths, answers, strict=True):
        before = f"{set_cell_size(path, width)}  " if fits else f"{path}\n    "
        console.print(Text.assemble(before, answer), soft_wrap=True)


def _answer(one: Prediction) -> Text:
    from rich.text import Text

    if one.error:
        return Text(printable(one.error), style="red")
    said = Text(NONE_OF_THESE, style="dim") if one.reason else Text(printable(one.label or ""))
    return Text.assemble(f"{one.probability:.3f}  ", said)


def _quoted(field: str) -> str:
    """Quote a CSV field where it needs it; Python 3.11's csv module leaves a carriage return unquoted."""
    return '"' + field.replace('"', '""') + '"' if any(c in field for c in ',"\r\n') else field


def _utf8(text: str) -> str:
    """Escape bytes of names that are not UTF-8, as ``\\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode()


class PredictionFile:
    """A CSV file that grows by a row per answer, so that an interruption loses at most the batch in work.

    ``done``: paths of the rows that were there, each as often as it was. ``errors``: rows with an error, those that
    were there included. A context manager; while it is open no other
    process can write to the file. A file that got no row is removed again.
    """

    def __init__(self, file: Path, model: str, resume: bool, precision: float = 0.0) -> None:
        """``model``: the address that goes into each row. ``resume``: keep the rows that are there. ``precision``: the
        wanted one, 0 for none.

        Raises SpecError if the file exists without ``resume``, or holds anything but rows of this model and precision,
        OrchError if it cannot be opened.
        """
        self.file, self.model, self.precision = file, model, precision
        self._columns: Sequence[str] = WITH_PRECISION if precision else COLUMNS
        self._header = HEADER_WITH_PRECISION if precision else HEADER
        self.done: Counter[str] = Counter()
        self.errors = 0
        self._stream = self._open(resume)
        try:
            self._take_over()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        is_empty = os.fstat(self._stream.fileno()).st_size == 0
        self._stream.close()
        if is_empty and kind is not None:
            self.file.unlink(missing_ok=True)

    def write(self, rows: Sequence[Prediction]) -> None:
        """Append ``rows``, so that other programs see them. Raises OrchError, as where the disk is full."""
        text = "".join(",".join(map(_quoted, one.to_csv(self.model, self.precision))) + "\n" for one in rows)
        self.errors += sum(bool(one.error) for one in rows)
        start = b"" if os.fstat(self._stream.fileno()).st_size else self._header
        try:
            self._stream.write(start + text.encode())
            self._stream.flush()
        except OSError as error:
            why = error.strerror or str(error)
            raise OrchError(
                f"{self.file} cannot be written to: {why}. Its rows are kept; type the same with --resume to continue."
            ) from error

    def _open(self, resume: bool) -> BinaryIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | (0 if resume else os.O_EXCL)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            stream = os.fdopen(os.open(self.file, flags, 0o666), "r+b")
        except FileExistsError as error:
            raise SpecError(
                f"{self.file} exists; add --resume to keep its rows and predict the photos that are left, or name "
                "another file."
            ) from error
        except OSError as error:
            raise OrchError(f"{self.file} cannot be written to: {error.strerror or error}.") from error
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                stream.close()
                raise OrchError(
                    f"another process is writing to {self.file}; wait for it, or name another file."
                ) from error
        return stream

    def _take_over(self) -> None:
        """Count the rows that are there, and cut off an unfinished one at the end."""
        end, lines = 0, 1
        for row in self._records():
            fields = _fields(row)
            if end == 0 and row != self._header:
                if row in (HEADER, HEADER_WITH_PRECISION):
                    raise self._of_another_precision("without" if row == HEADER else "with")
                raise self._foreign()
            if end:
                self._check_row(fields, lines)
                self.done[fields[0]] += 1
                self.errors += bool(fields[COLUMNS.index("error")])
            end += len(row)
            lines += row.count(b"\n")
        rest = self._rest(end)
        if end == 0 and not self._header.startswith(rest):
            raise self._foreign()
        if f",{self.model}\n".encode() in rest:  # whole rows, and not one that an interruption cut
            raise self._bad_row(lines, "it opens a quote that is never closed")
        self._stream.truncate(end)

    def _records(self) -> Iterator[bytes]:
        """Yield each finished row, with its newline; quoted fields may hold newlines."""
        row, quotes, lines = b"", 0, 1
        for line in iter(lambda: self._stream.readline(LONGEST_ROW), b""):
            row += line
            quotes += line.count(b'"')
            if len(row) >= LONGEST_ROW:
                if lines == 1:
                    raise self._foreign()
                raise self._bad_row(lines, f"it is longer than {LONGEST_ROW:,} bytes; a quote may be missing")
            if quotes % 2 == 0 and row.endswith(b"\n"):
                yield row
                lines += row.count(b"\n")
                row, quotes = b"", 0

    def _check_row(self, fields: Sequence[str], line: int) -> None:
        """Raise SpecError for a row that is none of this model and precision, with its line."""
        if len(fields) != len(self._columns):
            what = f"it has {count(len(fields), 'field')}, not {len(self._columns)}"
            raise self._bad_row(line, what if fields else "it is empty, or not of a CSV file in UTF-8")
        if fields[-1] != self.model:
            raise SpecError(
                f"{self.file} holds answers of {fields[-1]} (line {line:,}), and the champion is {self.model} now; "
                "name another file."
            )
        if self.precision and fields[-2] != repr(self.precision):
            raise self._of_another_precision(f"with {fields[-2]}, not {self.precision!r}, as", f" (line {line:,})")
        probability, error = fields[COLUMNS.index("probability")], fields[COLUMNS.index("error")]
        if not error and not _is_share(probability):
            raise self._bad_row(line, f"its probability is {probability!r}, not a number from 0 to 1")

    def _bad_row(self, line: int, why: str) -> SpecError:
        return SpecError(
            f"line {line:,} of {self.file} is not a row of `orch predict`: {why}. The file is left as it is; correct "
            "or delete that line and type the same again, or name another file."
        )

    def _rest(self, start: int) -> bytes:
        self._stream.seek(start)
        return self._stream.read()

    def _of_another_precision(self, how: str, where: str = "") -> SpecError:
        return SpecError(
            f"{self.file} holds answers {how} --precision{where}; give the same as before, or name another file."
        )

    def _foreign(self) -> SpecError:
        return SpecError(f"{self.file} is not a table of `orch predict`, and is left as it is; name another file.")


def _fields(row: bytes) -> list[str]:
    """Return the fields of a finished row; [] if it is none of a CSV file."""
    csv.field_size_limit(LONGEST_ROW)  # probabilities of thousands of classes
    try:
        return next(csv.reader([row.decode()], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return []


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False
