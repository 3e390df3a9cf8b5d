"""Code of the user's own, as a digest: other code under an old name must not find what the old code made.

What the code calls is not read.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from types import CodeType, FunctionType, MethodType
from typing import Any

GIVEN = ("keras", "tensorflow", __name__.partition(".")[0])
"""Packages whose code is nobody's own."""


def digest_of(thing: Any) -> str:
    """Of a function, of an object that can be called, or of a class."""
    digest = hashlib.sha256()
    while isinstance(thing, functools.partial):
        digest.update(repr((thing.args, sorted(thing.keywords.items()))).encode())
        thing = thing.func
    if not (inspect.isroutine(thing) or inspect.isclass(thing)):  # an object that can be called
        thing = type(thing).__call__
    try:
        digest.update(inspect.getsource(thing).encode())
    except (OSError, TypeError):  # made at run time, or compiled
        digest.update(_compiled(thing))
    return digest.hexdigest()[:16]


def own_classes(thing: Any) -> list[type]:
    """The class of ``thing`` and those that it is derived from, as far as they are the user's own."""
    return [each for each in type(thing).__mro__ if each is not object and _is_own(each)]


def own_functions(thing: Any) -> list[Any]:
    """The functions of the user's own that ``thing`` holds: an activation, say."""
    kinds = (FunctionType, MethodType, functools.partial)
    return [value for value in vars(thing).values() if isinstance(value, kinds) and _is_own(value)]


def _is_own(thing: Any) -> bool:
    while isinstance(thing, functools.partial):
        thing = thing.func
    return (getattr(thing, "__module__", None) or "").partition(".")[0] not in GIVEN


def _compiled(thing: Any) -> bytes:
    """The instructions of a function, or of a class's methods; else what it calls itself."""
    if inspect.isclass(thing):
        methods = [(name, getattr(value, "__func__", value)) for name, value in sorted(vars(thing).items())]
        return b"|".join(name.encode() + _compiled(value) for name, value in methods if inspect.isfunction(value))
    code = getattr(thing, "__code__", None)
    return _bytes_in(code) if code is not None else repr(thing).encode()


def _bytes_in(code: CodeType) -> bytes:
    """The instructions of ``code``, the names and constants they use, and those of the functions inside."""
    inner = [_bytes_in(c) if isinstance(c, CodeType) else repr(c).encode() for c in code.co_consts]
    return b"|".join([code.co_code, repr(code.co_names).encode(), *inner])
