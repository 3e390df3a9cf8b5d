"""Vendors' private names that the product uses: each is listed, and each is there in what is installed.

No vendor promises to keep them. When one is gone after an upgrade, its test says which, what it is for and where it is
used; a use that the table does not list fails too.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dashboards
import orchestrator
import trainers

PRODUCT = (orchestrator, trainers, dashboards)
VENDORS = ("ray", "optuna", "mlflow", "keras", "tensorflow", "pandas", "typer", "rich", "ruamel", "matplotlib")
BY_NAME = {"getattr": 1, "hasattr": 1, "setattr": 1, "delattr": 1, "attrgetter": 0}
"""Functions that take an attribute's name, and which of their arguments it is."""


@dataclass(frozen=True)
class Private:
    """A name that a vendor may remove without notice.

    ``why``: what the product does with it. ``there``: whether the installed vendor has it. ``public``: it has no
    underscore, but is on an object that the vendor does not document.
    """

    vendor: str
    name: str
    why: str
    there: Callable[[], bool]
    public: bool = False


def assigns(kind: type, name: str) -> bool:
    """Whether ``kind.__init__`` sets ``self.name``, for classes that cannot be made without a cluster."""
    source = inspect.getsource(inspect.unwrap(kind.__init__))  # type: ignore[misc]
    nodes = ast.walk(ast.parse("if True:\n" + source))
    stored = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
    return any(n.attr == name and ast.unparse(n.value) == "self" for n in stored)


def controller_has(name: str) -> bool:
    from ray.tune.execution.tune_controller import TuneController

    return assigns(TuneController, name)


@functools.cache
def hyperband() -> Any:
    from ray.tune.schedulers import HyperBandScheduler

    return HyperBandScheduler(time_attr="epoch", metric="val_accuracy", mode="max", max_t=9)


@functools.cache
def bracket() -> Any:
    return hyperband()._create_bracket(1)


def median_has(name: str) -> bool:
    from ray.tune.schedulers import MedianStoppingRule

    return hasattr(MedianStoppingRule(metric="val_accuracy", mode="max"), name)


@functools.cache
def trial() -> Any:
    from ray.tune.experiment import Trial

    return Trial("FitTrainable", stub=True)


def quiets_workers() -> bool:
    import ray._private.worker

    return isinstance(ray._private.worker._worker_logs_enabled, bool)


def actors_have(name: str) -> bool:
    from ray.air.execution._internal import RayActorManager

    return callable(getattr(RayActorManager, name, None))


def store_forgets_engines() -> bool:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return isinstance(SqlAlchemyStore._engine_map, dict)


def schema_has_a_revision() -> bool:
    from mlflow.store.db import utils

    return bool(utils._get_latest_schema_revision())


def dataset_has(name: str) -> bool:
    from mlflow.data.dataset import Dataset

    return callable(getattr(Dataset, name, None))


@functools.cache
def network() -> Any:
    """A Keras model with a layer that draws and one that acts otherwise in training."""
    import keras

    start = keras.Input((4,))
    return keras.Model(start, keras.layers.Dropout(0.5)(keras.layers.Dense(2)(start)))


def layer_has(name: str) -> bool:
    return all(hasattr(layer, name) for layer in network().layers)


def is_in_file_of_keras() -> bool:
    """Whether Keras still looks for the group that files of TensorFlow's checkpoints hold layers in."""
    from keras.src.saving import saving_lib

    return "_layer_checkpoint_dependencies" in inspect.getsource(saving_lib)


def gradients_are_registered() -> bool:
    from tensorflow.python.framework.ops import gradient_registry

    return "MatMul" in gradient_registry._registry


def tflite_has_a_schema() -> bool:
    from tensorflow.lite.python import schema_py_generated

    return hasattr(schema_py_generated.ModelT, "InitFromObj")


PRIVATES = [
    Private("ray", "_private", "the package of the next one", quiets_workers),
    Private("ray", "_worker_logs_enabled", "no paragraph on stdout for each worker that dies", quiets_workers),
    Private(
        "ray",
        "_started_actors",
        "a worker that outgrew its memory is not reused",
        lambda: controller_has("_started_actors"),
    ),
    Private("ray", "_trial_to_actor", "which worker that is", lambda: controller_has("_trial_to_actor")),
    Private(
        "ray",
        "_stopped_trials",
        "a trial that an earlier driver let go on is not stopped",
        lambda: median_has("_stopped_trials"),
    ),
    Private("ray", "_on_insufficient_samples", "median never pauses", lambda: median_has("_on_insufficient_samples")),
    Private("ray", "_Bracket", "a bracket of hyperband that fills up", lambda: type(bracket()).__name__ == "_Bracket"),
    Private("ray", "_create_bracket", "hyperband makes such brackets", lambda: hasattr(hyperband(), "_create_bracket")),
    *(
        Private("ray", name, "what a bracket is made with", functools.partial(lambda n: hasattr(hyperband(), n), name))
        for name in ("_time_attr", "_get_n0", "_get_r0", "_max_t_attr", "_eta")
    ),
    *(
        Private("ray", name, "how full a bracket is", functools.partial(lambda n: hasattr(bracket(), n), name))
        for name in ("_all_trials", "_n0", "_r", "_r0")
    ),
    Private(
        "ray", "temporary_state", "workers end at once on Ctrl-C", lambda: hasattr(trial(), "temporary_state"), True
    ),
    Private("ray", "ray_actor", "the worker of a trial", lambda: hasattr(trial().temporary_state, "ray_actor"), True),
    Private("ray", "run_metadata", "retries, and the next two", lambda: hasattr(trial(), "run_metadata"), True),
    Private("ray", "num_failures", "retries of a trial", lambda: trial().run_metadata.num_failures == 0, True),
    Private(
        "ray", "metric_analysis", "cleared, for its memory", lambda: trial().run_metadata.metric_analysis == {}, True
    ),
    Private(
        "ray", "metric_n_steps", "cleared, for its memory", lambda: trial().run_metadata.metric_n_steps == {}, True
    ),
    Private("ray", "_internal", "the package of Ray's actor manager", lambda: actors_have("_try_start_actors")),
    Private(
        "ray",
        "_actor_start_failed",
        "a lost worker is an error that Tune retries",
        lambda: actors_have("_actor_start_failed"),
    ),
    Private(
        "ray",
        "_actor_task_failed",
        "a lost worker is an error that Tune retries",
        lambda: actors_have("_actor_task_failed"),
    ),
    Private("ray", "_try_start_actors", "a pause after kills for memory", lambda: actors_have("_try_start_actors")),
    Private("mlflow", "_engine_map", "forgets the engine of a renamed database", store_forgets_engines),
    Private("mlflow", "_get_latest_schema_revision", "whether a database is complete", schema_has_a_revision),
    Private("mlflow", "_to_mlflow_entity", "the data of a sweep in its run", lambda: dataset_has("_to_mlflow_entity")),
    Private(
        "keras", "_nodes_by_depth", "the calls of a model, in order", lambda: hasattr(network(), "_nodes_by_depth")
    ),
    Private(
        "keras",
        "_keras_history",
        "which layer a tensor comes from",
        lambda: hasattr(network().output, "_keras_history"),
    ),
    Private("keras", "_flatten_layers", "layers inside layers", lambda: layer_has("_flatten_layers")),
    Private("keras", "_inbound_nodes", "what a layer is called on", lambda: layer_has("_inbound_nodes")),
    Private("keras", "_outbound_nodes", "what calls follow it", lambda: layer_has("_outbound_nodes")),
    Private("keras", "_layers", "whether a layer holds others", lambda: layer_has("_layers")),
    Private(
        "keras", "_seed_generators", "what is random comes from the trial's seed", lambda: layer_has("_seed_generators")
    ),
    Private(
        "keras", "_call_has_training_arg", "frozen layers in inference", lambda: layer_has("_call_has_training_arg")
    ),
    Private("keras", "_layer_checkpoint_dependencies", "files of weights", is_in_file_of_keras),
    Private("tensorflow", "_registry", "gradients of graphs that are traced are forgotten", gradients_are_registered),
    Private("tensorflow", "InitFromObj", "reads the graph of a .tflite file", tflite_has_a_schema, True),
]


@dataclass(frozen=True)
class Use:
    name: str
    place: str


def sources() -> Iterator[Path]:
    for package in PRODUCT:
        yield from sorted(Path(package.__file__ or "").parent.rglob("*.py"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name.strip("_") != ""


def own_names(tree: ast.Module) -> set[str]:
    """Names that the module itself defines: functions, classes, variables, attributes that it sets on ``self``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            found.add(node.attr)
    return found


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def uses_in(tree: ast.Module, place: str) -> Iterator[Use]:
    """Private names of others in a module: read, imported, overridden, or asked for by name."""
    own = own_names(tree)
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Attribute) and node.attr not in own:
            names = [node.attr]
        elif isinstance(node, ast.Import):
            names = [part for each in node.names for part in each.name.split(".")]
        elif isinstance(node, ast.ImportFrom) and not _is_of_product(node.module or ""):
            names = [*(node.module or "").split("."), *(each.name for each in node.names)]
        elif isinstance(node, ast.Call):
            names = [name for name in _asked_for(node) if name not in own]
        elif isinstance(node, ast.ClassDef):
            names = list(_overridden(node, tree))
        line = getattr(node, "lineno", 0)
        yield from (Use(name, f"{place}:{line}") for name in names if is_private(name))


def _is_of_product(module: str) -> bool:
    return module.partition(".")[0] in {package.__name__ for package in PRODUCT}


def _asked_for(call: ast.Call) -> Iterator[str]:
    """The constant name in ``getattr(thing, "name")`` and the like, and the key in ``file.get("name")``."""
    function = call.func
    called = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    place = 0 if called == "get" else BY_NAME.get(called)
    if place is not None and len(call.args) > place:
        argument = call.args[place]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value


def _overridden(made: ast.ClassDef, tree: ast.Module) -> Iterator[str]:
    """Private methods of ``made`` that a vendor's class among its bases has too."""
    methods = {node.name for node in made.body if isinstance(node, ast.FunctionDef)}
    for base in made.bases:
        kind = _vendors_class(ast.unparse(base), tree)
        if kind is not None:
            yield from (name for name in sorted(methods) if hasattr(kind, name))


def _vendors_class(name: str, tree: ast.Module) -> Any:
    """The class that ``name`` is in a module with these imports; None where no vendor made it."""
    first, *rest = name.split(".")
    for node in ast.walk(tree):
        for each in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            module = each.name if isinstance(node, ast.Import) else node.module or ""
            if (each.asname or each.name) != first or module.partition(".")[0] not in VENDORS:
                continue
            found = importlib.import_module(module)
            for part in rest if isinstance(node, ast.Import) else [each.name, *rest]:
                found = getattr(found, part) if hasattr(found, part) else importlib.import_module(f"{module}.{part}")
            return found
    return None


@functools.cache
def uses() -> tuple[Use, ...]:
    """Every use of a vendor's private name, and of the public ones that the table lists."""
    public = {private.name for private in PRIVATES if private.public}
    found: list[Use] = []
    for file in sources():
        tree, place = ast.parse(file.read_text()), "/".join(file.parts[file.parts.index(_package_of(file)) :])
        found += uses_in(tree, place)
        found += [
            Use(node.attr, f"{place}:{node.lineno}")
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in public
        ]
    return tuple(found)


def _package_of(file: Path) -> str:
    return next(p.__name__ for p in PRODUCT if file.is_relative_to(Path(p.__file__ or "").parent))


def places(name: str) -> str:
    return ", ".join(sorted({use.place for use in uses() if use.name == name}))


@pytest.mark.parametrize("private", PRIVATES, ids=[f"{each.vendor}-{each.name}" for each in PRIVATES])
def test_a_private_name_is_there(private: Private) -> None:
    try:
        there = private.there()
    except (AttributeError, ImportError):
        there = False
    assert there, f"{private.vendor} has no {private.name} any more ({private.why}); used in {places(private.name)}"


def test_a_name_that_is_not_there_is_noticed() -> None:
    assert not controller_has("_no_such_name")
    assert not median_has("_no_such_name")
    assert not dataset_has("_no_such_name")
    assert not layer_has("_no_such_name")


def test_each_use_is_listed() -> None:
    listed = {private.name for private in PRIVATES}
    unlisted = sorted({f"{use.name} in {use.place}" for use in uses() if use.name not in listed})
    assert not unlisted, "private names of others; do without, or list them in PRIVATES: " + "; ".join(unlisted)
    assert len(list(sources())) > 140


def test_each_listed_name_is_used() -> None:
    used = {use.name for use in uses()}
    assert [private.name for private in PRIVATES if private.name not in used] == []
    assert len({private.name for private in PRIVATES}) == len(PRIVATES)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import keras\nkeras.Model()._nodes", ["_nodes"]),
        ("from ray.tune._impl import x", ["_impl"]),
        ("from ray.tune import _x", ["_x"]),
        ("import ray._private.worker", ["_private"]),
        ("def f(layer):\n    return getattr(layer, '_built', None)", ["_built"]),
        (
            "from ray.tune.schedulers import HyperBandScheduler as H\nclass A(H):\n    def _create_bracket(self): ...",
            ["_create_bracket"],
        ),
        ("class A:\n    def f(self):\n        return self._inherited", ["_inherited"]),
        (
            "class A:\n    def __init__(self):\n        self._x = 1\n    def f(self, other):\n        return other._x",
            [],
        ),
        ("from trainers.serving import _load_pyfunc", []),
        ("def f(x):\n    return x.__dict__", []),
    ],
)
def test_the_scan_finds(code: str, names: list[str]) -> None:
    assert [use.name for use in uses_in(ast.parse(code), "a.py")] == names
