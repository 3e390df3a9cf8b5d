"""Letters that the default font lacks: another installed font's, or something readable in their place.

Matplotlib draws a box for a letter that no font of the text has, and warns on stderr.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

DEFAULT = "DejaVu Sans"
"""Comes with Matplotlib; Latin, Greek, Cyrillic, Arabic and symbols."""
PREFERRED = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB",
    "Heiti TC", "AR PL UMing CN", "AR PL UKai CN", "Noto Serif CJK SC", "Noto Serif CJK JP", "Arial Unicode MS",
    "FreeSans", "Unifont",
)  # fmt: skip
"""Tried before the other installed fonts, in this order."""
NEVER = ("Last Resort", "DejaVu", "STIX", "cm")
"""Beginnings of the names of fonts that hold boxes for everything, what ``DEFAULT`` has, or mathematics."""
PACKAGE = "fonts-noto-cjk"


class Writing:
    """How ``texts`` and the names of ``classes`` are written with this machine's fonts.

    ``families``: for ``font.family``, as few as have all the letters that can be had. A class whose name has a letter
    that no font has is written as "class N", N being its place in ``classes``; such letters elsewhere as ``\\u73bb``.
    """

    def __init__(self, texts: Iterable[str] = (), classes: Sequence[str] = ()) -> None:
        letters = {letter for text in (*texts, *classes) for letter in text if not _is_invisible(letter)}
        self.families, self._lacking = _families(frozenset(letters))
        self._numbers = {
            name: f"class {number}" for number, name in enumerate(classes) if not self._lacking.isdisjoint(name)
        }

    def __call__(self, text: str) -> str:
        for name in sorted(self._numbers, key=len, reverse=True):
            text = text.replace(name, self._numbers[name])
        visible = (" " if letter in "\n\t" else letter for letter in text if not _is_invisible(letter))
        return "".join(_escape(letter) if letter in self._lacking else letter for letter in visible)

    @property
    def note(self) -> str:
        """A sentence for a reader who misses the names, or ""."""
        if not self._lacking:
            return ""
        numbered = "; a class is numbered from 0 in the order of the names" if self._numbers else ""
        return (
            f" No font of this machine has some letters{numbered}. With one that has, such as {PACKAGE}, all are shown."
        )

    def style(self, base: dict[str, Any]) -> dict[str, Any]:
        """``base`` with these families, for ``matplotlib.rc_context``."""
        return {**base, "font.family": list(self.families)}


def width(text: str) -> int:
    """Columns that ``text`` takes, where a Latin letter takes one and a Chinese one two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _is_invisible(letter: str) -> bool:
    """Control and formatting characters, which no font draws."""
    return letter not in "\n\t" and unicodedata.category(letter) in ("Cc", "Cf")


def _escape(letter: str) -> str:
    return f"\\u{ord(letter):04x}"


@cache
def _families(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The default font and those that add letters to it; the letters that none has."""
    lacking = letters - {"\n", "\t"} - _letters_of(font_manager.findfont(DEFAULT))
    families = [DEFAULT]
    if lacking:
        for family in _candidates():
            found = lacking & _letters_of(font_manager.findfont(family))
            if found:
                families.append(family)
                lacking -= found
            if not lacking:
                break
    return tuple(families), frozenset(lacking)


def _candidates() -> list[str]:
    there = set(font_manager.get_font_names())
    others = sorted(name for name in there - set(PREFERRED) if not name.startswith(NEVER))
    return [*(name for name in PREFERRED if name in there), *others]


@cache
def _letters_of(file: str) -> frozenset[str]:
    return frozenset(map(chr, FT2Font(file).get_charmap()))
