"""Style shared by all figures."""

import pytest

from dashboards.style import shorten


@pytest.mark.parametrize(("text", "most", "short"), [("abc", 3, "abc"), ("abcdef", 5, "ab…ef"), ("abcdef", 4, "ab…f")])
def test_shorten_leaves_out_the_middle(text, most, short):
    assert shorten(text, most) == short
    assert len(short) <= most
