"""No process takes a GPU's memory unasked: every entry into TensorFlow decides about the memory first.

An entry is a function or class of ``trainers`` that code outside it names, by import or as "module:name", and that
leads to TensorFlow. They are found in the code, so that a new one fails the count here.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.places import ROOT
from tests.support.tiny_fits import config
from trainers.contract import FitJob
from trainers.dotted import load_dotted
from trainers.files.arrays import write_list

VENDORS = ("tensorflow", "keras")
LOADER = "_load_pyfunc"
"""The function of its ``loader_module`` that MLflow calls."""
OPENED = {"trainers.serving.neighbours:served_distances"}
"""Entries that take an open model."""


def parse(*packages: str) -> dict[str, ast.Module]:
    """Dotted name -> syntax tree of every module below ``packages``."""
    found = {}
    for path in sorted(path for package in packages for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text("utf-8"))
    return found


TRAINERS = parse("trainers")


def imports(tree: ast.AST, everywhere: bool = True) -> Iterator[tuple[str, str, str]]:
    """Yield (module, name in it or "", name here) of each import that runs; ``everywhere``: in functions, too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((each.name, "", each.asname or each.name.partition(".")[0]) for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, each.name, each.asname or each.name) for each in node.names)
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, everywhere)


def reached(start: Any, following: Callable[[Any], Iterable[Any]]) -> set[Any]:
    """``start`` and everything that ``following`` leads to from there."""
    seen, left = {start}, [start]
    while left:
        new = set(following(left.pop())) - seen
        seen |= new
        left += new
    return seen


@functools.cache
def loads_tensorflow(module: str) -> bool:
    """Whether importing a module of ``trainers`` imports TensorFlow."""

    def imported(each: str) -> Iterable[str]:
        found = imports(TRAINERS[each], everywhere=False) if each in TRAINERS else []
        return [name for m, n, _ in found for name in (m, f"{m}.{n}")]

    return any(each.partition(".")[0] in VENDORS for each in reached(module, imported))


def definition(module: str, name: str) -> ast.AST | None:
    """The function or class ``name`` of a module; None for a constant."""
    for node in TRAINERS[module].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
    return None


def leads_to_tensorflow(module: str, name: str) -> bool:
    """Whether a name is a function or class whose module uses TensorFlow, or that does by what it calls by name."""

    def called(each: tuple[str, str]) -> Iterable[tuple[str, str]]:
        found = definition(*each) if each[0] in TRAINERS else None
        if found is None:
            return []
        known = {here: (m, n) for m, n, here in imports(TRAINERS[each[0]], everywhere=False)}
        own = {here: (m, n) for m, n, here in imports(found)}
        used = {node.id for node in ast.walk(found) if isinstance(node, ast.Name)}
        return [*own.values(), *((known | own).get(each_name, (each[0], each_name)) for each_name in used)]

    def uses(m: str, n: str) -> bool:
        if m.partition(".")[0] in VENDORS or f"{m}.{n}" in TRAINERS:
            return loads_tensorflow(f"{m}.{n}")
        return m in TRAINERS and definition(m, n) is not None and loads_tensorflow(m)

    return any(uses(*each) for each in reached((module, name), called))


def entries() -> set[str]:
    """Every "module:name" of ``trainers`` that the rest of the code names and that leads to TensorFlow."""
    named: set[tuple[str, str]] = set()
    for tree in parse("orchestrator", "dashboards").values():
        named |= {(module, name) for module, name, _ in imports(tree) if module in TRAINERS}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                module, _, name = node.value.partition(":")
                if module in TRAINERS and definition(module, name or LOADER) is not None:
                    named.add((module, name or LOADER))
    return {f"{module}:{name}" for module, name in named if leads_to_tensorflow(module, name)} - OPENED


class Asked(Exception):
    """The entry decided about the GPU's memory."""


def served(folder: Path) -> Path:
    """The files of a served folder without members, as far as they are read before a network is built."""
    about = {"members": 0, "classes": ["a", "b"], "policy": "whole", "image_size": 16, "view": "squash"}
    (folder / "model.json").write_text(json.dumps(about | {"fit": job(folder).to_dict()}))
    write_list(folder / "backbone.npz", [np.zeros(1, np.float32)])
    return folder


def job(folder: Path) -> FitJob:
    return FitJob("x", config(), 0, str(folder / "manifest.parquet"), weights="none", cache=str(folder))


def state_dict(folder: Path) -> Path:
    from safetensors.numpy import save_file

    save_file({"fc.weight": np.zeros((1, 1), np.float32)}, folder / "net.safetensors")
    return folder / "net.safetensors"


ARGUMENTS: dict[str, Callable[[Path], tuple[Any, ...]]] = {
    "trainers.training.loop:open_fit": lambda folder: (job(folder),),
    "trainers.training.out_of_fold:predict_out_of_fold": lambda folder: (AnyJob(config=vars(config())),),
    "trainers.training.measure:measure": lambda folder: (AnyJob(asked_at=0.0, seconds=1.0),),
    "trainers.training.prefill:fill": lambda folder: (job(folder).to_dict(),),
    "trainers.forms.soup:average": lambda folder: (AnyJob(soup=job(folder).to_dict()),),
    "trainers.forms.teacher:answer": lambda folder: (AnyJob(student=job(folder).to_dict()),),
    "trainers.serving:_load_pyfunc": lambda folder: (str(served(folder)),),
    "trainers.serving.model:ServedModel": lambda folder: (served(folder),),
    "trainers.networks.conversion.convert:convert": lambda folder: (state_dict(folder), "senet50", folder),
}
"""Entry -> its arguments; a dictionary that has every key for the others, which are jobs."""


class AnyJob(dict[str, Any]):
    def __missing__(self, key: str) -> Any:
        return ""


ENTRIES = sorted(entries())


def test_every_entry_is_known():
    assert len(ENTRIES) == 13, ENTRIES
    assert set(ARGUMENTS) <= set(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_decides_about_the_memory_before_tensorflow_opens_a_device(entry, tmp_path, monkeypatch):
    import tensorflow as tf
    from tensorflow.python.eager.context import Context

    from trainers.training import device

    def asked(*_: Any) -> None:
        raise Asked

    monkeypatch.setattr(device, "prepare", asked)
    monkeypatch.setattr(device, "grow_gpu_memory", asked)
    monkeypatch.setattr(tf.config, "set_visible_devices", asked)
    monkeypatch.setattr(Context, "ensure_initialized", lambda self: pytest.fail(f"{entry} took the GPU unasked"))
    arguments = ARGUMENTS.get(entry, lambda folder: (AnyJob(),))(tmp_path)
    with pytest.raises(Asked):
        load_dotted(entry)(*arguments)
