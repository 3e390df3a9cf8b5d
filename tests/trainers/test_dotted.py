"""Names of the form ``module:attribute``, and where their modules are looked for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import pytest

from trainers import dotted
from trainers.errors import TrainerError


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delenv(dotted.FOLDER_VARIABLE, raising=False)


def test_a_module_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rows_here.py").write_text("ROW = 3\n")
    monkeypatch.chdir(tmp_path)
    assert dotted.load_dotted("my_rows_here:ROW") == 3
    assert sys.path[-1] == str(tmp_path)


def test_workers_look_in_the_drivers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rows_there.py").write_text("ROW = 4\n")
    monkeypatch.setenv(dotted.FOLDER_VARIABLE, str(tmp_path))
    assert dotted.load_dotted("my_rows_there:ROW") == 4


def test_a_folder_of_the_current_folder_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("trainers", "numpy", "colorsys"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError\n")
    monkeypatch.chdir(tmp_path)
    for name in ("trainers", "numpy", "colorsys"):
        found = dotted.find_top_level(name)
        assert found is not None
        assert str(tmp_path) not in str(found.origin)
    assert str(tmp_path) not in sys.path


def install_editable(checkout: Path, name: str) -> Path:
    """Install a package as setuptools does in development: found by a finder at the end of ``sys.meta_path``.

    Return its ``__init__.py``, which defines ``ROW = 5``.
    """
    file = checkout / name / "__init__.py"
    file.parent.mkdir(parents=True)
    file.write_text("ROW = 5\n")

    class Finder:
        @classmethod
        def find_spec(cls, wanted: str, path: object = None, target: object = None) -> object:
            return importlib.util.spec_from_file_location(wanted, file) if wanted == name else None

    sys.meta_path.append(Finder)
    return file


def test_an_editable_install_lies_on_no_path(tmp_path: Path) -> None:
    file = install_editable(tmp_path / "checkout", "my_editable")
    found = dotted.find_top_level("my_editable.deep")
    assert found is not None
    assert found.origin == str(file)
    assert dotted.load_dotted("my_editable:ROW") == 5


def test_a_folder_without_init_hides_no_editable_install(tmp_path: Path) -> None:
    """Python's own finder comes first, and finds a namespace package in any folder on the path."""
    (tmp_path / "here" / "my_editable").mkdir(parents=True)
    sys.path.insert(0, str(tmp_path / "here"))
    alone = dotted.find_top_level("my_editable")
    assert alone is not None
    assert alone.origin is None, "a namespace package, as long as there is no other"
    file = install_editable(tmp_path / "checkout", "my_editable")
    found = dotted.find_top_level("my_editable")
    assert found is not None
    assert found.origin == str(file)


def test_what_is_nowhere_leaves_the_path_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert dotted.find_top_level("no_such_module_anywhere") is None
    assert sys.path == before
    with pytest.raises(ModuleNotFoundError, match=str(tmp_path)):
        dotted.load_dotted("no_such_module_anywhere:ROW")


def test_a_current_folder_that_is_on_the_path_already_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sys.path.insert(0, str(tmp_path))
    before = list(sys.path)
    assert dotted.find_top_level("no_such_module_anywhere") is None
    assert sys.path == before


def test_old_finders_and_modules_without_a_file_are_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finder may have only ``find_module``; a module may have been defined in an interactive session."""
    sys.meta_path.insert(0, object())  # type: ignore[arg-type]
    assert dotted.find_top_level("colorsys") is not None
    made = types.ModuleType("made_in_memory")
    made.ROW = 6  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_in_memory", made)
    assert dotted.load_dotted("made_in_memory:ROW") == 6


def test_a_folder_that_hides_orchs_own_is_named(tmp_path: Path) -> None:
    """With ``PYTHONPATH=.`` a folder called ``trainers`` comes before the installed package."""
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "__init__.py").write_text("")
    root = Path(dotted.__file__).parent.parent
    path = [str(tmp_path), str(root)]
    code = f"import sys; sys.path[:0] = {path}; from orchestrator.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "status"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert str(tmp_path / "trainers") in done.stderr
    assert "PYTHONPATH" in done.stderr
    assert "Traceback" not in done.stderr


ROW = Path("a row")
TABLE = {"first": Path("1"), "second": Path("2")}


def test_a_name_is_looked_up_in_the_table_then_imported() -> None:
    assert dotted.lookup("second", TABLE, Path) == Path("2")
    assert dotted.lookup(f"{__name__}:ROW", TABLE, Path) is ROW


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("secnd", ("no path 'secnd'", "did you mean second?", "first, second", "my_module:my_path")),
        (f"{__name__}:TABLE", ("TABLE", "is a dict, not a path")),
        (f"{__name__}:MISSING", ("MISSING", "cannot be imported")),
        ("no_such_module_at_all:ROW", ("cannot be imported", "no_such_module_at_all")),
    ],
)
def test_a_name_that_is_no_row_is_explained(name: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(TrainerError) as error:
        dotted.lookup(name, TABLE, Path)
    assert all(part in str(error.value) for part in parts)
