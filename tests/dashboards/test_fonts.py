"""Letters in pictures: another font's where one is installed, else a number or an escape; never a box or a warning."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from dashboards import fonts
from dashboards.contact_sheet import Cell, Row, Strip, contact_sheet
from dashboards.figures import confusion_figure, mistakes_figure
from dashboards.fonts import Writing, width
from dashboards.style import shorten

CHINESE = ("一次性快餐盒", "玻璃", "metal")


def font_with(letters: str, family: str, file: Path) -> None:
    """A font in which every letter is a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((50, 0))
    for corner in ((50, 800), (850, 800), (850, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"uni{ord(letter):04X}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"uni{ord(letter):04X}" for letter in letters})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Only Matplotlib's own fonts; returns a folder for more."""
    own = Path(font_manager.findfont("DejaVu Sans")).parent
    kept = [font for font in font_manager.fontManager.ttflist if Path(font.fname).is_relative_to(own)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", kept)
    _forget()
    yield tmp_path
    _forget()


def _forget() -> None:
    fonts._families.cache_clear()
    font_manager.fontManager._findfont_cached.cache_clear()


def add_font(folder: Path, letters: str, family: str) -> None:
    font_with(letters, family, folder / f"{family}.ttf")
    font_manager.fontManager.addfont(folder / f"{family}.ttf")
    _forget()


def test_latin_greek_and_cyrillic_need_no_other_font(installed: Path) -> None:
    write = Writing(["café", "Ελλάδα", "стекло"])
    assert write.families == ("DejaVu Sans",)
    assert write("стекло") == "стекло"
    assert write.note == ""


def test_a_class_that_no_font_can_write_is_numbered(installed: Path) -> None:
    write = Writing(["玻璃_1.jpg"], CHINESE)
    assert [write(name) for name in CHINESE] == ["class 0", "class 1", "metal"]
    assert write("60 % 玻璃") == "60 % class 1"
    assert write("其他.jpg") == "其他.jpg", "it was not asked for"
    assert "numbered from 0" in write.note
    assert "fonts-noto-cjk" in write.note
    assert Writing(["玻璃_1.jpg"])("玻璃_1.jpg") == "\\u73bb\\u7483_1.jpg"


def test_letters_come_from_as_few_fonts_as_have_them(installed: Path) -> None:
    add_font(installed, "玻璃", "Some Han")
    add_font(installed, "一次性快餐盒玻璃", "WenQuanYi Micro Hei")
    write = Writing(classes=CHINESE)
    assert write.families == ("DejaVu Sans", "WenQuanYi Micro Hei")
    assert [write(name) for name in CHINESE] == list(CHINESE)
    assert write.note == ""


def test_a_font_that_is_not_listed_is_found(installed: Path) -> None:
    add_font(installed, "玻璃", "Some Han")
    write = Writing(classes=CHINESE)
    assert write.families == ("DejaVu Sans", "Some Han")
    assert [write(name) for name in CHINESE] == ["class 0", "玻璃", "metal"]


def test_letters_that_nothing_draws_are_left_out() -> None:
    assert Writing(["a\u200db\x07c\n"])("a\u200db\x07c\n") == "abc "


def test_chinese_letters_are_two_columns_wide() -> None:
    assert (width("glass"), width("玻璃")) == (5, 4)
    assert shorten("玻璃", 4) == "玻璃"
    assert width(shorten("一次性快餐盒", 8)) <= 8


@pytest.mark.parametrize("letters", ["", "一次性快餐盒玻璃"])
def test_pictures_with_chinese_classes_ask_for_no_missing_letter(installed: Path, letters: str) -> None:
    if letters:
        add_font(installed, letters, "Some Han")
    photo = installed / "玻璃.png"
    Image.new("RGB", (20, 20), "red").save(photo)
    strips, cell = [Strip("view", ("squash",))], Cell(np.zeros((8, 8, 3), np.uint8), "60 % 玻璃\n40 % metal")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confusion_figure(np.array([0, 1, 2, 1]), np.array([0, 1, 2, 0]), CHINESE, installed / "confusion.png")
        names = ["玻璃", "metal"]
        mistakes_figure([photo] * 2, names, names[::-1], [0.9, 0.8], installed / "mistakes.png", classes=CHINESE)
        contact_sheet("T", "", strips, [Row("玻璃", photo.name, (cell,))], installed / "sheet.png", CHINESE)
    assert len(list(installed.glob("*.png"))) == 4
