"""Find fallback fonts for characters that the default font lacks, or substitute readable text.

Matplotlib draws a box for a character that none of the text's fonts has, and warns on stderr.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

DEFAULT = "DejaVu Sans"
"""Matplotlib's bundled font: Latin, Greek, Cyrillic, Arabic and symbols."""
PREFERRED = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB",
    "Heiti TC", "AR PL UMing CN", "AR PL UKai CN", "Noto Serif CJK SC", "Noto Serif CJK JP", "Arial Unicode MS",
    "FreeSans", "Unifont",
)  # fmt: skip
"""Fonts to try before the other installed ones, in this order."""
EXCLUDED_PREFIXES = ("Last Resort", "DejaVu", "STIX", "cm")
"""Name prefixes of fonts never used: boxes only, no more than ``DEFAULT``, or mathematics."""
PACKAGE = "fonts-noto-cjk"
"""A system package with a suitable font, suggested in the note."""


class Writing:
    """Render ``texts`` and the names of ``classes`` with this machine's fonts.

    ``families``: for ``font.family``, only those needed. A class whose name has a character that no font has becomes
    "class N", N being its index in ``classes``; elsewhere such a character becomes ``\\u73bb``.
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
        """Sentence that explains substituted characters; "" if there are none."""
        if not self._lacking:
            return ""
        numbered = "; classes are numbered from 0 in the order of the names" if self._numbers else ""
        return (
            f" No font on this machine has some of the characters{numbered}. Install one that does, such as {PACKAGE}."
        )

    def style(self, base: dict[str, Any]) -> dict[str, Any]:
        """Return ``base`` with these families, for ``matplotlib.rc_context``."""
        return {**base, "font.family": list(self.families)}


def width(text: str) -> int:
    """Return the columns that ``text`` takes: one per Latin letter, two per wide (Chinese) character."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _is_invisible(letter: str) -> bool:
    """Return whether ``letter`` is a control or formatting character, which no font draws."""
    return letter not in "\n\t" and unicodedata.category(letter) in ("Cc", "Cf")


def _escape(letter: str) -> str:
    return f"\\u{ord(letter):04x}"


@cache
def _families(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the default font and those that add letters to it, and the letters that no font has."""
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
    installed = set(font_manager.get_font_names())
    others = sorted(name for name in installed - set(PREFERRED) if not name.startswith(EXCLUDED_PREFIXES))
    return [*(name for name in PREFERRED if name in installed), *others]


@cache
def _letters_of(file: str) -> frozenset[str]:
    return frozenset(map(chr, FT2Font(file).get_charmap()))
