"""Rows in a temporary file, so that memory does not grow with their number."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np

from trainers.errors import TrainerError


class _TemporaryFile:
    """A file without a name in ``folder``, else in the temporary folder; gone at the end of the context.

    What goes wrong while it is made, written or read is a TrainerError that names the folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder: Path | None = None
        if folder is not None:
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 closed by __exit__
                self._folder = folder
        if self._folder is None:
            with self._explained():
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 closed by __exit__

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):  # what is not yet written is not needed any more
            self._file.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            temporary = os.environ.get("TMPDIR", "/tmp")
            where = f"the temporary folder {temporary}" if self._folder is None else f"the cache folder {self._folder}"
            variable = "TMPDIR" if self._folder is None else "ORCH_CACHE"
            raise TrainerError(
                f"{where} cannot be written ({error.strerror or error}), and what copies are found by, about 12 KB a "
                f"photo, is kept there while photos are read; free some space there, or set {variable} to another "
                "folder."
            ) from error

    def _append(self, content: bytes) -> None:
        with self._explained():
            self._file.write(content)

    def _flush(self) -> None:
        with self._explained():
            self._file.flush()

    def _read(self, size: int, start: int) -> bytes:
        with self._explained():
            return os.pread(self._file.fileno(), size, start)


class Spool(_TemporaryFile):
    """Arrays of one ``shape`` and ``dtype`` in a temporary file, numbered from 0 in the order in which they came.

    A context manager that deletes the file at its end. ``folder``: where the file is, if it can be written to; else in
    the temporary folder. Raises TrainerError if neither can.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype | type,
        rows: Iterable[np.ndarray] = (),
        folder: Path | None = None,
    ) -> None:
        super().__init__(folder)
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._row_bytes = int(np.prod(shape)) * self._dtype.itemsize
        self._count = 0
        for row in rows:
            self.add(row)

    def __enter__(self) -> Spool:
        return self

    def __len__(self) -> int:
        return self._count

    def add(self, row: np.ndarray) -> None:
        """Append one row. Raises ValueError for another shape."""
        if row.shape != self._shape:
            raise ValueError(f"a row has shape {row.shape}; it must have {self._shape}")
        self._append(np.ascontiguousarray(row, self._dtype).tobytes())
        self._count += 1

    def take(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """A copy of the rows at ``positions``, (len(positions), *shape); consecutive ones are read at once."""
        self._flush()
        wanted, size = np.asarray(positions, np.int64), self._row_bytes
        starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1).tolist()
        runs = pairwise([*starts, len(wanted)])
        rows = b"".join(self._read((stop - start) * size, int(wanted[start]) * size) for start, stop in runs)
        return np.frombuffer(rows, self._dtype).reshape(-1, *self._shape)


class Records(_TemporaryFile):
    """Bytes of any length in a temporary file, as ``Spool`` keeps arrays; 8 bytes of memory a record."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self._ends = array("q", [0])

    def __enter__(self) -> Records:
        return self

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, content: bytes) -> None:
        """Append a record."""
        self._append(content)
        self._ends.append(self._ends[-1] + len(content))

    def take(self, position: int) -> bytes:
        """The record at ``position``."""
        self._flush()
        return self._read(self._ends[position + 1] - self._ends[position], self._ends[position])
