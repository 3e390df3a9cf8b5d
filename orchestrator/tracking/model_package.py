"""Pack a model for the registry: metadata, code, pinned requirements, signature; load it back and try it."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import TrackingError
from orchestrator.machine.environment import package_versions
from orchestrator.machine.quiet_stderr import hushed
from trainers.dotted import find_top_level, own_folder

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import PyFuncModel

    from trainers.calibration import Calibration

INPUT = (
    "photos as encoded bytes, base64 text, `data:` URLs, or uint8 pixels (height, width, 3); in a column `image`, or "
    "as the whole input. File names are opened only if the server is started with ORCH_SERVE_PATHS=1. Over HTTP: "
    '`{"dataframe_split": {"columns": ["image"], "data": [["BASE64"]]}}` or `{"inputs": ["BASE64"]}`'
)
"""Description in Markdown of a registered model's input, which its MLflow signature omits, see ``signature``."""
PRECISION = "precision"
"""As ``trainers.calibration.PRECISION``, which the audit, that imports this module, must not import."""
OUTPUT = "`label`, `probability`, `probabilities` (JSON: class -> probability)"
"""Description in Markdown of a registered model's output, before what its calibration adds."""
WITH_LEVELS = (
    f"With the parameter `{PRECISION}`, such as 0.95 (over HTTP: "
    f'`"params": {{"{PRECISION}": 0.95}}` next to the input), the label is '
    "empty where the highest probability is below the threshold for that precision, and `reason` says so"
)
"""Description of the output of a model that has thresholds for a wanted precision."""
SERVED_WITH = (
    *("tensorflow", "keras", "numpy", "pandas", "pillow", "pillow-heif", "h5py", "pyarrow", "filelock", "cachetools"),
)
"""Distributions that a registered model requires, at their installed versions; pillow-heif only where it is."""


@dataclass(frozen=True)
class ModelDetails:
    """Metadata of a registered version.

    ``run_id``: the sweep's run in MLflow. ``form``: for example "one network" or "ensemble of K". ``data``: the
    manifest's fingerprint. ``example``: one encoded image. ``loader``: the module with ``_load_pyfunc``, which is
    copied into the model with its package. ``modules``: other imports of the model (a user's own backbone); a module of
    an installed distribution becomes a requirement, any other is copied with its package. ``fits``: ids of the networks
    that the model consists of, () if unknown. ``calibration``: of its probabilities, None if they have none.
    """

    run_id: str
    sweep: str
    trial: str
    policy: str
    form: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    data: str
    classes: tuple[str, ...]
    example: bytes
    commit: str = ""
    loader: str = "trainers.serving"
    modules: tuple[str, ...] = ()
    fits: tuple[str, ...] = ()
    calibration: Calibration | None = None
    extra_tags: Mapping[str, str] = field(default_factory=dict)

    def tags(self) -> dict[str, str]:
        tags = {
            "orch.sweep_name": self.sweep,
            "orch.trial": self.trial,
            "orch.policy": self.policy,
            "orch.form": self.form,
            "orch.test_accuracy": f"{self.accuracy:.4f}",
            "orch.test_accuracy_low": f"{self.accuracy_low:.4f}",
            "orch.test_accuracy_high": f"{self.accuracy_high:.4f}",
            "orch.data": self.data,
            "orch.classes": json.dumps(self.classes, ensure_ascii=False),
        }
        tags |= {"orch.git_commit": self.commit} if self.commit else {}
        tags |= {"orch.fits": json.dumps(self.fits)} if self.fits else {}
        return tags | dict(self.extra_tags)

    def description(self) -> str:
        """Return the description of the version, in Markdown."""
        return (
            f"Winner of the sweep **{self.sweep}** (trial `{self.trial}`), {self.form}, "
            f"crop policy `{self.policy}`.\n\n"
            f"Test accuracy **{self.accuracy:.3f}** "
            f"(95 % interval {self.accuracy_low:.3f} to {self.accuracy_high:.3f}) "
            f"on data `{self.data}` with {len(self.classes)} classes.\n\n"
            f"Input: {INPUT}. "
            f"Output: {self.output()}."
        )

    def output(self) -> str:
        """Return the description of the output, which claims no more than the model's calibration gives."""
        found = self.calibration
        if found is None or (found.temperature == 1 and not found.levels):
            return f"{OUTPUT}, not calibrated"
        return f"{OUTPUT}, calibrated on validation" + (f". {WITH_LEVELS}" if found.levels else "")


def pack_model(packed: Path, model_folder: Path, details: ModelDetails, logged: Any) -> None:
    """Write the MLflow model: data, code, pinned requirements, signature, example."""
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import Model

    code, distributions = _dependencies([details.loader, *details.modules])
    pyfunc.save_model(
        path=str(packed),
        loader_module=details.loader,
        data_path=str(model_folder),
        code_paths=code,
        pip_requirements=[f"{n}=={v}" for n, v in package_versions((*SERVED_WITH, *distributions)).items()],
        signature=signature(details.calibration),
        input_example=pd.DataFrame({"image": [base64.b64encode(details.example).decode()]}),  # as in JSON
        mlflow_model=Model(
            artifact_path=logged.artifact_location,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
            run_id=details.run_id,
        ),
        metadata={"sweep": details.sweep, "policy": details.policy, "classes": list(details.classes), "input": INPUT},
    )


def _dependencies(modules: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the paths to copy and the distributions to require so that ``modules`` can be imported elsewhere.

    The loader's package (the first module) is always copied, as is any package that no package index has.
    """
    tops = dict.fromkeys(module.partition(".")[0] for module in modules)
    installed = metadata.packages_distributions() if len(tops) > 1 else {}
    loader = modules[0].partition(".")[0]
    published = {top: [d for d in installed.get(top, []) if _is_published(d)] for top in tops if top != loader}
    required = [name for names in published.values() for name in names]
    copied = [str(_package_of(top)) for top in tops if not published.get(top)]
    return copied, tuple(dict.fromkeys(required))


def _is_published(distribution: str) -> bool:
    """Return whether ``distribution`` came from a package index; any other has a ``direct_url.json`` (PEP 610)."""
    return metadata.distribution(distribution).read_text("direct_url.json") is None


def _package_of(module: str) -> Path:
    """Return the folder of the package of ``module``, or the file of a plain module, without importing it.

    Raises TrackingError.
    """
    spec = find_top_level(module)
    if spec is None or not (spec.submodule_search_locations or spec.origin):
        raise TrackingError(
            f"the model needs the module {module!r}, which is neither installed nor in {own_folder()}. "
            "Run the command in the folder that holds it, or install it."
        )
    return Path(next(iter(spec.submodule_search_locations)) if spec.submodule_search_locations else str(spec.origin))


def signature(calibration: Calibration | None = None) -> ModelSignature:
    """Return the signature of the output, ``label``, ``probability``, ``probabilities`` (JSON text) and, with the
    parameter ``precision``, ``reason``. Models without thresholds have neither.

    The input has no schema on purpose, since every type in MLflow rejects some accepted input: a binary column also
    base64-decodes paths and ``data:`` URLs and fails on pixels; an "any" column rejects everything but tables. The
    model itself validates its input.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    columns = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "probability"),
        ColSpec(DataType.string, "probabilities"),
    ]
    if calibration is None or not calibration.levels:
        return ModelSignature(outputs=Schema(columns))
    return ModelSignature(
        outputs=Schema([*columns, ColSpec(DataType.string, "reason", required=False)]),
        params=ParamSchema([ParamSpec(PRECISION, DataType.double, 0.0)]),
    )


def try_model(packed: Path, details: ModelDetails) -> PyFuncModel:
    """Return the packed model. Raises TrackingError unless it predicts one of its classes for the example."""
    import pandas as pd

    model = load_model(packed)
    answer = model.predict(pd.DataFrame({"image": [details.example]}))
    label = answer["label"].iloc[0]
    if label not in details.classes:
        raise TrackingError(f"the packed model predicts {label!r}, not one of its classes; it is not registered.")
    return model


def load_model(packed: Path) -> PyFuncModel:
    """Load a packed model without leaving its code folder on the import path."""
    from mlflow import pyfunc

    before = list(sys.path)
    try:
        with hushed():
            return pyfunc.load_model(str(packed), suppress_warnings=True)
    finally:
        sys.path[:] = before
