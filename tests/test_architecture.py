"""The arrows of DESIGN.md, section 3: who may import whom, imports inside functions included."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("orchestrator", "trainers", "dashboards")

ROOMS = {
    "ray": {
        "orchestrator.search",
        "orchestrator.bookkeeper",
        "orchestrator.cluster",
        "orchestrator.worker",
        "orchestrator.schedulers",
    },
    "optuna": {"orchestrator.proposer"},
    "mlflow": {
        "orchestrator.tracking",
        "orchestrator.synchroniser",
        "orchestrator.registry",
        "orchestrator.mlflow_store",
    },
    "sqlalchemy": {"orchestrator.mlflow_store"},
    "typer": {
        "orchestrator.cli",
        "orchestrator.material",
        "orchestrator.planverb",
        "orchestrator.options",
        "orchestrator.help_pages",
        "orchestrator.exits",
    },
    "ruamel": {"orchestrator.spec", "orchestrator.yamlfile"},
    "matplotlib": {"dashboards.figures", "dashboards.searchfigures", "dashboards.contact_sheet", "dashboards.style"},
}
"""Vendor -> the only modules that may know it."""
TENSORFLOW = {"tensorflow", "keras"}
TABLES = {
    "trainers.cachefolder",
    "trainers.cacheroom",
    "trainers.contract",
    "trainers.manifest",
    "trainers.backbones",
    "trainers.heads",
    "trainers.augment",
    "trainers.parts",
    "trainers.policies",
    "trainers.balance",
    "trainers.exportformats",
    "trainers.images",
    "trainers.items",
    "trainers.costs",
    "trainers.shelfindex",
    "trainers.load",
}
"""All that the orchestrator may import of the trainers; it names the rest by dotted path."""
PURE = {
    "orchestrator.selection",
    "orchestrator.leaderboard",
    "orchestrator.promotion",
    "orchestrator.space",
    "orchestrator.run_updates",
    "orchestrator.objectives",
    "orchestrator.comparison",
    "orchestrator.classcounts",
    "orchestrator.reachable",
    "orchestrator.calibration",
    "orchestrator.campaign",
    "orchestrator.devices",
    "orchestrator.estimates",
    "orchestrator.plan",
    "orchestrator.simulation",
    "orchestrator.stopping",
    "orchestrator.workload",
    "orchestrator.stagetimes",
    "orchestrator.learning",
    "orchestrator.needs",
    "orchestrator.slots",
    "orchestrator.draws",
}
PURE_VENDORS = {"numpy", "pandas", "rich"}
"""What a pure module may use: arrays, tables, and rich to lay one out."""


@dataclass(frozen=True)
class Arrow:
    """One import: ``target`` is a module of ours in full, or a vendor's first name."""

    source: str
    target: str
    line: int
    lazy: bool

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def module_files() -> dict[str, Path]:
    """Module name -> file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def arrows_of(module: str, source: str, known: set[str]) -> list[Arrow]:
    """Every import in ``source`` but those for type checkers alone; ``known`` are our modules."""
    tree = ast.parse(source)
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }
    at_top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if id(node) not in for_types:
            found += [Arrow(module, t, node.lineno, id(node) not in at_top) for t in _targets(node, module, known)]
    return found


def _targets(node: ast.AST, module: str, known: set[str]) -> Iterator[str]:
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            base = ".".join([*module.split(".")[: -node.level], *([base] if base else [])])
        names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
        names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
    for name in dict.fromkeys(names):
        yield name if name.split(".")[0] in PACKAGES else name.split(".")[0]


@pytest.fixture(scope="module")
def arrows() -> list[Arrow]:
    files = module_files()
    return [a for name, path in files.items() for a in arrows_of(name, path.read_text(), set(files))]


def refused(arrow: Arrow) -> bool:
    """Whether DESIGN.md has no such arrow."""
    package, target_package = arrow.source.split(".")[0], arrow.target.split(".")[0]
    if arrow.target in ROOMS:
        return arrow.source not in ROOMS[arrow.target]
    if arrow.target in TENSORFLOW:
        return package != "trainers"
    if arrow.source in PURE and target_package not in {*PACKAGES, *PURE_VENDORS}:
        return target_package not in sys.stdlib_module_names
    if package == target_package or target_package not in PACKAGES:
        return False
    return not (package == "orchestrator" and (arrow.target in TABLES or target_package == "dashboards"))


def test_no_other_arrow(arrows: list[Arrow]) -> None:
    assert [str(a) for a in arrows if refused(a)] == []


def test_the_walk_saw_every_module_and_imports_inside_functions(arrows: list[Arrow]) -> None:
    files = module_files()
    on_disk = [p for package in PACKAGES for p in (ROOT / package).rglob("*.py")]
    assert len(files) == len(on_disk) >= 50
    assert len({a.source for a in arrows}) > 0.9 * len(files)
    assert any(a.lazy and a.target == "orchestrator.pipeline" for a in arrows if a.source == "orchestrator.cli")
    assert any(a.lazy and a.target == "keras" for a in arrows if a.source == "trainers.backbones")


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        ("orchestrator.plan", "import tensorflow as tf", True),
        ("orchestrator.plan", "def f():\n    from keras.layers import Dense", True),
        ("orchestrator.plan", "import ray.tune", True),
        ("orchestrator.search", "import ray.tune", False),
        ("orchestrator.search", "from optuna import create_study", True),
        ("orchestrator.stages", "from trainers import training", True),
        ("orchestrator.stages", "from trainers.training import open_fit", True),
        ("orchestrator.stages", "from trainers.contract import FitJob", False),
        ("orchestrator.space", "import pyarrow", True),
        ("orchestrator.space", "import numpy as np", False),
        ("trainers.serving", "import mlflow", True),
        ("trainers.training", "from orchestrator import paths", True),
        ("trainers.training", "import importlib\nimportlib.import_module('ray.tune')", True),
        ("dashboards.figures", "from orchestrator.leaderboard import rank", True),
        ("dashboards.figures", "from trainers.contract import TrialConfig", True),
        ("orchestrator.plan", "if TYPE_CHECKING:\n    import ray", False),
    ],
)
def test_the_rules_tell_right_from_wrong(module: str, line: str, wrong: bool) -> None:
    known = {*module_files(), "trainers.training", "orchestrator.paths"}
    assert any(refused(a) for a in arrows_of(module, line, known)) == wrong


def test_every_room_is_in_use(arrows: list[Arrow]) -> None:
    """A name left in the rules after its module has gone would let a new one of that name in."""
    files = set(module_files())
    unknown = {m for rooms in ROOMS.values() for m in rooms} | TABLES | PURE
    assert unknown - files == set()
    for vendor in ROOMS:
        assert any(a.target == vendor for a in arrows), vendor


def test_layers_hold_inside_functions_too(arrows: list[Arrow]) -> None:
    """The layers of pyproject.toml, which `lint-imports` checks as well, once more and over lazy imports."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c["layers"] for c in settings["contracts"] if c["type"] == "layers")
    depth = {name.strip(): i for i, layer in enumerate(layers) for name in layer.split(":")}
    inner = [a for a in arrows if a.source.startswith("orchestrator.") and a.target.startswith("orchestrator.")]
    upward = [
        str(a)
        for a in inner
        if depth[a.target.removeprefix("orchestrator.")] < depth[a.source.removeprefix("orchestrator.")]
    ]
    assert len(inner) > 100
    assert upward == []


def test_worker_code_named_by_dotted_path_exists() -> None:
    """What the orchestrator names as "trainers.module:function" is there, since no import would notice."""
    named = set()
    for name, path in module_files().items():
        if name.startswith("orchestrator."):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    module, colon, function = node.value.partition(":")
                    if colon and module.startswith("trainers.") and function.isidentifier():
                        named.add((module, function))
    assert ("trainers.training", "open_fit") in named
    for module, function in named:
        tree = ast.parse(module_files()[module].read_text())
        assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}, module


HEAVY = ("tensorflow", "keras", "ray", "mlflow", "optuna", "pandas", "matplotlib", "sklearn")


def _loaded(code: str) -> list[str]:
    """Which heavy packages a fresh interpreter has imported after ``code``."""
    ending = f"import json, sys; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{ending}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_the_command_line_the_spec_and_the_tables_import_nothing_heavy() -> None:
    modules = "orchestrator.cli, orchestrator.spec, orchestrator.space, orchestrator.help_pages"
    tables = (
        "trainers.contract, trainers.backbones, trainers.heads, trainers.policies, trainers.augment, "
        "trainers.balance, trainers.exportformats"
    )
    assert _loaded(f"import {modules}, {tables}") == []


def test_checking_a_file_imports_nothing_heavy(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "name: tiny\ndata: {source: 'builtin:digits'}\nweights: none\n"
        "search: {backbone: small_cnn, dropout: [0.0, 0.2]}\nbudget: {trials: 2, epochs: 1}\n"
    )
    assert _loaded(f"from orchestrator.cli import run\nassert run(['check', {str(file)!r}]) == 0") == []
