"""The `tracking` section."""

from __future__ import annotations

from tests.support.sweep_files import Load, sweep


def test_tags_may_be_numbers(load: Load) -> None:
    tags = load(sweep(rest="tracking: {tags: {team: a, year: 2024, share: 0.5, good: true}}\n")).tracking.tags
    assert tags == {"team": "a", "year": "2024", "share": "0.5", "good": "true"}
