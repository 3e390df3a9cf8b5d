"""The sheet of small pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dashboards.contact_sheet import Cell, Row, Strip, contact_sheet

RED, GREEN, BLUE = (200, 30, 40), (20, 180, 60), (30, 60, 210)


def plain(colour: tuple[int, int, int], side: int = 16) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


def share_of(picture: Image.Image, colour: tuple[int, int, int]) -> float:
    return float((np.abs(np.asarray(picture.convert("RGB")).astype(int) - colour).max(axis=-1) < 4).mean())


def test_every_cell_is_drawn_at_one_size_whatever_its_pixels(tmp_path: Path) -> None:
    strips = [Strip("view", ("squash", "centre_crop")), Strip("rand, multiplier 2", ("copy 1",))]
    row = Row("glass", "glass7.jpg", (Cell(plain(RED, 8)), Cell(plain(GREEN, 300)), Cell(plain(BLUE), "60 % glass")))
    path = contact_sheet("A title", "A note.", strips, [row, row], tmp_path / "new" / "sheet.png")
    with Image.open(path) as picture:
        shares = [share_of(picture, colour) for colour in (RED, GREEN, BLUE)]
    assert min(shares) > 0.03
    assert max(shares) < 1.05 * min(shares)
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]


def test_an_empty_cell_stays_white(tmp_path: Path) -> None:
    strips = [Strip("a", ("", ""))]
    full = contact_sheet("T", "", strips, [Row("x", "", (Cell(plain(RED)), Cell(plain(RED))))], tmp_path / "full.png")
    gap = contact_sheet("T", "", strips, [Row("x", "", (Cell(plain(RED)), None))], tmp_path / "gap.png")
    with Image.open(full) as one, Image.open(gap) as other:
        assert one.size == other.size
        assert share_of(other, RED) == pytest.approx(share_of(one, RED) / 2, rel=0.03)


def test_few_columns_stand_in_several_blocks_side_by_side(tmp_path: Path) -> None:
    rows = [Row(f"class {i}", "", (Cell(plain(RED)),)) for i in range(30)]
    with Image.open(contact_sheet("T", "", [Strip("view", ("squash",))], rows, tmp_path / "few.png")) as picture:
        assert picture.width > picture.height


@pytest.mark.filterwarnings("error:Glyph")
def test_many_columns_and_rows_in_chinese_and_math(tmp_path: Path) -> None:
    strips = [Strip(f"recipe {i}, multiplier 5", tuple(f"copy {k}" for k in range(5))) for i in range(6)]
    cells = tuple(Cell(plain(GREEN, 24)) if i % 7 else None for i in range(30))
    rows = [Row(name, "photo $x^2$.jpg", cells) for name in ("一次性快餐盒", "a" * 80, "b_c")]
    with Image.open(contact_sheet("T", "A note. " * 60, strips, rows, tmp_path / "many.png")) as picture:
        assert picture.width > 3000


def test_a_row_needs_a_cell_for_each_column(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs 2 cells.*in short"):
        contact_sheet("T", "", [Strip("a", ("1", "2"))], [Row("short", "", (None,))], tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
