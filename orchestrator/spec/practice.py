"""The values that new sweeps take for fields which their file leaves out, where ``TrialConfig`` keeps an older meaning.

They are written into the sweep's ``spec.yaml``, so that a sweep begun before there was such a field goes on without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.spec.space.domains import Value
from orchestrator.spec.space.section import Search, plain_search

PRACTICE: dict[str, Value] = {"batch_norm": "adapted", "draws": "fresh", "decode": "needed"}
"""Field -> value. docs/results.md has what ``batch_norm`` was chosen by; decisions 19 and 20 say why the others."""


def with_practice(data: Mapping[str, Any], begun: Search | None = None) -> dict[str, Any]:
    """Return the file's ``data`` with each field of ``PRACTICE`` that its search leaves out.

    ``begun``: search of a resumed sweep, whose own fields take their place.
    """
    search = data.get("search")
    if not isinstance(search, Mapping) or not search:
        return dict(data)
    known = PRACTICE if begun is None else plain_search(begun)
    added = {name: known[name] for name in PRACTICE if name in known and name not in search}
    return {**data, "search": {**search, **added}}
