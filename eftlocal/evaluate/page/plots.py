"""Figures as SVG for a page: texts stay texts, colours are the page's, the same bytes every time.

matplotlib draws with placeholder colours; afterwards they become CSS variables, so that one
drawing serves light and dark. Its fonts only serve to measure texts: the page's are used.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from ...tables import Estimate
from ..report import Figure, Line, Point
from .labels import Box, Place, Segment, Surroundings, place
from .points import categories, ends, middle, number, plain, reaches
from .svg import inline

COLOURS = {f"#0000{16 + i:02x}": f"var(--e{i})" for i in range(6)} | {
    "#000001": "var(--text)",
    "#000002": "var(--soft)",
    "#000003": "var(--line)",
    "#000004": "var(--page)",
}
"""What is drawn with -> what the page knows it as."""
_SERIES = list(COLOURS)[:6]
_TEXT, _SOFT, _LINE, _PAGE = list(COLOURS)[6:]
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_DPI = 72
"""Of SVG: a point is a pixel of the page."""
_WIDTH, _HEIGHT = 680.0, 330.0
_ROW, _LEGEND_ROW, _LETTER = 15.0, 18.0, 6.6
_BAND, _BAR = 0.16, 0.65
"""Opacity of bands, and of bars, on which intervals must be seen."""
_ABOVE = 40
"""Pixels to the side within which points count as above each other."""
_MANY = 40
"""Points of a line from which on its marks are small."""
_SETTINGS = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.parse_math": False,
    "text.color": _TEXT,
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": _TEXT,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _LINE,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
    "legend.frameon": False,
    "figure.dpi": _DPI,
}


def draw(figure: Figure, key: str) -> str:
    """The figure as one SVG element; every point has a title that tells its numbers.

    Args:
        figure: points whose numbers are not finite are left out.
        key: begins all ids; letters and digits, another one for every figure of a page.
    """
    with _settings(key):
        drawing = _Drawing(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawing.canvas.savefig(buffer, format="svg", metadata=nothing, facecolor="none")
    label = plain(f"{figure.title}: {figure.y} by {figure.x}")
    return inline(buffer.getvalue(), key, label, drawing.titles, COLOURS)


@contextmanager
def _settings(key: str) -> Iterator[None]:
    """The defaults of matplotlib, then ours, whatever the user's settings are."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The page has fonts for what those that measure here lack.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_SETTINGS, "svg.hashsalt": key})
        yield


class _Drawing:
    """One figure on a canvas; where labels name places, these are rows and values go right."""

    def __init__(self, figure: Figure) -> None:
        self.titles: dict[str, str] = {}
        self._figure = figure
        self._names = categories(figure)
        self._series = [line for line in figure.lines if line.style != "level"]
        self._bars = [line for line in self._series if line.style == "bars"]
        self._labels: list[tuple[Place, str, str]] = []
        self._segments: list[Segment] = []
        legend = self._legend_columns()
        height = _LEGEND_ROW * math.ceil(len(figure.lines) / legend) if legend else 0.0
        rows = max(len(self._series) * _ROW, 22.0) * len(self._names)
        height += 60 + rows if self._names else _HEIGHT
        size = (_WIDTH / _DPI, height / _DPI)
        self.canvas = Canvas(figsize=size, layout="constrained")
        self.axes: Any = self.canvas.add_subplot()
        self._set_axes()
        handles = []
        for line in figure.lines:
            colour = self._colour(line)
            draw_one = {"level": self._level, "bars": self._bar}.get(line.style, self._line)
            handles.append(draw_one(line, colour))
        if self._bars and figure.log_y:
            self._start_at_a_decade()
        if legend:
            names = [plain(line.name) for line in figure.lines]
            self.canvas.legend(
                handles, names, loc="outside lower left", ncols=legend, handlelength=2.4
            )
        self._place_labels()

    def _legend_columns(self) -> int:
        """How many names stand beside each other; 0 where one line needs no name."""
        names = [line.name for line in self._figure.lines]
        if len(names) < 2:
            return 0
        longest = max(map(len, names))
        return max(1, min(len(names), int(_WIDTH // (longest * _LETTER + 52))))

    def _set_axes(self) -> None:
        axes, figure = self.axes, self._figure
        axes.tick_params(which="both", length=0)
        # Room for labels and for the marks of the lowest and highest numbers.
        axes.margins(0.07)
        if figure.log_y:
            (axes.set_xscale if self._names else axes.set_yscale)("log")
            values = axes.xaxis if self._names else axes.yaxis
            values.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
            values.set_minor_formatter(NullFormatter())
        axes.grid(visible=False, axis="y" if self._names else "x")
        if self._names:
            axes.set_yticks(range(len(self._names)), [plain(name) for name in self._names])
            axes.tick_params(axis="y", labelcolor=_TEXT)
            axes.set_ylim(len(self._names) - 0.5, -0.5)
            axes.set_xlabel(plain(figure.y))
        else:
            axes.set_xlabel(plain(figure.x))
            axes.set_ylabel(plain(figure.y))

    def _colour(self, line: Line) -> str:
        """Of a line by its place; a level has that of the line whose name begins its own."""
        for i, other in enumerate(self._series):
            own = line is other
            if own or (line.style == "level" and line.name.startswith(f"{other.name},")):
                return _SERIES[i % len(_SERIES)]
        return _SOFT

    def _shown(self, line: Line) -> list[Point]:
        """The points that can be drawn."""
        finite = [p for p in line.points if math.isfinite(middle(p.x) + middle(p.y))]
        return [p for p in finite if not self._figure.log_y or middle(p.y) > 0]

    def _turned(self, x: Any, y: Any) -> tuple[Any, Any]:
        return (y, x) if self._names else (x, y)

    def _beside(self, line: Line) -> tuple[float, float]:
        """How far a line's points stand from their x, and the room that each has."""
        among = self._bars if line.style == "bars" and not self._names else self._series
        if not self._names and line.style != "bars":
            return 0.0, 0.0
        gap = 1.0
        if not self._names:
            xs = sorted({middle(p.x) for bars in self._bars for p in bars.points})
            gap = min((b - a for a, b in pairwise(xs)), default=1.0)
        room = gap * 0.8 / len(among)
        place = [other is line for other in among].index(True)
        return (place - (len(among) - 1) / 2) * room, room

    def _name(self, artist: Any, line: Line, point: Point, level: bool = False) -> None:
        """Give what is drawn a title."""
        key = f"title{len(self.titles)}"
        artist.set_gid(key)
        parts = [line.name, point.label]
        parts += [] if self._names or level else [f"{self._figure.x} {number(point.x)}"]
        parts.append(f"{self._figure.y} {number(point.y)}")
        self.titles[key] = plain(", ".join(part for part in parts if part))

    def _intervals(self, points: Sequence[Point], xs: Sequence[float], colour: str) -> None:
        """Bars of errors, in x and y."""
        ys = [middle(p.y) for p in points]
        x_reach, y_reach = reaches([p.x for p in points]), reaches([p.y for p in points])
        x, y = self._turned(xs, ys)
        x_reach, y_reach = self._turned(x_reach, y_reach)
        for values, way in ((x_reach, "xerr"), (y_reach, "yerr")):
            if any(map(any, values)):
                self.axes.errorbar(
                    x, y, **{way: values}, fmt="none", ecolor=colour, elinewidth=1.1, zorder=2.5
                )
        for at, point in zip(xs, points, strict=True):
            value = middle(point.y)
            self._segments += [((low, value), (high, value)) for low, high in [ends(point.x)]]
            self._segments += [((at, low), (at, high)) for low, high in [ends(point.y)]]

    def _line(self, line: Line, colour: str) -> Any:
        """Points, joined or not, and what legends show."""
        points = self._shown(line)
        offset, _ = self._beside(line)
        xs, ys = [middle(p.x) + offset for p in points], [middle(p.y) for p in points]
        marker = _MARKERS[self._series.index(line) % len(_MARKERS)]
        dashes = "-" if line.style == "line" else "none"
        looks: dict[str, Any] = {
            "color": colour,
            "markeredgecolor": _PAGE,
            "marker": marker,
            "linewidth": 2,
        }
        looks["markersize"] = 7 if len(points) < _MANY else 4
        if line.style == "line":
            self.axes.plot(*self._turned(xs, ys), color=colour, linewidth=1.8)
            self._segments += pairwise(zip(xs, ys, strict=True))
        is_band = line.style == "line" and len(points) > 1
        if is_band and not self._names and not any(isinstance(p.x, Estimate) for p in points):
            low, high = zip(*(ends(p.y) for p in points), strict=True)
            self.axes.fill_between(xs, low, high, color=colour, alpha=_BAND, linewidth=0)
        else:
            self._intervals(points, xs, colour)
        for point, x, y in zip(points, xs, ys, strict=True):
            (mark,) = self.axes.plot(*self._turned([x], [y]), **looks, linestyle="none", zorder=3)
            self._name(mark, line, point)
            if point.label and not self._names:
                self._labels.append(((x, y), point.label, colour))
        return Line2D([], [], **looks, linestyle=dashes)

    def _bar(self, line: Line, colour: str) -> Any:
        """Bars from 0, and what legends show."""
        points = self._shown(line)
        offset, room = self._beside(line)
        at = [middle(p.x) + offset for p in points]
        heights = [middle(p.y) for p in points]
        drawn = (self.axes.barh if self._names else self.axes.bar)(
            at, heights, room, color=colour, alpha=_BAR
        )
        for bar, point, x, height in zip(drawn, points, at, heights, strict=True):
            self._name(bar, line, point)
            if point.label and not self._names:
                self._labels.append(((x, height), point.label, colour))
        self._intervals([Point(x, p.y) for x, p in zip(at, points, strict=True)], at, _TEXT)
        return drawn if points else Line2D([], [], color=colour)

    def _level(self, line: Line, colour: str) -> Any:
        """A line across at the y of a point, with its interval as a band."""
        looks: dict[str, Any] = {"color": colour, "linewidth": 1.6, "linestyle": (0, (5, 3))}
        across, band = self.axes.axhline, self.axes.axhspan
        if self._names:
            across, band = self.axes.axvline, self.axes.axvspan
        for point in line.points[:1]:
            if not math.isfinite(middle(point.y)):
                continue
            self._name(across(middle(point.y), **looks), line, point, level=True)
            low, high = ends(point.y)
            if low < high:
                band(low, high, color=colour, alpha=_BAND / 2, linewidth=0)
        return Line2D([], [], **looks)

    def _start_at_a_decade(self) -> None:
        """With a logarithmic axis bars have no 0 to start from."""
        heights = [middle(p.y) for line in self._bars for p in self._shown(line)]
        if heights:
            set_low = self.axes.set_xlim if self._names else self.axes.set_ylim
            set_low(10 ** (math.ceil(math.log10(min(heights))) - 1), None)

    def _place_labels(self) -> None:
        """Labels go where they cover nothing, with a line to their points where that is far."""
        self.canvas.draw_without_rendering()
        self.canvas.set_layout_engine("none")
        pixels = self.axes.transData.transform
        points = [tuple(pixels(at)) for at, _, _ in self._labels]
        if not any(isinstance(p.x, Estimate) for line in self._series for p in line.points):
            self._labels = [self._labels[i] for i in self._highest(points)]
        if not self._labels:
            return
        texts = [
            self.axes.annotate(plain(label), (x, y), color=colour, fontsize=10)
            for (x, y), label, colour in self._labels
        ]
        extents = [text.get_window_extent() for text in texts]
        frame = self.axes.get_window_extent()
        anchors = [tuple(pixels(at)) for at, _, _ in self._labels]
        around = Surroundings(
            Box(frame.x0, frame.y0, frame.x1, frame.y1),
            points,
            [(tuple(pixels(a)), tuple(pixels(b))) for a, b in self._segments],
        )
        boxes = place(anchors, [(e.width + 3, e.height) for e in extents], around)
        for text, anchor, box in zip(texts, anchors, boxes, strict=True):
            self._move(text, anchor, box)

    def _highest(self, points: Sequence[Place]) -> list[int]:
        """Of points with one label above each other, which the label names all, the highest."""
        kept: list[int] = []
        for i in sorted(range(len(points)), key=lambda i: -points[i][1]):
            label = self._labels[i][1]
            above = [j for j in kept if self._labels[j][1] == label]
            if all(abs(points[j][0] - points[i][0]) > _ABOVE for j in above):
                kept.append(i)
        return sorted(kept)

    def _move(self, text: Any, anchor: Place, box: Box) -> None:
        text.set_position(self.axes.transData.inverted().transform((box.left, box.bottom)))
        text.set_verticalalignment("bottom")
        end = box.nearest(*anchor)
        if math.dist(end, anchor) < 14:
            return
        xs, ys = zip(*self.axes.transData.inverted().transform([anchor, end]), strict=True)
        self.axes.plot(xs, ys, color=_SOFT, linewidth=0.8, zorder=1.5, scalex=False, scaley=False)
