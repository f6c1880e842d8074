"""The benchmark's report as JSON, as plots and as a page."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eftlocal.bench.page import page
from eftlocal.bench.plot import plot
from eftlocal.bench.report import Bars, Chart, Column, Report, Series, Table

SIZES = (1.0, 2.0, 4.0, 8.0, 16.0)
HEIGHTS = st.floats(0.001, 1e4)
CHARTS = st.lists(st.lists(HEIGHTS, min_size=5, max_size=5), min_size=1, max_size=9)


def chart(rows: list[list[float]], level: float | None = 1.0) -> Chart:
    """A chart with one line per row."""
    series = [
        Series(f"line {i}", tuple(zip(SIZES, row, strict=True))) for i, row in enumerate(rows)
    ]
    return Chart("Cost <of> blocks", "M", "t(M)", tuple(series), level)


def drawn(one: Chart) -> ElementTree.Element:
    """The chart's SVG, which must be well-formed."""
    return ElementTree.fromstring(plot(one))


@given(rows=CHARTS)
def test_points_lie_in_the_plot_in_the_order_of_their_numbers(rows: list[list[float]]) -> None:
    """Further right and further up is more, for all lines alike, and nothing is cut off."""
    svg = drawn(chart(rows))
    lines = [line.get("points", "").split() for line in svg.iter("polyline")]
    assert len(lines) == len(rows)
    height = float(svg.get("height", 0))
    seen = []
    for line, row in zip(lines, rows, strict=True):
        places = [tuple(map(float, point.split(","))) for point in line]
        xs = [x for x, _ in places]
        assert xs == sorted(set(xs))
        seen += [(number, y) for number, (_, y) in zip(row, places, strict=True)]
    seen.sort()
    assert all(low[1] >= high[1] for low, high in pairwise(seen))
    assert all(0 <= y <= height for _, y in seen)


@given(rows=CHARTS)
@example(rows=[[0.001] * 5] * 9)
def test_names_of_lines_do_not_overlap(rows: list[list[float]]) -> None:
    """Every line has its name at its end, however close the ends are."""
    svg = drawn(chart(rows))
    texts = [t for t in svg.iter("text") if "series" in t.get("class", "")]
    assert {t.text for t in texts} == {f"line {i}" for i in range(len(rows))}
    heights = sorted(float(t.get("y", 0)) for t in texts)
    assert all(b - a > 12 for a, b in pairwise(heights))
    assert heights[0] > 0 and heights[-1] < float(svg.get("height", 0))


def test_points_say_their_numbers() -> None:
    """Without scripts a point's title tells what it is."""
    titles = [t.text for t in drawn(chart([[1, 1.5, 2, 3, 7.25]])).iter("title")]
    assert titles[-1] == "line 0, M 16: 7.25"
    assert len(titles) == 5


def test_a_level_is_drawn_at_its_height() -> None:
    """The dashed line lies where a point of the same number would."""
    svg = drawn(chart([[1, 2, 3, 4, 5]], level=2))
    (level,) = (line for line in svg.iter("line") if line.get("class") == "level")
    point = next(svg.iter("polyline")).get("points", "").split()[1]
    assert float(level.get("y1", 0)) == float(point.split(",")[1])


@given(
    values=st.lists(st.floats(1, 100), min_size=1, max_size=12),
    level=st.none() | st.floats(1, 100),
)
def test_bars_are_as_long_as_their_numbers(values: list[float], level: float | None) -> None:
    """Lengths are proportional, the level has the length of its number, and all lie inside."""
    named = tuple((f"bar <{i}>", value) for i, value in enumerate(values))
    svg = ElementTree.fromstring(plot(Bars("Rates", "tokens/s", named, level)))
    bars = list(svg.iter("rect"))
    start = float(bars[0].get("x", 0))
    lengths = [float(bar.get("width", 0)) for bar in bars]
    levels = [line for line in svg.iter("line") if line.get("class") == "level"]
    lengths += [float(line.get("x1", 0)) - start for line in levels]
    numbers = [*values, *([] if level is None else [level])]
    longest = max(lengths)
    assert lengths == pytest.approx([longest * n / max(numbers) for n in numbers], abs=0.2)
    assert start + longest <= float(svg.get("width", 0))
    assert next(title.text for title in svg.iter("title")) == f"bar <0>: {values[0]:,.4g}"


TABLE = Table(
    "Rates & costs",
    (Column("name", "who"), Column("rate", "tokens/s", 1), Column("share", "share", 2)),
    (("<base>", 1234.56, None), ("tuned", 1.0, 0.5)),
    ("A note <here>.",),
    chart([[1, 2, 3, 4, 5]]),
)
REPORT = Report({"model": "<b>odd</b>"}, {"rates": (TABLE,)})


def test_json_has_an_object_per_row() -> None:
    """Numbers keep their digits; what is missing is null."""
    (table,) = REPORT.to_json()["sections"]["rates"]
    assert table["rows"] == [
        {"name": "<base>", "rate": 1234.56, "share": None},
        {"name": "tuned", "rate": 1.0, "share": 0.5},
    ]


def test_the_page_shows_everything_and_loads_nothing() -> None:
    """Cells, notes and plots are there, names are escaped, and no address is named."""
    text = page(REPORT)
    for shown in ("&lt;b&gt;odd", "Rates &amp; costs", "&lt;base&gt;", "1,234.6", "A note &lt;"):
        assert shown in text
    assert '<td class="number">-</td>' in text
    assert "<b>" not in text and "<script" not in text and "http:" not in text
    body = text[text.index("<body>") : text.index("</html>")]
    root = ElementTree.fromstring(body)
    assert len(list(root.iter("svg"))) == 1
    assert not re.search(r"\$[a-z]", body)


@pytest.mark.parametrize(("index", "expected"), [(0, False), (1, True), (2, True)])
def test_columns_of_numbers_are_known(index: int, expected: bool) -> None:
    """A missing number does not make a column one of texts."""
    assert TABLE.is_number(index) is expected
