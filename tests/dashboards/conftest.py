"""Draw a figure and check its file."""

import pytest
from matplotlib.figure import Figure
from PIL import Image

from dashboards import figures, search_figures


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Call a figure function; get the figure, drawn, after its file was checked."""
    kept: list[Figure] = []
    save = figures.save
    for module in (figures, search_figures):
        monkeypatch.setattr(module, "save", lambda figure, path: kept.append(figure) or save(figure, path))

    def draw(function, *arguments, **more) -> Figure:
        path = tmp_path / "not there yet" / f"{len(kept)}.png"
        assert function(*arguments, path=path, **more) == path
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
            assert max(image.size) <= 2600
        assert [p for p in path.parent.iterdir() if p.name.startswith(".")] == []
        return kept[-1]

    return draw
