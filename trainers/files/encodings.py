"""Text whose encoding nobody wrote down: file names in archives and tables that are not UTF-8.

A guess by consistency: an encoding must decode every text, and its share of plausible characters decides. Two
legacy encodings of one region can be equally plausible, so a caller says which encoding it assumed.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Callable, Sequence

from trainers.errors import TrainerError

FEWEST_PLAUSIBLE = 0.6
"""Minimum share of plausible characters for a guess."""
MOST_GUESSED = 5_000
"""Maximum texts of which the characters are looked at."""
KOREAN_LETTERS = 8
"""Minimum letters by which a text that could be Chinese as well is Korean: 2 % of Chinese ones are such."""
LONGEST_RUN = 2
"""Maximum accented letters in a row in a plausible Latin text; longer runs are another script."""
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks; UTF-32's begins with that of UTF-16."""


def check_encoding(name: str) -> str:
    """Return ``name`` if Python has a text encoding of that name. Raises TrainerError."""
    try:
        "".encode(codecs.lookup(name).name)
    except (LookupError, ValueError) as error:
        raise TrainerError(
            f"there is no text encoding {name!r}; name one such as utf-8, gb18030, shift_jis, cp949 or cp1252."
        ) from error
    return name


def decode_text(data: bytes, encoding: str = "") -> tuple[str, str]:
    """Decode the bytes of a text file; return the text without its byte order mark, and the encoding.

    ``encoding``: of a text that is neither UTF-8 nor marked; "" guesses, with cp1252 where nothing is plausible. Raises
    TrainerError if ``encoding`` does not fit.
    """
    marked = next((name for mark, name in BOMS if data.startswith(mark)), "") or _unmarked_utf16(data)
    if not marked and is_utf8(data):
        marked = "utf-8"
    name = marked or encoding or guess_encoding(data.splitlines(), "cp1252")
    try:
        return data.decode(name, errors="strict" if marked or encoding else "replace"), name
    except UnicodeDecodeError as error:
        raise TrainerError(f"it is not {name}: {error.reason} at byte {error.start:,}") from error


def is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def guess_encoding(texts: Sequence[bytes], default: str) -> str:
    """Return the encoding of ``texts``: utf-8 if all are, else the most plausible one, else ``default``."""
    odd = [text for text in dict.fromkeys(texts) if not text.isascii()]
    if all(map(is_utf8, odd)):
        return "utf-8"
    scores = {name: _plausible(odd, name, is_common) for name, is_common in _CANDIDATES.items()}
    best = max(scores, key=lambda name: scores[name])  # the first of equals
    if scores[best] < FEWEST_PLAUSIBLE:
        return default
    # Korean syllables have the codes of the first 5/8 of the common Chinese characters: a longer text of these alone
    # is Korean.
    as_korean = best == "gb18030" and scores["cp949"] == scores[best]
    letters = sum(not letter.isascii() for text in odd for letter in text.decode(best)) if as_korean else 0
    return "cp949" if letters >= KOREAN_LETTERS else best


def _unmarked_utf16(data: bytes) -> str:
    """The byte order of a UTF-16 text without a mark, of which every second byte is mostly 0; "" for other texts."""
    head = data[:1000]
    if len(head) < 4 or len(data) % 2:
        return ""
    zeros = head[0::2].count(0), head[1::2].count(0)
    if max(zeros) < 0.4 * len(head) / 2 or min(zeros) > 0.1 * max(zeros):
        return ""
    return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"


def _plausible(texts: Sequence[bytes], encoding: str, is_common: Callable[[str, int, str], bool]) -> float:
    """The share of the non-ASCII characters of ``texts`` that are common; 0 if a text cannot be decoded."""
    common = total = 0
    for number, data in enumerate(texts):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            return 0.0
        if number >= MOST_GUESSED:
            continue
        places = [i for i, letter in enumerate(text) if not letter.isascii()]
        total += len(places)
        common += sum(is_common(text, i, encoding) for i in places)
    return common / total if total else 0.0


def _double_byte(low: int, high: int, trail: int = 0x40) -> Callable[[str, int, str], bool]:
    """Whether a character's first byte is in the range of common ones, and its second at least ``trail``."""

    def is_common(text: str, i: int, encoding: str) -> bool:
        data = text[i].encode(encoding)
        return len(data) == 2 and low <= data[0] <= high and data[1] >= trail

    return is_common


def _japanese(text: str, i: int, encoding: str) -> bool:
    return "぀" <= text[i] <= "ヿ" or _double_byte(0x88, 0x97)(text, i, encoding)


def _latin(text: str, i: int, encoding: str) -> bool:
    """A Latin letter in a short run of accented ones, in lower case where the letter before it is."""
    start = end = i
    while start > 0 and not text[start - 1].isascii():
        start -= 1
    while end + 1 < len(text) and not text[end + 1].isascii():
        end += 1
    raised = i > 0 and text[i - 1].islower() and text[i].isupper()
    return _is_of(text[i], "LATIN") and end - start < LONGEST_RUN and not raised


def _cyrillic(text: str, i: int, encoding: str) -> bool:
    """A Cyrillic letter that touches no Latin one, in lower case where the letter before it is."""
    near = text[max(i - 1, 0) : i + 2]
    raised = i > 0 and text[i - 1].islower() and text[i].isupper()
    return _is_of(text[i], "CYRILLIC") and not raised and not any(c.isascii() and c.isalpha() for c in near)


def _is_of(letter: str, script: str) -> bool:
    return letter.isalpha() and unicodedata.name(letter, "").startswith(script)


_CANDIDATES: dict[str, Callable[[str, int, str], bool]] = {
    "gb18030": _double_byte(0xB0, 0xD7, 0xA1),  # level 1 of GB 2312: 3,755 common characters
    "cp932": _japanese,  # kana, and level 1 of JIS X 0208
    "cp949": _double_byte(0xB0, 0xC8, 0xA1),  # the syllables of KS X 1001
    "big5": _double_byte(0xA4, 0xC6),  # level 1
    "cp1252": _latin,
    "cp1251": _cyrillic,
    "cp866": _cyrillic,
    "cp437": _latin,
}
"""Legacy encoding -> whether the character at a place of a text is common in it; the first of equals is guessed."""
