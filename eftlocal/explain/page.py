"""A traced reply as one HTML page: no scripts, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from ..diagnostics import ORIGINS
from .analysis import (
    LEVELS,
    AlphaRange,
    Change,
    Changes,
    Piece,
    alpha_range,
    level,
    pieces,
    strongest,
    summarise,
    total_variation,
)
from .plot import plot
from .records import Reply, TracedToken
from .wording import (
    alpha_text,
    changes_lines,
    expert_prefixes,
    models_of,
    number,
    percent,
    quoted,
    short,
    summary_lines,
)

_NOTES = (
    "At every token the fused distribution F is the base's, P, times (tuned / reference) to the "
    "power of alpha: F ∝ P (T / Q)^alpha. Total variation is half of the sum of |F - T| over the "
    "vocabulary: 0 where fused and tuned model agree, 1 where they have nothing in common. With "
    "several experts, the nearest tuned model counts. KL(F ‖ P) says how far fusing went from "
    "the base, KL(T ‖ Q) how far tuning went from the reference; both in nats. All of this is "
    "before temperature, penalties and other sampler settings. Colours, titles in the plot and "
    "details need no scripts."
)


def page(
    reply: Reply, *, by_alpha: bool = False, rows: int = 10, changes: Changes | None = None
) -> str:
    """The page of one reply.

    Args:
        reply: with at least one token.
        by_alpha: colour by alpha first; the page can switch where alpha was searched.
        rows: lines of the table of changed tokens.
        changes: what another alpha would have changed, if that was asked.

    Raises:
        UsageError: for a reply without tokens.
    """
    found = alpha_range(reply.header)
    summary = summarise(reply)
    changed = strongest(reply, rows)
    template = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(f"A reply of {reply.header.model}, explained"),
        prompt=_running(reply.header.prompt),
        switch=_switch(found, by_alpha),
        answer="".join(_piece(piece, reply, found) for piece in pieces(reply)),
        legend=_legend(found),
        summary=escape(" ".join(summary_lines(summary, found))),
        changes="" if changes is None else _changes(changes, reply),
        plot=plot(reply, found),
        caption=_caption(reply, found),
        table=_table(reply, changed, found),
        origins=_origins(changed),
        settings=_settings(reply),
        notes=_NOTES,
    )


def _running(text: str) -> str:
    """Text to be read: markup is escaped, control characters are left out."""
    kept = (char for char in text if char >= " " or char in "\n\t")
    return escape("".join(char for char in kept if not "\x7f" <= char <= "\x9f"))


def _code(text: str) -> str:
    return f"<code>{escape(quoted(text))}</code>"


def _switch(found: AlphaRange, by_alpha: bool) -> str:
    """Radio buttons that choose the colours; none where alpha was fixed."""
    if found.mode == "fixed":
        return ""
    return "\n".join(
        f'<input class="by" type="radio" name="by" id="by-{name}"{" checked" if on else ""}>'
        f'<label for="by-{name}">{label}</label>'
        for name, label, on in (
            ("variation", "total variation", not by_alpha),
            ("alpha", "alpha", by_alpha),
        )
    )


def _legend(found: AlphaRange) -> str:
    steps = [(i / LEVELS, (i + 1) / LEVELS) for i in range(LEVELS)]
    swatches = [
        f'<span class="swatch v{i}">{short(low)} to {short(high)}</span>'
        for i, (low, high) in enumerate(steps)
    ]
    parts = [f'<div class="legend variation">total variation {" ".join(swatches)}</div>']
    if found.mode != "fixed":
        width = found.high - found.low
        swatches = [
            f'<span class="swatch a{i}">{short(found.low + low * width)} to '
            f"{short(found.low + high * width)}</span>"
            for i, (low, high) in enumerate(steps)
        ]
        bound = '<span class="bound">underlined</span>: at a bound of the search'
        parts.append(f'<div class="legend alpha">alpha {" ".join(swatches)} {bound}</div>')
    return "\n".join(parts)


def _piece(piece: Piece, reply: Reply, found: AlphaRange) -> str:
    """A visible piece with its details, which show when it is pointed at or has the focus."""
    token = piece.strongest
    alpha = found.chosen(token)
    names = ["t", f"v{level(total_variation(token))}", f"a{level(found.share(alpha))}"]
    names += ["bound"] if found.is_bound(alpha) else []
    names += [] if piece.is_text else ["none"]
    # Blanks before a word stay uncoloured; at the end of a line they would be coloured boxes.
    word = piece.text.lstrip(" ") or piece.text
    blanks = piece.text[: len(piece.text) - len(word)]
    text = _running(word).replace("\n", '<span class="none">↵</span>\n')
    cards = "".join(_card(each, reply, found) for each in piece.tokens)
    anchors = "".join(f'<a id="t{each.index}"></a>' for each in piece.tokens[:-1])
    return (
        f'{blanks}{anchors}<span class="{" ".join(names)}" id="t{piece.tokens[-1].index}" '
        f'tabindex="0">{text}<span class="card">{cards}</span></span>'
    )


def _card(token: TracedToken, reply: Reply, found: AlphaRange) -> str:
    trace = token.trace
    lines = [
        '<a class="close" href="#reply">close</a>'
        f"<b>token {token.index}: {_code(reply.pieces[token.token])}</b> {trace.origin}: "
        f"{escape(ORIGINS[trace.origin])}",
        f"total variation <b>{number(total_variation(token))}</b>, alpha "
        f"<b>{escape(alpha_text(token, reply, found))}</b>",
        _choices(token, reply),
        f"KL(F ‖ P) {number(trace.kl_fused_base)}, KL(P ‖ F) {number(trace.kl_base_fused)}",
        *(
            f"{escape(name)}KL(T ‖ Q) {number(forth)}, KL(Q ‖ T) {number(back)}"
            for name, forth, back in zip(
                expert_prefixes(reply),
                trace.kl_tuned_reference,
                trace.kl_reference_tuned,
                strict=True,
            )
        ),
    ]
    return "".join(f"<span>{line}</span>" for line in lines)


def _choices(token: TracedToken, reply: Reply) -> str:
    """Every model's own choice, and what it gives to the chosen token."""
    cells = []
    for name, view in models_of(token, reply):
        chosen = "" if view.top == token.token else f"this one {percent(view.probability)}"
        cells += [
            escape(name),
            f"{_code(reply.pieces[view.top])} {percent(view.top_probability)}",
            chosen,
        ]
    return f'<span class="choices">{"".join(f"<span>{cell}</span>" for cell in cells)}</span>'


def _table(reply: Reply, tokens: Iterable[TracedToken], found: AlphaRange) -> str:
    names = [name for name, _ in models_of(reply.tokens[0], reply)]
    head = ["token", "", "total variation", "alpha", *names, "comes from"]
    body = [
        [
            f'<a href="#t{token.index}">{token.index}</a>',
            _code(reply.pieces[token.token]),
            number(total_variation(token)),
            escape(alpha_text(token, reply, found)),
            *(
                f"{_code(reply.pieces[view.top])} {percent(view.top_probability)}"
                for _, view in models_of(token, reply)
            ),
            token.trace.origin,
        ]
        for token in tokens
    ]
    return _rows(map(escape, head), body)


def _origins(tokens: Iterable[TracedToken]) -> str:
    """What the words of the table's last column mean."""
    seen = {token.trace.origin for token in tokens}
    lines = (f"<b>{word}</b>: {escape(text)}" for word, text in ORIGINS.items() if word in seen)
    return "<br>".join(lines)


def _rows(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    """The inside of a table; cells are HTML."""
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in body]
    titles = "".join(f"<th>{cell}</th>" for cell in head)
    first = f"<thead><tr>{titles}</tr></thead>" if titles else ""
    return first + "<tbody>" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</tbody>"


def _changes(changes: Changes, reply: Reply) -> str:
    def row(change: Change) -> list[str]:
        token = change.token
        new = _code(reply.pieces[change.new]) + ("" if change.is_certain else " ?")
        return [
            f'<a href="#t{token.index}">{token.index}</a>',
            _code(reply.pieces[token.trace.fused.top]),
            new,
        ]

    text = "".join(f"<p>{escape(line)}</p>" for line in changes_lines(changes))
    table = ""
    if changes.places:
        head = ("token", "likeliest", escape(f"at alpha {short(changes.alpha)}"))
        table = f'<div class="wide"><table>{_rows(head, map(row, changes.places))}</table></div>'
    return f"<h2>At another alpha</h2>{text}{table}"


def _caption(reply: Reply, found: AlphaRange) -> str:
    """The legend of the plot."""
    parts = ["Bars: total variation, in its colours; a click leads to the token."]
    names = reply.header.experts if found.per_expert else ("",)
    for place, name in enumerate(names):
        label = f"alpha of {name}" if len(names) > 1 else "alpha"
        parts.append(f'<span class="line e{place % 6}"></span> {escape(label)}.')
    if found.mode != "fixed":
        parts.append(
            f"Dashed: bounds of its search, {short(found.low)} and {short(found.high)}; "
            '<span class="ring"></span> a search that ended there.'
        )
    return " ".join(parts)


def _settings(reply: Reply) -> str:
    header = reply.header
    rows = [("model", header.model), *header.files.items(), ("eftlocal", header.version)]
    rows += [(name, _value(value)) for name, value in header.options.items() if name != "trace"]
    return _rows((), ([escape(str(name)), escape(str(value))] for name, value in rows))


def _value(value: Any) -> str:
    """An option's value; what is not set is a dash."""
    if isinstance(value, dict):
        value = ", ".join(f"{key} = {item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        value = ", ".join(quoted(str(item)) for item in value)
    return "-" if value is None or value == "" else str(value)
