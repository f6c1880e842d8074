"""Charts of a benchmark as SVG: readable without scripts, in colours that the page sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from .report import Bars, Chart, Series

_WIDTH, _HEIGHT = 560.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 150.0, 34.0, 44.0
_COLOURS = 6
_LABEL_GAP = 15.0
_NAMES, _BAR, _BAR_STEP = 170.0, 14.0, 22.0
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Frame:
    """Where numbers lie: values of x at equal distances, y from 0 to `high`."""

    xs: tuple[float, ...]
    high: float

    def x(self, value: float) -> float:
        """The place of one of the values of x."""
        share = self.xs.index(value) / max(len(self.xs) - 1, 1)
        return round(_LEFT + 12 + share * (_WIDTH - 24), 1)

    def y(self, value: float) -> float:
        """The height of a number."""
        return round(_TOP + _HEIGHT * (1 - value / self.high), 1)


def plot(chart: Chart | Bars) -> str:
    """The chart as one SVG element; every number has a title."""
    return _bars(chart) if isinstance(chart, Bars) else _lines(chart)


def _bars(chart: Bars) -> str:
    """Horizontal bars under one axis."""
    high = max([value for _, value in chart.bars] + [chart.level or 0.0])
    step = _tick(high)
    n_ticks = math.ceil(high / step)
    scale, bottom = _WIDTH / (n_ticks * step), _TOP + _BAR_STEP * len(chart.bars)
    width, height = _NAMES + _WIDTH + 30, bottom + _BOTTOM

    def upright(value: float, kind: str) -> str:
        x = round(_NAMES + value * scale, 1)
        return f'<line class="{kind}" x1="{x}" x2="{x}" y1="{_TOP - 6:g}" y2="{bottom:g}"/>'

    parts = [_opening(width, height, f"{chart.title}: {chart.x}")]
    for i in range(n_ticks + 1):
        x = round(_NAMES + i * step * scale, 1)
        parts.append(upright(i * step, "grid"))
        parts.append(f'<text class="index" x="{x}" y="{bottom + 16:g}">{i * step:g}</text>')
    for i, (name, value) in enumerate(chart.bars):
        y = _TOP + i * _BAR_STEP
        parts.append(f'<text class="tick" x="{_NAMES - 8:g}" y="{y + 11:g}">{escape(name)}</text>')
        parts.append(
            f'<rect class="bar" x="{_NAMES:g}" y="{y:g}" width="{value * scale:.1f}" '
            f'height="{_BAR:g}"><title>{escape(name)}: {value:,.4g}</title></rect>'
        )
    parts += [] if chart.level is None else [upright(chart.level, "level")]
    middle = _NAMES + _WIDTH / 2
    parts.append(f'<text class="name x" x="{middle:g}" y="{height - 6:g}">{escape(chart.x)}</text>')
    return "\n".join([*parts, "</svg>"])


def _opening(width: float, height: float, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'role="img" aria-label="{escape(label)}">'
    )


def _lines(chart: Chart) -> str:
    """Lines over one axis."""
    points = [point for series in chart.series for point in series.points]
    step = _tick(max([y for _, y in points] + [chart.level or 0.0]))
    n_ticks = math.ceil(max([y for _, y in points] + [chart.level or 0.0]) / step)
    frame = Frame(tuple(sorted({x for x, _ in points})), n_ticks * step)
    width, height = _LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM
    middle = _LEFT + _WIDTH / 2
    parts = [
        _opening(width, height, f"{chart.title}: {chart.y} by {chart.x}"),
        f'<text class="name" x="{_LEFT:g}" y="16">{escape(chart.y)}</text>',
        *(_horizontal(frame, i * step, "grid", f"{i * step:g}") for i in range(n_ticks + 1)),
        *([] if chart.level is None else [_horizontal(frame, chart.level, "level", "")]),
        *(_below(frame, x) for x in frame.xs),
        f'<text class="name x" x="{middle:g}" y="{height - 6:g}">{escape(chart.x)}</text>',
        *(_line(frame, chart, i, series) for i, series in enumerate(chart.series)),
        *_labels(frame, chart),
        "</svg>",
    ]
    return "\n".join(parts)


def _tick(high: float) -> float:
    """The distance of ticks: the least round number that gives at most six."""
    scale = 10 ** math.floor(math.log10(high / 6)) if high > 0 else 1.0
    return next(step * scale for step in _STEPS if step * scale * 6 >= high)


def _horizontal(frame: Frame, value: float, kind: str, text: str) -> str:
    y = frame.y(value)
    line = f'<line class="{kind}" x1="{_LEFT:g}" x2="{_LEFT + _WIDTH:g}" y1="{y}" y2="{y}"/>'
    return line + f'<text class="tick" x="{_LEFT - 8:g}" y="{y + 4:g}">{text}</text>'


def _below(frame: Frame, x: float) -> str:
    return f'<text class="index" x="{frame.x(x)}" y="{_TOP + _HEIGHT + 18:g}">{x:g}</text>'


def _line(frame: Frame, chart: Chart, index: int, series: Series) -> str:
    colour = f"e{index % _COLOURS}"
    path = " ".join(f"{frame.x(x)},{frame.y(y)}" for x, y in series.points)
    marks = "".join(
        f'<circle class="mark {colour}" cx="{frame.x(x)}" cy="{frame.y(y)}" r="4">'
        f"<title>{escape(series.name)}, {escape(chart.x)} {x:g}: {y:.2f}</title></circle>"
        for x, y in series.points
    )
    return f'<polyline class="curve {colour}" points="{path}"/>{marks}'


def _labels(frame: Frame, chart: Chart) -> list[str]:
    """The names of the lines at their right ends, moved apart where they would overlap."""
    ends = sorted(
        (frame.y(series.points[-1][1]), i) for i, series in enumerate(chart.series) if series.points
    )
    lowest = _TOP + _HEIGHT
    places: list[float] = []
    for y, _ in ends:
        places.append(max(y, places[-1] + _LABEL_GAP) if places else y)
    for i in reversed(range(len(places))):
        limit = lowest if i == len(places) - 1 else places[i + 1] - _LABEL_GAP
        places[i] = min(places[i], limit)
    return [
        f'<text class="series e{i % _COLOURS}" x="{_LEFT + _WIDTH + 4:g}" y="{place + 4:.1f}">'
        f"{escape(chart.series[i].name)}</text>"
        for place, (_, i) in zip(places, ends, strict=True)
    ]
