"""Parts of sentences: numbers with nouns or units, the nearest known word. Standard library alone."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

GB = 10**9
"""Bytes of a gigabyte; decimal, as ORCH_CACHE_GB."""


def count(number: int, noun: str) -> str:
    """Join a number and its noun: "1 image", "2,527 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Find the known word that resembles ``word`` most, whatever its case; None if none reaches ``cutoff`` of 1."""
    words = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), words, n=1, cutoff=cutoff)
    return words[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """End a clause: ``; did you mean NEAREST?`` if a known word resembles ``word``, else a full stop."""
    near = nearest(word, known)
    return f"; did you mean {near}?" if near else "."


def first_line(error: BaseException) -> str:
    """Return an error's first line without its final stop, to go into a sentence; without a text its type's name."""
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
