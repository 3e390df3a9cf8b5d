"""The visible texts of a figure, and whether they are legible."""

import itertools

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text


def texts(figure: Figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def all_text(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in texts(figure))


def ticks_out_of_view(axes: Axes) -> list[Text]:
    """Labels of ticks beyond the limits, or of axes switched off: matplotlib keeps them and does not draw them."""
    found = []
    for labels, limits, place in (
        (axes.get_xticklabels(), axes.get_xlim(), 0),
        (axes.get_yticklabels(), axes.get_ylim(), 1),
    ):
        found += [t for t in labels if not axes.axison or not min(limits) <= t.get_position()[place] <= max(limits)]
    return found


def assert_legible(figure: Figure) -> int:
    """No text overlaps another or leaves the page; returns how many were looked at."""
    page, boxes = figure.bbox, []
    unseen = {id(label) for axes in figure.axes for label in ticks_out_of_view(axes)}
    for text in texts(figure):
        box = text.get_window_extent()
        if id(text) in unseen or text.get_rotation() not in (0, 90):
            continue  # a tilted label's box is not its ink
        assert box.x0 >= page.x0 - 1, f"{text.get_text()!r} leaves the page at the left"
        assert box.x1 <= page.x1 + 1, f"{text.get_text()!r} leaves the page at the right"
        assert box.y0 >= page.y0 - 1, f"{text.get_text()!r} leaves the page at the bottom"
        assert box.y1 <= page.y1 + 1, f"{text.get_text()!r} leaves the page at the top"
        boxes.append((text.get_text(), box))
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        over = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(over) <= 2, f"{one!r} lies over {other!r}"
    return len(boxes)
