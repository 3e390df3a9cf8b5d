"""The model registry: versions, their evidence, the champion."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchError, TrackingError
from orchestrator.paths import SweepPaths, command_line
from orchestrator.tracking.mlflow_store import connect, reaching, store_uri, without_password
from orchestrator.tracking.model_package import ModelDetails, load_model, pack_model, try_model

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.pyfunc import PyFuncModel

CHAMPION = "champion"
EVIDENCE = SweepPaths(Path()).evidence.name
"""Name of the file in a model's folder that lists the images it was trained, chosen and tested on, with its answers.
Columns ``sha256``, ``role`` (train, validation, test), ``label``, ``predicted``, ``correct``."""


@dataclass(frozen=True)
class ChampionInfo:
    """The version under the alias ``champion``. ``source``: URI of its files."""

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str]
    source: str
    description: str = ""


def check_model_name(name: str) -> str:
    """Return ``name`` if MLflow accepts it. Raises TrackingError."""
    if not re.fullmatch(r"[^\W_][\w .-]{0,199}", name) or name != name.strip():
        raise TrackingError(
            f"{name!r} cannot name a registered model: use at most 200 letters, digits, spaces, '_', '-' and '.', "
            "with a letter or digit first. Set tracking.model in the file."
        )
    return name


def champion(uri: str | None, model_name: str) -> ChampionInfo | None:
    """Return the champion of ``model_name``; None if there is none yet. Raises TrackingError."""
    uri, name = store_uri(uri), check_model_name(model_name)
    client = connect(uri)
    with reaching(uri):
        version = _champion_version(client, name)
        found = client.get_model_version(name, version) if version else None
    return _info(found) if found else None


def _champion_version(client: MlflowClient, name: str) -> str | None:
    """Return the alias's version; None if there is no such model or alias."""
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    version = model.aliases.get(CHAMPION)
    return str(version) if version else None


def _info(found: ModelVersion) -> ChampionInfo:
    return ChampionInfo(
        found.name, str(found.version), found.run_id or "", dict(found.tags), found.source, found.description or ""
    )


def register(uri: str | None, model_name: str, model_folder: Path, details: ModelDetails) -> str:
    """Register ``model_folder`` as a new version of ``model_name`` and return its number; the champion stays.

    The folder is packed with the code that loads it, then loaded once and tried on the example: a model that does not
    predict one of its classes is not registered. Raises TrackingError.
    """
    uri, name = store_uri(uri), check_model_name(model_name)
    if not model_folder.is_dir():
        raise TrackingError(f"there is no model in {model_folder}; a sweep writes it in its final stage.")
    client = connect(uri)
    with reaching(uri), tempfile.TemporaryDirectory(prefix="orch-model-") as folder:
        run = _run(client, details.run_id, uri, model_folder.parent)
        logged = client.create_logged_model(run.info.experiment_id, "winner", run.info.run_id, tags=details.tags())
        try:
            packed = Path(folder) / "model"
            pack_model(packed, model_folder, details, logged)
            try_model(packed, details)
            client.log_model_artifacts(logged.model_id, str(packed))
        except BaseException:
            client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        client.finalize_logged_model(logged.model_id, "READY")
        _link(client, run.info.run_id, logged.model_id)
        _ensure_model(client, name)
        version = client.create_model_version(
            name,
            logged.artifact_location,  # "models:/ID" would be looked up in the process's default store
            run.info.run_id,
            tags=details.tags(),
            description=details.description(),
            model_id=logged.model_id,
        )
    return str(version.version)


def _run(client: MlflowClient, run_id: str, uri: str, sweep: Path) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise TrackingError(
                f"MLflow at {without_password(uri)} has no run {run_id or 'of this sweep'}. Type the command in the "
                "folder where the sweep ran, which has its mlflow.db, or send the sweep here with "
                f"`{command_line('sync', sweep)}` and promote again."
            ) from error
        raise


def _link(client: MlflowClient, run_id: str, model_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Best image classifiers found by `orch sweep`.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def set_champion(uri: str | None, model_name: str, version: str, override: Sequence[str] = ()) -> None:
    """Move the alias to ``version``; record the codes of overridden refusals in a tag and the description.

    Raises TrackingError.
    """
    uri, name = store_uri(uri), check_model_name(model_name)
    client = connect(uri)
    with reaching(uri):
        before = _champion_version(client, name)
        if override:
            codes = ", ".join(override)
            client.set_model_version_tag(name, version, "orch.override", codes)
            description = client.get_model_version(name, version).description or ""
            note = f"Promoted although the gate refused: **{codes}**."
            if note not in description:
                client.update_model_version(name, version, f"{description}\n\n{note}".strip())
        if before and before != version:
            client.set_model_version_tag(name, version, "orch.replaces", before)
        client.set_registered_model_alias(name, CHAMPION, version)


def require_champion(uri: str | None, model_name: str) -> ChampionInfo:
    """Return the champion of ``model_name``. Raises OrchError if there is none yet, TrackingError."""
    uri = store_uri(uri)
    found = champion(uri, model_name)
    if found is None:
        raise OrchError(f"there is no champion of {model_name} yet; {_other_champions(uri)}")
    return found


def load_version(uri: str | None, version: ChampionInfo) -> PyFuncModel:
    """Download and load a version. Raises TrackingError if MLflow cannot be reached."""
    uri = store_uri(uri)
    with reaching(uri), tempfile.TemporaryDirectory(prefix="orch-champion-") as folder:
        return load_model(_download(uri, version.source, folder))


def load_champion(uri: str | None, model_name: str) -> PyFuncModel:
    """Load the champion. Raises OrchError if there is none, TrackingError if MLflow cannot be reached."""
    return load_version(uri, require_champion(uri, model_name))


def _other_champions(uri: str) -> str:
    """Say which models have a champion, or how to make one."""
    with reaching(uri):
        names = [model.name for model in connect(uri).search_registered_models() if CHAMPION in (model.aliases or {})]
    return (
        f"{', '.join(sorted(names))} {'has' if len(names) == 1 else 'have'} one (--model NAME)."
        if names
        else "make one with `orch promote best`."
    )


def read_evidence(uri: str | None, model_name: str, version: str) -> pd.DataFrame | None:
    """Download only the evidence of a version; None if the version has none. Raises TrackingError."""
    import pandas as pd
    from mlflow.models import Model

    uri, name = store_uri(uri), check_model_name(model_name)
    client = connect(uri)
    with reaching(uri), tempfile.TemporaryDirectory(prefix="orch-evidence-") as folder:
        source = client.get_model_version(name, version).source
        data = Model.load(_download(uri, f"{source}/MLmodel", folder)).flavors["python_function"]["data"]
        if EVIDENCE not in _names(uri, f"{source}/{data}"):
            return None
        return pd.read_parquet(_download(uri, f"{source}/{data}/{EVIDENCE}", folder))


def _download(uri: str, artifact: str, folder: str) -> Path:
    from mlflow import artifacts

    found = artifacts.download_artifacts(artifact_uri=artifact, dst_path=folder, tracking_uri=uri, registry_uri=uri)
    return Path(found)


def _names(uri: str, artifact: str) -> set[str]:
    from mlflow import artifacts

    listed = artifacts.list_artifacts(artifact_uri=artifact, tracking_uri=uri)
    return {Path(entry.path).name for entry in listed}
