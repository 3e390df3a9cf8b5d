"""The input of a served model as encoded images: what is opened, and what is refused in which words."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.tiny_fits import picture
from trainers.errors import TrainerError
from trainers.serving import inputs

PIXELS = picture(2, 0)


@pytest.fixture
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "red.png"
    Image.fromarray(PIXELS).save(path)
    return path


def test_a_path_object_is_opened_as_no_request_can_hold_one(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCH_SERVE_PATHS", raising=False)
    assert inputs.photos([photo]) == [photo.read_bytes()]


def test_what_may_not_be_opened_and_what_is_not_there_are_refused_in_the_same_words(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(given: object) -> str:
        with pytest.raises(TrainerError) as caught:
            inputs.photos([given])
        return str(caught.value).replace(str(given), "FILE")

    monkeypatch.setattr(inputs, "SHOWN_CHARACTERS", 500)
    monkeypatch.setenv("ORCH_SERVE_PATHS", "1")
    whole = photo.read_bytes()
    for name in ("secret.txt", "photo", "forbidden.png", "large.jpg"):
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    with (tmp_path / "large.jpg").open("ab") as file:
        file.truncate(inputs.MAX_FILE_BYTES + 1)

    def forbid(path: Any, *arguments: Any, _open: Any = os.open, **options: Any) -> Any:
        if str(path).endswith("forbidden.png"):
            raise PermissionError(13, "Permission denied", path)
        return _open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", forbid)
    assert inputs.photos([tmp_path / "photo"]) == [whole]
    assert inputs.photos([str(photo)]) == [whole]
    only_as_text = ["secret.txt", "photo"]
    names = ["absent.png", "forbidden.png", "large.jpg", "folder.png", "pipe.png", "device.png"]
    answers = [refused(str(tmp_path / name)) for name in only_as_text + names] + [refused(tmp_path / n) for n in names]
    expected = (
        "image 1 of 1 is neither a file nor base64 text: 'FILE'. A file must have an image suffix, be readable and "
        "hold at most 100 MB."
    )
    assert answers == [expected] * 14
    assert "is neither a file nor base64 text" in refused(str(tmp_path / "nul\0.png"))
    monkeypatch.delenv("ORCH_SERVE_PATHS")
    closed = {refused(str(path)) for path in (tmp_path / "photo", photo, tmp_path / "absent.png")}
    assert len(closed) == 1


def test_every_kind_of_image_is_the_same_bytes_or_pixels(photo: Path) -> None:
    data = photo.read_bytes()
    text = base64.b64encode(data).decode()
    one: list[Any] = [data, memoryview(data), photo, text, f"data:image/png;base64,{text}", {"image": [data]}]
    assert [inputs.photos(each) for each in one] == [[data]] * 6
    table = pd.DataFrame({"id": [1, 2], "image": [data, text]})
    assert inputs.photos(table) == inputs.photos([data, text]) == [data, data]
    for pixels in (PIXELS, PIXELS.tolist(), PIXELS[None].astype(np.int64), [PIXELS]):
        (encoded,) = inputs.photos(pixels)
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(encoded))), PIXELS)
    assert inputs.photos([]) == []
