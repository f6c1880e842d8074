"""The page of an evaluation: everything is on it, in any light, the same every time."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eftlocal.evaluate.page.labels import Box, Surroundings, place
from eftlocal.evaluate.report import (
    Claim,
    Excerpt,
    Figure,
    Line,
    Point,
    Report,
    Section,
)
from eftlocal.tables import Column, Estimate, Table

pytest.importorskip("matplotlib")

from eftlocal.evaluate.page import page
from eftlocal.evaluate.page.plots import COLOURS, draw
from eftlocal.evaluate.page.points import categories, number

HOSTILE = '</td><script>alert("1")</script>\'"><img src=x onerror=alert(2)>&amp;$x^2$ \x1b[31m\x00'
NAN = float("nan")


def near(value: float) -> Estimate:
    """A number with an interval around it."""
    return Estimate(value, value - 0.0312, value + 0.0431)


def bars() -> Figure:
    """Two measures of three named systems."""
    names = ("small & polite", "up-scaled, alpha 1", HOSTILE)
    lines = [
        Line(name, tuple(Point(i, near(0.1 * i + 0.7), names[i]) for i in range(3)), "bars")
        for name in ("factuality", "manners")
    ]
    return Figure("Gap closed", "system", "PGR", (*lines, Line("1", (Point(0, 1.0),), "level")))


def frontier() -> Figure:
    """Points close to each other, with intervals both ways and labels."""
    lines = [
        Line(
            name,
            tuple(
                Point(near(1 - i * i / 64), near(high - 0.3 / (i + 1)), f"{i / 8:g}")
                for i in range(9)
            ),
        )
        for name, high in (("small", 0.6), ("up-scaled", 0.9))
    ]
    return Figure("Frontier", "refused", "answered", tuple(lines), "Labels are lambda.")


def alphas() -> Figure:
    """Lines with bands, and levels with bands in their colours."""
    lines: list[Line] = []
    for name, height in (("factuality", 0.5), ("manners", 0.8)):
        points = tuple(Point(0.25 * i, near(height - 0.01 * i * i)) for i in range(9))
        level = Line(f"{name}, dynamic", (Point(0.0, near(height)),), "level")
        lines += [Line(name, points), level]
    return Figure("By alpha", "alpha", "share", tuple(lines))


def histogram() -> Figure:
    """Counts over four decades, one of them 0."""
    counts = (31234.0, 512.0, 40.0, 0.0, 3.0)
    points = tuple(Point(0.1 + 0.2 * i, count) for i, count in enumerate(counts))
    return Figure("Variation", "total variation", "tokens", (Line("", points, "bars"),), log_y=True)


FIGURES = (bars, frontier, alphas, histogram)


def report() -> Report:
    """Everything that a report can hold, with hostile texts wherever there are texts."""
    table = Table(
        f"Table {HOSTILE}",
        (Column("a", HOSTILE), Column("b", "kl", 4), Column("c", "tokens/s", 1, is_time=True)),
        ((HOSTILE, near(0.1234), 71.5), ("Q4_0", Estimate(NAN, NAN, NAN), 72.5)),
        (HOSTILE,),
    )
    claims = tuple(Claim(f"{HOSTILE} {h}", h, f"found {h}", HOSTILE) for h in (True, False, None))
    excerpt = Excerpt(HOSTILE, (("fine ", 0.0, ""), (HOSTILE, 0.9, HOSTILE), ("end", 0.3, "0.3")))
    sections = tuple(
        Section(
            name, f"{name} {HOSTILE}", (HOSTILE,), f"eftlocal eval {name} {HOSTILE}",
            {HOSTILE: HOSTILE}, claims, (table,), tuple(make() for make in FIGURES), (excerpt,),
        )
        for name in ("scale", "alpha")
    )  # fmt: skip
    return Report({"version": HOSTILE}, {"scale": "12.75 s"}, sections)


class Elements(HTMLParser):
    """Tags, attributes and texts of a page; fails where end tags do not match."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element without content, as SVG has them."""
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """The element that was opened last ends first."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.texts.append(data)


@pytest.fixture(scope="module")
def made() -> str:
    """The page of the report."""
    return page(report())


def test_a_page_is_well_formed_and_hostile_texts_are_only_texts(made: str) -> None:
    """No text becomes markup, none runs, nothing is loaded, no id is there twice."""
    elements = Elements(made)
    names = {tag for tag, _ in elements.found}
    assert not names & {"script", "img", "link", "iframe", "object"}
    attributes = [entry for _, own in elements.found for entry in own.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name == "src"]
    links = [value or "" for name, value in attributes if name.endswith("href")]
    ids = [value or "" for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert links and all(link[0] == "#" and link[1:] in ids for link in links)
    referred = re.findall(r"url\(#([^)]*)\)", made)
    assert referred and set(referred) <= set(ids)
    assert "\x1b" not in made and "\x00" not in made
    assert not re.search(r"https?:|@import|url\((?!#)", made)
    body = made[made.index("<body>") : made.index("</html>")]
    assert len(list(ElementTree.fromstring(body).iter("svg"))) == 2 * len(FIGURES)
    assert "".join(elements.texts).count("<script>alert") > 20


def test_everything_of_the_report_is_on_the_page(made: str) -> None:
    """Every claim in the summary and in its section, every number, and every label."""
    text = "".join(Elements(made).texts)
    for words in ("holds: 2", "does not hold here: 2", "not decided: 2", "eftlocal eval alpha"):
        assert words in text
    assert text.count("found False") == 2 * 2
    assert "0.1234 [0.0922, 0.1665]" in text and "12.75 s" in text
    for figure in (make() for make in FIGURES):
        for point in (p for line in figure.lines for p in line.points):
            if not (figure.log_y and point.y == 0):
                assert number(point.y) in text
            if isinstance(point.x, Estimate):
                assert number(point.x) in text
        for name in (figure.title, figure.x, figure.y, *(line.name for line in figure.lines)):
            assert name in text


def test_only_cells_of_times_hold_times(made: str) -> None:
    """What is marked as measured by the clock can be taken away; nothing of it is left."""
    left = re.sub(r'<td class="[^"]*\btime\b[^"]*">[^<]*</td>', "", made)
    left = re.sub(r'<table class="facts times">.*?</table>', "", left, flags=re.DOTALL)
    assert "71.5" in made and "12.75" in made
    assert "71.5" not in left and "12.75" not in left


def test_all_colours_follow_the_page(made: str) -> None:
    """A drawing holds no colour of its own, and the page defines each for light and for dark."""
    drawings = "".join(re.findall(r"<svg.*?</svg>", made, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b|rgb\(|\bblack\b|\bwhite\b", drawings)
    style = made[: made.index("</style>")]
    light, dark = style.split("@media (prefers-color-scheme: dark)")[:2]
    for name in {re.sub(r"var\((.*)\)", r"\1", value) for value in COLOURS.values()}:
        assert f"{name}:" in light and f"{name}:" in dark
    used = set(re.findall(r"var\((--[a-z0-9]+)", made))
    assert {name for name in used if name != "--v"} <= set(re.findall(r"(--[a-z0-9]+):", light))


def test_another_process_writes_the_same_bytes(made: str) -> None:
    """Neither the clock, nor hashing, nor the user's matplotlib settings change a page."""
    program = (
        "import sys, matplotlib; matplotlib.rcParams.update({'font.size': 30, 'text.usetex': True,"
        "'lines.marker': 'x', 'svg.fonttype': 'path'});"
        "from tests.test_evaluate_page import page, report;"
        "sys.stdout.reconfigure(encoding='utf-8', newline=''); sys.stdout.write(page(report()))"
    )
    made_there = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=False
    )
    assert made_there.stdout.decode("utf-8") == made


def shapes(svg: str, name: str) -> list[str]:
    """The paths of the groups whose title begins with a name."""
    groups = [g for g in ElementTree.fromstring(svg).iter("g") if g.find("title") is not None]
    chosen = [g for g in groups if (g.findtext("title") or "").startswith(name)]
    return [path.get("d", "") for group in chosen for path in group.iter("path")]


def test_bars_are_as_long_as_their_numbers() -> None:
    """Drawn from one start; a number twice as large is a bar twice as long."""
    points = tuple(Point(i, value, f"row {i}") for i, value in enumerate((1.0, 2.0, 4.0)))
    paths = shapes(draw(Figure("F", "x", "PGR", (Line("a", points, "bars"),)), "k"), "a")
    spans = [[float(x) for x in re.findall(r"[ML] ([\d.]+)", path)] for path in paths]
    lengths = [max(span) - min(span) for span in spans]
    assert lengths == pytest.approx([lengths[0] * n for n in (1, 2, 4)], rel=1e-3)
    assert len({min(span) for span in spans}) == 1


def test_labels_name_places_or_points() -> None:
    """Names that belong to places of x go to the axis; others stand at their points."""
    assert categories(bars()) == [p.label for p in bars().lines[0].points]
    assert categories(frontier()) == [] and categories(alphas()) == []
    texts = [t.text for t in ElementTree.fromstring(draw(bars(), "k")).iter("text")]
    assert texts.count("small & polite") == 1
    assert any("$x^2$" in (text or "") for text in texts), "texts are no formulas"
    texts = [t.text for t in ElementTree.fromstring(draw(frontier(), "k")).iter("text")]
    assert texts.count("0.125") == 2


def test_a_label_for_points_above_each_other_is_written_once() -> None:
    """Points of several lines at about one x share it; further away it is written again."""
    near_by = [Line(f"{i}", (Point(4.5 + i / 100, 1.0 + i, "Q4_0"),)) for i in range(4)]
    far = Line("far", (Point(16.0, 1.0, "Q4_0"), Point(8.5, 1.0, "Q8_0")))
    svg = ElementTree.fromstring(draw(Figure("F", "bits", "KL", (*near_by, far)), "k"))
    texts = [t.text for t in svg.iter("text")]
    assert (texts.count("Q4_0"), texts.count("Q8_0")) == (2, 1)
    titles = [t.text or "" for t in svg.iter("title")]
    assert sum("Q4_0" in title for title in titles) == 5


def test_numbers_that_are_not_defined_are_left_out() -> None:
    """A figure of nothing is still a figure."""
    nothing = (Point(0.0, Estimate(NAN, NAN, NAN)), Point(NAN, 1.0))
    for style in ("line", "points", "bars", "level"):
        line = Line("one", nothing, style)
        for log_y in (False, True):
            svg = draw(Figure("F", "x", "y", (line, Line("two", ())), log_y=log_y), "k")
            assert ElementTree.fromstring(svg).tag == "svg"


@given(
    places=st.lists(st.tuples(st.floats(0, 400), st.floats(0, 200)), min_size=1, max_size=14),
    same=st.booleans(),
)
def test_labels_do_not_overlap(places: list[tuple[float, float]], same: bool) -> None:
    """Even where all points are one, every label has a place of its own."""
    anchors = [places[0]] * len(places) if same else places
    frame = Box(0, 0, 400, 200)
    boxes = place(anchors, [(30.0, 12.0)] * len(anchors), Surroundings(frame, anchors, ()))
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_a_missing_package_is_named() -> None:
    """Without matplotlib the page says what to install, before anything is computed."""
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from eftlocal.errors import UsageError\n"
        "from eftlocal.evaluate.page import check_packages\n"
        "try: check_packages()\n"
        "except UsageError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert b"needs more packages: pip install 'eftlocal[eval]'" in out.stdout
