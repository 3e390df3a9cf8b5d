"""Values as JSON that every parser takes."""

from __future__ import annotations

import math
from pathlib import Path

from orchestrator.plain_json import json_ready


def test_json_ready_leaves_no_value_that_json_has_no_word_for() -> None:
    import numpy as np

    from orchestrator.ledger.state import TrialState

    values = {
        "nan": math.nan,
        "infinite": (math.inf, 1.5),
        "numpy": np.float32(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "state": TrialState.COMPLETED,
        "path": Path("a/b"),
        1: {"x"},
    }
    assert json_ready(values) == {
        "nan": None,
        "infinite": [None, 1.5],
        "numpy": 0.5,
        "count": 3,
        "flag": True,
        "state": "COMPLETED",
        "path": "a/b",
        "1": ["x"],
    }
