"""Rows of one size in a temporary file, so that memory does not grow with their number."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from types import TracebackType

import numpy as np

from trainers.errors import TrainerError


class Spool:
    """Arrays of one ``shape`` and ``dtype`` in a temporary file, numbered from 0 in the order in which they came.

    A context manager that deletes the file at its end. Raises TrainerError if the file cannot be written.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype | type, rows: Iterable[np.ndarray] = ()) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 closed by __exit__
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._row_bytes = int(np.prod(shape)) * self._dtype.itemsize
        self._count = 0
        for row in rows:
            self.add(row)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def add(self, row: np.ndarray) -> None:
        """Append one row. Raises ValueError for another shape."""
        if row.shape != self._shape:
            raise ValueError(f"a row has shape {row.shape}; it must have {self._shape}")
        try:
            self._file.write(np.ascontiguousarray(row, self._dtype).tobytes())
        except OSError as error:
            raise TrainerError(
                f"the temporary folder {tempfile.gettempdir()} cannot be written ({error.strerror or error}); free "
                "some space there, or set TMPDIR to another folder."
            ) from error
        self._count += 1

    def take(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """A copy of the rows at ``positions``, (len(positions), *shape)."""
        self._file.flush()
        size, number = self._row_bytes, self._file.fileno()
        rows = b"".join(os.pread(number, size, int(position) * size) for position in positions)
        return np.frombuffer(rows, self._dtype).reshape(-1, *self._shape)

    def range(self, start: int, stop: int) -> np.ndarray:
        """A copy of the rows ``start`` to ``stop - 1``, read at once."""
        self._file.flush()
        rows = os.pread(self._file.fileno(), (stop - start) * self._row_bytes, start * self._row_bytes)
        return np.frombuffer(rows, self._dtype).reshape(-1, *self._shape)
