"""Parts of sentences: numbers with nouns or units, the nearest known word. Standard library alone."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.6
"""Minimum likeness of a word to a known one, of 1, that is worth a question."""
GB = 10**9
"""Bytes of a gigabyte; decimal, as ORCH_CACHE_GB."""


def count(number: int, noun: str) -> str:
    """Join a number and its noun: "1 image", "2,527 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def nearest(word: str, known: Iterable[str], cutoff: float = CUTOFF) -> str | None:
    """Find the known word that resembles ``word`` most, whatever its case; None if none reaches ``cutoff`` of 1.

    Where none does, the only one of which ``word`` is an abbreviation: ``val`` of validation, ``lr`` of learning_rate.
    """
    words = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), words, n=1, cutoff=cutoff)
    if not near and cutoff <= CUTOFF:
        near = [each for each in words if _abbreviates(word.lower(), each)]
    return words[near[0]] if len(near) == 1 else None


def _abbreviates(short: str, word: str) -> bool:
    """Whether ``short``, of two letters or more, is the beginning of ``word`` or the initials of its parts."""
    initials = "".join(part[0] for part in word.split("_") if part)
    return len(short) >= 2 and (short == initials or (len(short) >= 3 and word.startswith(short)))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """End a clause: ``; did you mean NEAREST?`` if a known word resembles ``word``, else a full stop."""
    near = nearest(word, known)
    return f"; did you mean {near}?" if near else "."


def first_line(error: BaseException) -> str:
    """Return an error's first line without its final stop, to go into a sentence; without a text its type's name."""
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
