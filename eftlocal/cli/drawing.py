"""Draws a traced reply in the terminal: coloured text, its legend, the tokens changed most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..diagnostics import ORIGINS, ModelTrace
from ..explain.analysis import (
    LEVELS,
    STRONG,
    AlphaRange,
    Changes,
    Piece,
    alpha_range,
    level,
    pieces,
    strongest,
    summarise,
    total_variation,
)
from ..explain.records import Reply, TracedToken
from ..explain.wording import (
    alpha_text,
    changes_lines,
    models_of,
    number,
    percent,
    quoted,
    short,
    summary_lines,
)
from .output import plain_text
from .wrapping import cells

# Backgrounds of the 256 colours with black letters, readable on light and dark terminals.
_COLORS: Mapping[str, Sequence[int | None]] = {
    "total-variation": (None, 230, 222, 215, 210),
    "alpha": (None, 195, 153, 111, 75),
}
# Letters of a token in the table.
_MOST = 16
_RESET = "\x1b[0m"
_DIM = "2"
_BOLD = "1"


@dataclass(frozen=True, slots=True)
class Look:
    """How to draw.

    Attributes:
        by: what colours mean, "total-variation" or "alpha".
        rows: tokens in the table.
        color: colours, or else brackets around what stands out.
        width: columns of the terminal.
    """

    by: str
    rows: int
    color: bool
    width: int


@dataclass(frozen=True, slots=True)
class _Run:
    """A piece of text with one style, an SGR code or "" for none."""

    text: str
    style: str


def draw(reply: Reply, look: Look, changes: Changes | None = None) -> str:
    """The whole drawing, without a final line end.

    Raises:
        UsageError: for a reply without tokens.
    """
    found = alpha_range(reply.header)
    summary = summarise(reply)
    runs = _runs(reply, found, look)
    blocks = [wrapped(runs, look) or "[empty reply]", _legend(found, look)]
    blocks.append("\n".join(_filled(line, look.width) for line in summary_lines(summary, found)))
    if changes is not None:
        blocks.append(_changes(changes, reply, look))
    if look.rows:
        blocks.append(_table(reply, found, look))
    return "\n\n".join(block for block in blocks if block)


def _styled(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}{_RESET}" if style and text else text


def _background(colors: Sequence[int | None], shade: int) -> str:
    color = colors[shade]
    return "" if color is None else f"38;5;16;48;5;{color}"


def _runs(reply: Reply, found: AlphaRange, look: Look) -> list[_Run]:
    """The reply in pieces of one style; without colours, what stands out in brackets."""
    runs: list[_Run] = []
    stood_out = False
    for place, piece in enumerate(pieces(reply)):
        style, stands_out = _emphasis(piece, found, look.by)
        text = plain_text(piece.text).expandtabs(4)
        text = text.lstrip() if place == 0 else text
        if not piece.is_text and not stands_out:
            if look.color:
                runs.append(_Run(text, _DIM))
            continue
        word = text.lstrip(" ") or text
        blanks = text[: len(text) - len(word)]
        if look.color:
            # A line end shows only where it is coloured.
            word = word.replace("\n", "↵\n") if style else word
            runs += [_Run(blanks, ""), _Run(word, style)]
            continue
        # Neighbours share their brackets where no blank is between them.
        joined = stood_out and stands_out and not blanks and not runs[-1].text.endswith("\n")
        if joined:
            runs[-1] = _Run(runs[-1].text.removesuffix("]"), "")
        opening = "[" if stands_out and not joined else ""
        body = word.replace("\n", "\\n]\n") if stands_out else word
        closing = "]" if stands_out and not body.endswith("\n") else ""
        runs.append(_Run(f"{blanks}{opening}{body}{closing}", ""))
        stood_out = stands_out
    return runs


def _emphasis(piece: Piece, found: AlphaRange, by: str) -> tuple[str, bool]:
    """The style of a piece, and whether it stands out without colours."""
    token = piece.strongest
    if by == "total-variation":
        value = total_variation(token)
        return _background(_COLORS[by], level(value)), value >= STRONG
    alpha = found.chosen(token)
    bound = found.is_bound(alpha)
    style = "" if found.mode == "fixed" else _background(_COLORS[by], level(found.share(alpha)))
    return ";".join(filter(None, [style, "4" if bound else ""])), bound


def wrapped(runs: Iterable[_Run], look: Look) -> str:
    """Styled text in lines that fit the terminal, broken at blanks where there are any."""
    lines = [_Line()]
    edge = max(look.width - 1, 10)
    for run in runs:
        for char in run.text:
            if char == "\n":
                lines.append(_Line())
                continue
            size = cells(char)
            if lines[-1].width + size > edge:
                if char == " ":
                    lines.append(_Line())
                    continue
                lines.append(lines[-1].broken())
            lines[-1].add(char, run.style, size)
    return "\n".join(line.text() for line in lines).rstrip("\n")


class _Line:
    """One line while it fills: characters with their styles and columns."""

    def __init__(self, items: Sequence[tuple[str, str, int]] = ()) -> None:
        self._items = list(items)

    @property
    def width(self) -> int:
        """Columns in use."""
        return sum(size for _, _, size in self._items)

    def add(self, char: str, style: str, size: int) -> None:
        """Add a character."""
        self._items.append((char, style, size))

    def broken(self) -> _Line:
        """Take the last word off, as the start of the next line; nothing where it is all."""
        blanks = [place for place, (char, _, _) in enumerate(self._items) if char == " "]
        if not blanks:
            return _Line()
        rest = self._items[blanks[-1] + 1 :]
        del self._items[blanks[-1] :]
        return _Line(rest)

    def text(self) -> str:
        """The line with the codes of its styles."""
        parts: list[str] = []
        run, current = "", ""
        for char, style, _ in self._items:
            if style != current:
                parts.append(_styled(run, current))
                run, current = "", style
            run += char
        return "".join([*parts, _styled(run, current)])


def _legend(found: AlphaRange, look: Look) -> str:
    """What the colours, or the brackets, mean."""
    if look.by == "total-variation":
        if look.color:
            return _shades("total variation", 0, 1, look)
        return f"[...]: total variation of {STRONG} or more"
    if found.mode == "fixed":
        return f"alpha was fixed at {short(found.low)}, so there is nothing to mark"
    bounds = f"at a bound of the search, {short(found.low)} or {short(found.high)}"
    if look.color:
        shades = _shades("alpha", found.low, found.high, look)
        return f"{shades}\n{_styled('underlined', '4')}: {bounds}"
    return f"[...]: alpha {bounds}"


def _shades(name: str, low: float, high: float, look: Look) -> str:
    """Every shade with the numbers that it stands for, none of them cut by a line end."""
    colors = _COLORS[look.by]
    edges = [short(low + i / LEVELS * (high - low)) for i in range(LEVELS + 1)]
    runs = [_Run(name, "")]
    for shade, (a, b) in enumerate(pairwise(edges)):
        runs += [_Run(" ", ""), _Run(f"\xa0{a}\xa0to\xa0{b}\xa0", _background(colors, shade))]
    return wrapped(runs, look).replace("\xa0", " ")


def _filled(text: str, width: int) -> str:
    """A sentence in lines of the terminal's width."""
    return wrapped([_Run(plain_text(text), "")], Look("", 0, False, width))


def _table(reply: Reply, found: AlphaRange, look: Look) -> str:
    """The tokens with the largest total variation, and what every model wanted there."""
    title = "tokens that fusing changed most, and every model's own choice (=: the same)"
    tokens = strongest(reply, look.rows)
    names = [name for name, _ in models_of(tokens[0], reply)]
    fixed = found.mode == "fixed"
    head = ["", "token", "TV", *([] if fixed else ["alpha"]), *names, "from"]
    body = [
        [
            str(token.index),
            quoted(reply.pieces[token.token], _MOST),
            number(total_variation(token)),
            *([] if fixed else [alpha_text(token, reply, found)]),
            *(_choice(view, token, reply) for _, view in models_of(token, reply)),
            token.trace.origin,
        ]
        for token in tokens
    ]
    table = _columns([head, *body], look)
    if table is None:
        table = "\n".join(_stacked(token, reply, found, look) for token in tokens)
    seen = {token.trace.origin for token in tokens}
    notes = [_filled(f"{w}: {text}", look.width) for w, text in ORIGINS.items() if w in seen]
    return "\n".join([_filled(title, look.width), "", table, "", *notes])


def _choice(view: ModelTrace, token: TracedToken, reply: Reply) -> str:
    """A model's likeliest token and its probability."""
    same = view.top == token.token
    name = "=" if same else quoted(reply.pieces[view.top], _MOST)
    return f"{name} {percent(view.top_probability)}"


def _columns(rows: Sequence[Sequence[str]], look: Look) -> str | None:
    """Rows with aligned columns; None where they are too wide for the terminal."""
    widths = [max(map(_cells, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) > look.width - 1:
        return None
    lines = []
    for place, row in enumerate(rows):
        padded = [cell + " " * (w - _cells(cell)) for cell, w in zip(row, widths, strict=True)]
        line = "  ".join(padded).rstrip()
        lines.append(_styled(line, _DIM) if place == 0 and look.color else line)
    return "\n".join(lines)


def _stacked(token: TracedToken, reply: Reply, found: AlphaRange, look: Look) -> str:
    """One token of the table on two lines or more, for narrow terminals and many experts."""
    alpha = "" if found.mode == "fixed" else f"alpha {alpha_text(token, reply, found)}, "
    first = (
        f"{token.index:>3}  {quoted(reply.pieces[token.token], _MOST)}  "
        f"TV {number(total_variation(token))}, {alpha}from: {token.trace.origin}"
    )
    line = "    "
    bold = _BOLD if look.color else ""
    lines = [_styled(part, bold) for part in _filled(first, look.width).splitlines()]
    for name, view in models_of(token, reply):
        item = f" {name} {_choice(view, token, reply)} "
        if _cells(line + item) > look.width and line.strip():
            lines.append(line.rstrip())
            line = "    "
        line += item
    return "\n".join([*lines, line.rstrip()])


def _changes(changes: Changes, reply: Reply, look: Look) -> str:
    lines = [_filled(line, look.width) for line in changes_lines(changes)]
    for change in changes.places:
        old = quoted(reply.pieces[change.token.trace.fused.top])
        new = quoted(reply.pieces[change.new])
        unsure = "" if change.is_certain else " ?"
        lines.append(_filled(f"{change.token.index:>5}  {old} -> {new}{unsure}", look.width))
    return "\n".join(lines)


def _cells(text: str) -> int:
    return sum(map(cells, text))
