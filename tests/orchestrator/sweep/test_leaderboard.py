"""Which models share the work of their frozen parts on the test split."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.sweep.leaderboard import _prefix_of
from trainers.config import TrialConfig


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({"head": "normface", "dropout": 0.5, "learning_rate": 0.1, "mixup": 0.0}, True),
        ({"output_stride": 16}, False),
        ({"feature_fusion": "sum"}, False),
        ({"mixup": 0.2}, False),
        ({"cutmix": 1.0}, False),
        ({"view": "centre_crop"}, False),
        ({"unfrozen_layers": 5}, False),
    ],
)
def test_what_models_share_when_they_predict(changes: dict[str, Any], shares: bool) -> None:
    assert (_prefix_of(TrialConfig()) == _prefix_of(TrialConfig(**changes))) == shares


def test_mixup_and_cutmix_share_with_each_other() -> None:
    assert _prefix_of(TrialConfig(mixup=0.2)) == _prefix_of(TrialConfig(mixup=0.4, cutmix=1.0))
