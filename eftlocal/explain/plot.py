"""Total variation and alpha along a reply, as one SVG whose colours the page's style sheet sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .analysis import AlphaRange, level, total_variation
from .records import Reply, TracedToken
from .wording import number, quoted, short

_LEFT, _RIGHT, _TOP = 56, 24, 26
_WIDTH = 680
_HEIGHT, _FLAT = 120, 40
_GAP = 44
_MOST_LINES = 6


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a panel's numbers lie: n tokens from left to right, low to high from bottom to top."""

    n: int
    step: float
    top: float
    height: float
    low: float
    high: float

    @property
    def bottom(self) -> float:
        """Where the lowest number lies."""
        return self.top + self.height

    def x(self, index: float) -> float:
        """The left edge of a token."""
        return round(_LEFT + index * self.step, 2)

    def y(self, value: float) -> float:
        """The height of a number."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.bottom - share * self.height, 2)


def plot(reply: Reply, found: AlphaRange) -> str:
    """Two panels over one axis of tokens; everything has a title that shows without scripts."""
    n = len(reply.tokens)
    step = min(28.0, max(9.0, _WIDTH / n))
    upper = Frame(n, step, _TOP, _HEIGHT, 0.0, 1.0)
    size = _FLAT if found.mode == "fixed" else _HEIGHT
    lower = Frame(n, step, upper.bottom + _GAP, size, *_alpha_axis(reply, found))
    width = round(_LEFT + max(n * step, 200) + _RIGHT)
    height = round(lower.bottom + 26)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        'aria-label="Total variation and alpha for every token of the reply">',
        _axis(upper, "total variation", (0.0, 0.5, 1.0)),
        *(_bar(upper, reply, token) for token in reply.tokens),
        _axis(lower, "alpha", _ticks(lower, found)),
        *_bounds(lower, found),
        *_lines(lower, reply, found),
        _tokens_axis(lower),
        "</svg>",
    ]
    return "\n".join(parts)


def _alpha_axis(reply: Reply, found: AlphaRange) -> tuple[float, float]:
    values = [value for token in reply.tokens for value in _alphas(token, found)]
    low, high = min(0.0, found.low, *values), max(found.low, found.high, *values)
    return (low, high) if high > low else (low, low + 1)


def _alphas(token: TracedToken, found: AlphaRange) -> Sequence[float]:
    """One curve, or one per expert where each has an alpha of its own."""
    return token.trace.alpha if found.per_expert else (found.chosen(token),)


def _ticks(frame: Frame, found: AlphaRange) -> Sequence[float]:
    if found.mode == "fixed":
        return sorted({frame.low, found.low, frame.high})
    return sorted({frame.low, (frame.low + frame.high) / 2, frame.high})


def _axis(frame: Frame, name: str, ticks: Sequence[float]) -> str:
    right = frame.x(frame.n)
    lines = [f'<text class="name" x="{_LEFT}" y="{frame.top - 10}">{name}</text>']
    for tick in ticks:
        y = frame.y(tick)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4}">{short(tick)}</text>')
    return "\n".join(lines)


def _bar(frame: Frame, reply: Reply, token: TracedToken) -> str:
    value = total_variation(token)
    x, y, width = frame.x(token.index), frame.y(value), round(frame.step - 1.5, 2)
    title = escape(f"token {token.index}, {quoted(reply.pieces[token.token])}: {number(value)}")
    # The clear one makes low bars easy to point at.
    return (
        f'<a href="#t{token.index}"><title>{title}</title>'
        f'<rect class="clear" x="{x}" y="{frame.top}" width="{width}" '
        f'height="{frame.height}"/><rect class="bar v{level(value)}" x="{x}" y="{y}" '
        f'width="{width}" height="{max(round(frame.bottom - y, 2), 1)}"/></a>'
    )


def _bounds(frame: Frame, found: AlphaRange) -> list[str]:
    """Dashed lines where the search ends."""
    if found.mode == "fixed":
        return []
    right = frame.x(frame.n)
    return [
        f'<line class="bound" x1="{_LEFT}" x2="{right}" y1="{frame.y(value)}" '
        f'y2="{frame.y(value)}"><title>bound of the search: {short(value)}</title></line>'
        for value in (found.low, found.high)
    ]


def _lines(frame: Frame, reply: Reply, found: AlphaRange) -> list[str]:
    """A stepped line for every curve, and a mark where a search ended at a bound."""
    parts = []
    rows = [_alphas(token, found) for token in reply.tokens]
    for place in range(len(rows[0])):
        path: list[str] = []
        for index, row in enumerate(rows):
            y = frame.y(row[place])
            path.append(f"{'L' if path else 'M'}{frame.x(index)} {y}H{frame.x(index + 1)}")
        parts.append(f'<path class="curve e{place % _MOST_LINES}" d="{"".join(path)}"/>')
    if found.mode == "fixed":
        return parts
    for token, row in zip(reply.tokens, rows, strict=True):
        chosen = found.chosen(token)
        if found.is_bound(chosen):
            peak = max(row, key=abs)
            parts.append(_mark(frame, token.index, peak, chosen))
    return parts


def _mark(frame: Frame, index: int, height: float, alpha: float) -> str:
    x = round(frame.x(index) + frame.step / 2, 2)
    title = f"token {index}: alpha {short(alpha)}, at a bound of the search"
    radius = round(min(4, frame.step / 2.5), 2)
    return (
        f'<a href="#t{index}"><title>{title}</title>'
        f'<circle class="mark" cx="{x}" cy="{frame.y(height)}" r="{radius}"/></a>'
    )


def _tokens_axis(frame: Frame) -> str:
    """Every so many tokens their index, as often as the numbers have room."""
    every = next(count for count in (1, 2, 5, 10, 20, 50) if count * frame.step >= 26)
    ticks = [
        f'<text class="index" x="{round(frame.x(i) + frame.step / 2, 2)}" '
        f'y="{frame.bottom + 18}">{i}</text>'
        for i in range(0, frame.n, every)
    ]
    name = f'<text class="name" x="8" y="{frame.bottom + 18}">token</text>'
    return "\n".join([*ticks, name])
