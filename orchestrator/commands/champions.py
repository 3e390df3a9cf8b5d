"""`orch champions` and `orch promote --rollback`: the versions of a model that were in use, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator.commands.predict import model_of
from orchestrator.terminal_table import Column, FittedTable
from orchestrator.tracking import champions, registry
from orchestrator.tracking.champions import REPLACES, one_promotion

MINUTES = len("2026-11-30T09:12")
"""Characters of a time that are shown."""


@dataclass(frozen=True)
class Championship:
    """One time that a version became the champion, with its evidence.

    ``since``: UTC, "" for a version from before this was recorded. ``by``: promote or rollback. ``overridden``: codes
    of refusals. ``is_champion``: whether the version is in use now, in the row of the last time it became so.
    ``test_photos``: None if unknown.
    """

    version: str
    since: str
    by: str
    replaces: str
    overridden: tuple[str, ...]
    sweep: str
    form: str
    policy: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    test_photos: int | None
    is_champion: bool


def list_champions(model: str | None) -> tuple[str, list[Championship]]:
    """Return the registered model's name and every time that a version of it became the champion, the newest first.

    ``model``: None for the newest sweep's. Raises OrchError if no version ever was, TrackingError.
    """
    uri, name = model_of(model, "orch champions NAME")
    current = registry.champion(uri, name)
    if current is None:
        raise registry.no_champion(uri, name)
    infos = {info.version: info for info in champions.versions(uri, name)}
    rows = [row for info in infos.values() for row in _championships(info, current, infos)]
    rows.sort(key=lambda row: (row.since, int(row.version)), reverse=True)
    latest = next(row for row in rows if row.version == current.version)
    return name, [replace(row, is_champion=row is latest) for row in rows]


def _championships(
    info: registry.ChampionInfo, current: registry.ChampionInfo, infos: Mapping[str, registry.ChampionInfo]
) -> list[Championship]:
    records: Sequence[Mapping[str, Any]] = info.championships
    was_replaced = any(other.tags.get(REPLACES) == info.version for other in infos.values())
    if not records and (info.version == current.version or was_replaced):  # promoted before it was recorded
        override = info.tags.get("orch.override", "")
        records = [{"override": override.split(", ") if override else [], "replaces": info.tags.get(REPLACES, "")}]
    tags = info.tags
    photos = tags.get("orch.test_photos", "")
    return [
        Championship(
            version=info.version,
            since=str(record.get("since", "")),
            by=str(record.get("by", champions.PROMOTE)),
            replaces=str(record["replaces"]),
            overridden=tuple(record["override"]),
            sweep=tags.get("orch.sweep_name", ""),
            form=tags.get("orch.form", ""),
            policy=tags.get("orch.policy", ""),
            accuracy=_number(tags.get("orch.test_accuracy")),
            accuracy_low=_number(tags.get("orch.test_accuracy_low")),
            accuracy_high=_number(tags.get("orch.test_accuracy_high")),
            test_photos=int(photos) if photos.isdigit() else None,
            is_champion=False,
        )
        for record in records
    ]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def roll_back(model: str | None) -> str:
    """Return to the champion before the present one; say so in a sentence. Raises OrchError, TrackingError."""
    uri, name = model_of(model, "orch promote --rollback --model NAME")
    with one_promotion(uri, name):
        left, returned = champions.roll_back(uri, name)
    return f"{name} version {returned} is the champion again, in place of version {left}. Both stay in the registry."


def records(rows: Sequence[Championship]) -> list[dict[str, Any]]:
    """Return the rows for JSON."""
    return [asdict(row) for row in rows]


def to_rich(name: str, rows: Sequence[Championship]) -> FittedTable:
    """Return the rows as a table, the champion in bold."""
    columns = (
        Column("", "left"),
        Column("version"),
        Column("since, UTC", "left"),
        Column("test accuracy, % (95 %)", "left"),
        Column("photos", leaves=1),
        Column("sweep", "left"),
        Column("form and crops", "left", leaves=2),
        Column("by", "left", leaves=4),
        Column("instead of", leaves=3),
        Column("overridden", "left"),
    )
    replaced = any(row.is_champion and row.replaces for row in rows)
    notes = ["★ in use now" + ("; `orch promote --rollback` returns to the one before it" if replaced else "")]
    table = FittedTable(f"champions of {name}", columns, names=3, notes=notes)
    for row in rows:
        low, high = 100 * row.accuracy_low, 100 * row.accuracy_high
        table.add_row(
            "★" if row.is_champion else "",
            row.version,
            row.since[:MINUTES].replace("T", " ") or "?",
            f"{100 * row.accuracy:.1f} ({low:.1f}\N{EN DASH}{high:.1f})",
            "?" if row.test_photos is None else f"{row.test_photos:,}",
            row.sweep,
            ", ".join(filter(None, (row.form, row.policy))),
            row.by,
            row.replaces or "none",
            ", ".join(row.overridden),
            style="bold green" if row.is_champion else "",
        )
    return table
