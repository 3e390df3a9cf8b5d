"""Digest a user's own code, so that other code under an old name does not find rows of the old code.

The digest covers what this process has loaded, not the file, which may have been edited since: instructions,
constants, defaults, captured values, the state of objects, plain values of the module, and the functions and classes of
the same module that the code names. Code of other modules that it calls is not covered.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

GIVEN = ("keras", "tensorflow", __name__.partition(".")[0])
"""Top-level packages whose code is not the user's own."""
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
"""Types whose ``repr`` is equal in every process."""


def digest_of(thing: Any) -> str:
    """Digest a function, a callable object or a class as 16 hex digits."""
    return hashlib.sha256(_Reader().read(thing)).hexdigest()[:16]


def name_of(thing: Any) -> str:
    """``module.name`` of a function or a class.

    A module of this project is named without the packages below the top one, so that moving it keeps stored rows.
    """
    top, _, rest = thing.__module__.partition(".")
    module = f"{top}.{rest.rpartition('.')[2]}" if rest and top == GIVEN[-1] else thing.__module__
    return f"{module}.{thing.__qualname__}"


def plain_values(thing: Any, except_names: Iterable[str]) -> dict[str, Any]:
    """The attributes of ``thing`` that are numbers, strings or lists of those, without ``except_names``."""
    left_out = frozenset(except_names)
    return {name: value for name, value in sorted(vars(thing).items()) if name not in left_out and _is_plain(value)}


def own_classes(thing: Any) -> list[type]:
    """The user's own classes among the class of ``thing`` and its bases."""
    return [each for each in type(thing).__mro__ if each is not object and _is_own(each)]


def own_functions(thing: Any) -> list[Any]:
    """The user's own functions and callable objects among the attributes of ``thing``, such as an activation."""
    kinds = (FunctionType, MethodType, functools.partial)
    held = vars(thing).values()
    return [v for v in held if (isinstance(v, kinds) and _is_own(v)) or (callable(v) and _is_own_object(v))]


def _is_own_object(thing: Any) -> bool:
    """Whether all its classes are the user's own. False for a layer, which its settings describe."""
    classes = [each for each in type(thing).__mro__ if each is not object]
    return hasattr(thing, "__dict__") and all(_is_own(each) and each.__module__ != "builtins" for each in classes)


def _is_own(thing: Any) -> bool:
    while isinstance(thing, functools.partial):
        thing = thing.func
    module = (getattr(thing, "__module__", None) or "").partition(".")[0]
    return module not in GIVEN and module not in sys.stdlib_module_names - {"builtins"}  # a class made by exec


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_plain(each) for each in value)
    return isinstance(value, PLAIN)


class _Reader:
    """Values as bytes that are the same in every process."""

    def __init__(self) -> None:
        self._met: dict[int, Any] = {}  # id -> value that was read; holding it keeps the id valid

    def read(self, value: Any) -> bytes:
        if isinstance(value, PLAIN):
            return repr(value).encode()
        if isinstance(value, CodeType):
            return self._code(value)
        if not isinstance(value, tuple | frozenset | MethodType):  # equal ones may or may not be one object
            if id(value) in self._met:
                return b"again"
            self._met[id(value)] = value
        return type(value).__qualname__.encode() + b"(" + b"|".join(self._parts(value)) + b")"

    def _parts(self, value: Any) -> list[bytes]:
        if isinstance(value, list | tuple):
            return [self.read(each) for each in value]
        if isinstance(value, set | frozenset):
            return sorted(self.read(each) for each in value)
        if isinstance(value, Mapping):
            return sorted(self.read(key) + b":" + self.read(each) for key, each in value.items())
        if isinstance(value, np.ndarray | np.generic):
            return [str((value.dtype, value.shape)).encode(), np.ascontiguousarray(value).tobytes()]
        if isinstance(value, functools.partial):
            return [self.read(value.func), self.read(value.args), self.read(value.keywords)]
        if isinstance(value, ModuleType):
            return [value.__name__.encode()]
        if isinstance(value, MethodType):
            return [self.read(value.__func__), self.read(value.__self__)]
        if isinstance(value, FunctionType):
            return self._function(value)
        if inspect.isclass(value):
            return self._class(value)
        if _is_own_object(value):
            return [self.read(type(value)), self.read(vars(value))]
        return [str(getattr(value, "__qualname__", getattr(value, "__name__", ""))).encode()]

    def _function(self, function: FunctionType) -> list[bytes]:
        if not _is_own(function):
            return [name_of(function).encode()]
        captured = [_in_cell(cell) for cell in function.__closure__ or ()]
        around = function.__globals__
        named = [(name, around[name]) for name in sorted(_names_in(function.__code__)) if name in around]
        used = [pair for pair in named if _is_plain(pair[1]) or _is_of(pair[1], function.__module__)]
        state = (function.__defaults__, function.__kwdefaults__, captured, used)
        return [self.read(function.__code__), *(self.read(part) for part in state)]

    def _class(self, kind: type) -> list[bytes]:
        """Parts of a class: name, bases, functions and plain values."""
        if not _is_own(kind):
            return [name_of(kind).encode()]
        members = {}
        for key, member in vars(kind).items():
            inner = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
            if isinstance(inner, FunctionType) or (_is_plain(inner) and not key.startswith("__")):
                members[key] = inner
        return [kind.__qualname__.encode(), self.read(kind.__bases__), self.read(members)]

    def _code(self, code: CodeType) -> bytes:
        """The instructions of ``code`` with the names and constants they use, inner functions included."""
        names = (code.co_names, code.co_varnames, code.co_freevars)
        return b"|".join([code.co_code, repr(names).encode(), *(self.read(constant) for constant in code.co_consts)])


def _names_in(code: CodeType) -> set[str]:
    inner = [_names_in(each) for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*inner)


def _is_of(value: Any, module: str | None) -> bool:
    return isinstance(value, FunctionType | type) and value.__module__ == module


def _in_cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None
