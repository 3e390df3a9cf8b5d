"""Convert the input of a served model to encoded images: bytes, base64 text, pixels or paths, in a table or alone.

Text can come from a client, so it is opened as a file only if ORCH_SERVE_PATHS=1: the code cannot tell a served model
from one loaded in a user's own Python. A ``pathlib.Path``, which no request can contain, is always opened.

Imports neither TensorFlow nor MLflow. Every rejection is a TrainerError that gives the position of the image.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from trainers.errors import TrainerError
from trainers.files.plain import Unreadable, read_plain
from trainers.files.suffixes import is_photo

COLUMN = "image"
PATHS_VARIABLE = "ORCH_SERVE_PATHS"
"""Name of the environment variable that, if "1", lets a model open files named in text."""
PIXELS = "pixels must be whole numbers from 0 to 255 of shape (height, width, 3), in RGB order"
SHOWN_CHARACTERS = 60
"""Maximum number of characters of an input that a message quotes."""
MAX_FILE_BYTES = 100 * 10**6
"""Maximum bytes of a file named by a caller, who may be untrusted."""


def photos(model_input: Any) -> list[bytes]:
    """Return the encoded images in ``model_input``, in order.

    From a ``DataFrame`` or mapping, takes the column ``image``, or the only column, with one image per row. Anything
    else is one image or several. An image is encoded bytes; a ``Path``; base64 text, bare or as a ``data:`` URL; a
    file name as text if ORCH_SERVE_PATHS=1; or an array (or nested lists) of integers from 0 to 255, (h, w, 3) for one
    image and (n, h, w, 3) for several. Pixels are encoded losslessly, so that a random crop policy gives the same crops
    as for that file.

    A path must be a regular file of at most MAX_FILE_BYTES; given as text, it must also have an image suffix. The error
    for a file that is not opened does not reveal whether it exists, since the caller may be untrusted.

    Raises TrainerError.
    """
    values = _rows(model_input)
    return [_encoded(value, f"image {place} of {len(values)}") for place, value in enumerate(values, start=1)]


def _rows(model_input: Any) -> list[Any]:
    if isinstance(model_input, pd.DataFrame):
        return model_input[_column([*model_input.columns])].tolist()
    if isinstance(model_input, Mapping):
        return _several(model_input[_column([*model_input])])
    return _several(model_input)


def _column(names: list[Any]) -> Any:
    if COLUMN in names:
        return COLUMN
    if len(names) != 1:
        raise TrainerError(f"the table needs a column {COLUMN}; it has {', '.join(map(str, names)) or 'none'}.")
    return names[0]


def _several(value: Any) -> list[Any]:
    """Return a list with one entry per image, from one image or several."""
    if isinstance(value, bytes | bytearray | memoryview | str | Path):
        return [value]
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        return [*value.ravel()]
    if not isinstance(value, np.ndarray | Iterable):
        return [value]
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return [value.item()]
    entries = value if isinstance(value, np.ndarray) else [*value]
    pixels = _numbers(entries)
    if pixels is not None and pixels.ndim > 0 and pixels.size > 0:
        return [*pixels] if pixels.ndim == 4 else [pixels]
    return [*entries]


def _numbers(value: Any) -> np.ndarray | None:
    """Return ``value`` as an array of numbers; None if it holds anything else, or nested lists of unequal lengths."""
    if isinstance(value, list) and any(not isinstance(entry, list | int | float) for entry in value):
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array if array.dtype.kind in "buif" else None


def _encoded(value: Any, name: str) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Path):
        data = _from_file(str(value))
        if data is None:
            raise _rejected(str(value), name)
        return data
    if isinstance(value, str):
        return _from_text(value, name)
    if isinstance(value, list | tuple | np.ndarray):
        return _from_pixels(value, name)
    raise TrainerError(f"{name} is {_quoted(value)}: give encoded bytes, base64 text, a Path or pixels.")


def _opens_named_files() -> bool:
    return os.environ.get(PATHS_VARIABLE) == "1"


def _from_file(path: str) -> bytes | None:
    """Return the content of the file; None if it cannot or may not be read."""
    try:
        return read_plain(path, MAX_FILE_BYTES)
    except Unreadable:
        return None


def _rejected(text: str, name: str, opens_files: bool = True) -> TrainerError:
    if opens_files:
        rule = f"A file must have an image suffix, be readable and hold at most {MAX_FILE_BYTES // 10**6} MB."
        return TrainerError(f"{name} is neither a file nor base64 text: {_quoted(text)}. {rule}")
    return TrainerError(
        f"{name} is not base64 text: {_quoted(text)}. Send the photo's bytes as base64 text; files that a request "
        f"names are opened only by a model started with {PATHS_VARIABLE}=1."
    )


def _from_text(text: str, name: str) -> bytes:
    opens_files = _opens_named_files()
    data = _from_file(text) if opens_files and is_photo(text[-SHOWN_CHARACTERS:]) else None
    if data is not None:
        return data
    address = re.match(r"data:[^,]*;base64,", text)
    if text.startswith("data:") and not address:
        raise TrainerError(f"{name} is a data: URL without base64: {_quoted(text)}.")
    packed = re.sub(r"\s", "", text[address.end() :] if address else text)
    try:
        return base64.b64decode(packed, validate=True)
    except ValueError as error:
        raise _rejected(text, name, opens_files) from error


def _from_pixels(value: Any, name: str) -> bytes:
    pixels = _numbers([*value] if isinstance(value, tuple) else value)
    if pixels is None:
        raise TrainerError(
            f"{name} is a list with entries other than numbers, or with rows of unequal lengths; {PIXELS}."
        )
    if pixels.dtype.kind in "bf":
        raise TrainerError(f"{name} holds {pixels.dtype} numbers; {PIXELS}, so do not scale them.")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise TrainerError(f"{name} has the shape {pixels.shape}; {PIXELS}.")
    if pixels.min() < 0 or pixels.max() > 255:
        raise TrainerError(f"{name} holds numbers from {pixels.min()} to {pixels.max()}; {PIXELS}.")
    packed = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, np.uint8)).save(packed, "PNG", compress_level=1)
    return packed.getvalue()


def _quoted(value: Any) -> str:
    text = repr(value[:SHOWN_CHARACTERS] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN_CHARACTERS + 2 else f"{text[:SHOWN_CHARACTERS]}..."
