"""Read what earlier versions wrote into a ledger. The only module that knows forms other than today's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.ledger.stages import Stage

BUILD = "build"
"""Name of ``Stage.PREFILL`` in ledgers and plans up to commit 42b062d of 0.1.0."""


def upgrade(row: dict[str, Any]) -> dict[str, Any]:
    """Return ``row``, an event as a segment holds it, in today's form."""
    if "train_images_per_s" not in row and "images_per_s" in row:  # before 1ddebf4 the one speed was that of training
        row = {**row, "train_images_per_s": row["images_per_s"], "images_per_s": None}
    if row["stage"] == BUILD:
        return {**row, "stage": Stage.PREFILL.value}
    if row["stage"] == Stage.PLAN and f'"{BUILD}"' in row["payload"]:
        return {**row, "payload": json.dumps(_upgrade_plan(json.loads(row["payload"])), sort_keys=True)}
    is_leaderboard = row["stage"] == Stage.LEADERBOARD and '"winner_row"' in row["payload"]
    if is_leaderboard and '"fits"' not in row["payload"]:
        return {**row, "payload": json.dumps(_upgrade_leaderboard(json.loads(row["payload"])), sort_keys=True)}
    return row


def is_older(ledger: Path) -> bool:
    """Whether the segments in ``ledger`` hold a form that ``upgrade`` changes. Reads the stages and payloads alone."""
    import pyarrow.parquet as pq

    tables = (pq.read_table(file, columns=["stage", "payload"]) for file in sorted(ledger.glob("*.parquet")))
    return any(upgrade(row) is not row for table in tables for row in table.to_pylist())


def _upgrade_leaderboard(payload: dict[str, Any]) -> dict[str, Any]:
    """Add the ids of the winner's networks, which 42b062d recorded only by their names on the leaderboard."""
    if "models" not in payload:
        return payload
    group, _, member = payload["winner_row"]["model"].partition("/")
    members = [model for model in payload["models"] if model["model"].partition("/")[0] == group]
    fits = [model["fit"] for model in members if member in ("ensemble", model["model"].partition("/")[2])]
    return {**payload, "fits": fits}


def _upgrade_plan(payload: dict[str, Any]) -> dict[str, Any]:
    """Rename the stage in a plan's tables of stages, and in its comparison with what happened."""
    found = dict(payload)
    if "plan" in found:
        tables = {name: _rename_key(found["plan"][name]) for name in ("stages", "unshared")}
        found["plan"] = {**found["plan"], **tables}
    if "compared" in found:
        found["compared"] = [
            {**line, "stage": Stage.PREFILL.value} if line["stage"] == BUILD else line for line in found["compared"]
        ]
    return found


def _rename_key(table: dict[str, Any]) -> dict[str, Any]:
    """Rename the key in ``table`` and keep its place."""
    return {Stage.PREFILL.value if key == BUILD else key: value for key, value in table.items()}
