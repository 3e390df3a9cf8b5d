"""`orch data check`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli import app


def test_data_check_prints_the_report_and_a_problem_is_exit_code_3(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for label, count in (("cat", 6), ("dog", 1)):
        (here / "photos" / label).mkdir(parents=True)
        for i in range(count):
            pixels = noise.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(here / "photos" / label / f"{i}.png")
    assert app.run(["data", "check", "photos"]) == 3
    assert "photos: 7 images in 2 classes" in capsys.readouterr().out
    assert app.run(["data", "check", "photos", "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["classes"] == {"cat": 6, "dog": 1}
    assert report["problems"]
    assert app.run(["data", "check", "nowhere"]) == 3
    assert "nowhere" in capsys.readouterr().err
