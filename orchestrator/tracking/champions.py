"""Champions of a registered model: making one, those before it, the way back.

The tag ``CHAMPIONSHIPS`` of a version has a record for each time that it became the champion: ``since`` (UTC),
``replaces``, ``by`` (``promote`` or ``rollback``) and ``override``. ``REPLACES`` is the version that it replaced when
it was promoted, to which a rollback returns.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import filelock

from orchestrator.errors import OrchError, TrackingError
from orchestrator.tracking.mlflow_store import connect, reaching, store_uri
from orchestrator.tracking.registry import (
    CHAMPION,
    CHAMPIONSHIPS,
    ChampionInfo,
    champion,
    champion_version,
    check_model_name,
    missing_database,
    no_champion,
    version_info,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

REPLACES = "orch.replaces"
PROMOTE, ROLLBACK = "promote", "rollback"
MOST = 30
"""Maximum records in the tag, which MLflow limits to 5,000 characters; the oldest are dropped."""
OTHER_PROMOTION_S = 600.0
"""Maximum seconds to wait for another promotion of the same model on this machine."""


@contextlib.contextmanager
def one_promotion(uri: str | None, model_name: str) -> Iterator[None]:
    """Hold off other promotions and rollbacks of ``model_name`` on this machine. Raises TrackingError.

    Those of other machines are noticed by ``set_champion``.
    """
    key = hashlib.sha256(f"{store_uri(uri)} {model_name}".encode()).hexdigest()[:16]
    lock = filelock.FileLock(Path(tempfile.gettempdir()) / f"orch-promotion-{os.getuid()}-{key}.lock")
    try:
        lock.acquire(timeout=OTHER_PROMOTION_S)
    except filelock.Timeout as error:
        raise TrackingError(
            f"another process has been promoting {model_name} for {OTHER_PROMOTION_S:g} s; wait until it ends, or "
            "stop it."
        ) from error
    try:
        yield
    finally:
        lock.release()


def set_champion(
    uri: str | None,
    model_name: str,
    version: str,
    override: Sequence[str] = (),
    *,
    instead_of: str | None,
    facts: Mapping[str, str] = MappingProxyType({}),
) -> bool:
    """Move the alias to ``version`` if it still is at ``instead_of`` (None: nowhere); return whether it was.

    Records the codes of overridden refusals in a tag and the description, the championship in a tag, and ``facts`` as
    tags. Raises TrackingError.
    """
    uri, name = store_uri(uri), check_model_name(model_name)
    client = connect(uri)
    with reaching(uri):
        before = champion_version(client, name)
        if before != instead_of and before != version:
            return False
        if override:
            codes = ", ".join(override)
            client.set_model_version_tag(name, version, "orch.override", codes)
            description = client.get_model_version(name, version).description or ""
            note = f"Promoted although the gate refused: **{codes}**."
            if note not in description:
                client.update_model_version(name, version, f"{description}\n\n{note}".strip())
        for key, value in facts.items():
            client.set_model_version_tag(name, version, key, value)
        if before and before != version:
            client.set_model_version_tag(name, version, REPLACES, before)
        _record_championship(client, name, version, before, PROMOTE, override)
        client.set_registered_model_alias(name, CHAMPION, version)
    return True


def _record_championship(
    client: MlflowClient, name: str, version: str, before: str | None, by: str, override: Sequence[str] = ()
) -> None:
    """Add a record to the tag of ``version``. Written before the alias is moved: a killed promotion shows."""
    found = version_info(client.get_model_version(name, version))
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = {"since": since, "replaces": before or "", "by": by, "override": list(override)}
    client.set_model_version_tag(name, version, CHAMPIONSHIPS, json.dumps([*found.championships, record][-MOST:]))


def roll_back(uri: str | None, model_name: str) -> tuple[str, str]:
    """Move the alias to the version that the champion replaced; return the versions left and returned to.

    Raises OrchError if there is no champion, or none before it; TrackingError.
    """
    uri, name = store_uri(uri), check_model_name(model_name)
    found = champion(uri, name)
    if found is None:
        raise no_champion(uri, name)
    before = found.tags.get(REPLACES)
    known = {info.version for info in versions(uri, name)}
    if not before or before not in known:
        why = f"version {before}, which it replaced, was deleted" if before else "it replaced none"
        raise OrchError(f"there is no champion of {name} before version {found.version}: {why}. Nothing was changed.")
    client = connect(uri)
    with reaching(uri):
        _record_championship(client, name, before, found.version, ROLLBACK)
        client.set_registered_model_alias(name, CHAMPION, before)
    return found.version, before


def versions(uri: str | None, model_name: str) -> list[ChampionInfo]:
    """Return every version of ``model_name``, the oldest first; [] if there is none. Raises TrackingError."""
    uri, name = store_uri(uri), check_model_name(model_name)
    if missing_database(uri):
        return []
    client = connect(uri)
    with reaching(uri):
        found = [version_info(each) for each in _all_versions(client, name)]
    return sorted(found, key=lambda info: int(info.version))


def _all_versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    page = client.search_model_versions(f"name = '{name}'")
    yield from page
    while page.token:
        page = client.search_model_versions(f"name = '{name}'", page_token=page.token)
        yield from page
