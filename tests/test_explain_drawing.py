"""What the terminal shows of a traced reply."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eftlocal.cli.drawing import Look, draw
from eftlocal.cli.wrapping import cells
from eftlocal.explain import Reply, TracedToken
from eftlocal.explain.analysis import changes_at, pieces, strongest, total_variation
from eftlocal.explain.wording import quoted

from .rows import many
from .traces import END, PIECES, header, reply

SGR = re.compile(r"\x1b\[[\d;]*m")
tokens = st.lists(st.one_of(st.none(), st.integers(3, len(PIECES) - 1)), min_size=1, max_size=30)
widths = st.sampled_from((20, 37, 60, 80, 132, 200))
meanings = st.sampled_from(("total-variation", "alpha"))


def look(**changes: Any) -> Look:
    """Total variation, without colours, wide."""
    return replace(Look(by="total-variation", rows=3, color=False, width=100), **changes)


def body(drawing: str) -> str:
    """The reply in a drawing without a table; legend and summary follow it."""
    return drawing.rsplit("\n\n", 2)[0]


def squeezed(text: str) -> str:
    """A text without blanks, line ends and control characters, which wrapping may change."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]|↵", "", text)


@many
@given(tokens, widths, st.booleans(), meanings, st.integers(0, 9))
def test_lines_fit_and_text_stays(
    chosen: list[int | None], width: int, color: bool, by: str, seed: int
) -> None:
    """Whatever tokens are, lines fit the terminal, no control reaches it, and no letter is lost."""
    alphas = [(i % 3 / 1.0,) for i in range(len(chosen) + 1)]
    made = reply([*chosen, END], alphas, header(alpha="dynamic"), seed)
    drawing = draw(made, look(by=by, color=color, width=width), changes_at(made, 0.5))
    plain = SGR.sub("", drawing)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", plain)
    assert color or plain == drawing
    ending = "" if pieces(made)[-1].is_text else "<|end|>"
    reply_part = body(draw(made, look(by=by, color=color, width=width, rows=0)))
    if reply_part == "[empty reply]":
        assert not squeezed(made.text)
    elif color:
        assert squeezed(SGR.sub("", reply_part)) == squeezed(made.text + ending)
    else:
        marks = re.sub(r"[\[\]]|\\n|<\|end\|>", "", squeezed(reply_part))
        assert marks == re.sub(r"[\[\]]", "", squeezed(made.text))
    for line in plain.splitlines():
        # A table's heading and tokens' names may be wider than a very narrow terminal.
        assert sum(map(cells, line)) <= max(width, 60)


def test_strong_tokens_are_in_brackets() -> None:
    """Without colours, exactly the pieces with a total variation of 0.5 or more are marked."""
    made = reply([24, 25, 26, 27, 28, 29, 30, 31], seed=4)
    found = pieces(made)
    strong = [piece.text.strip() for piece in found if total_variation(piece.strongest) >= 0.5]
    assert 0 < len(strong) < len(found)
    text = body(draw(made, look(rows=0)))
    assert re.findall(r"\[(.*?)\]", text) == strong


def test_neighbours_share_brackets() -> None:
    """Parts of one word that all stand out are marked as one, words and lines on their own."""
    made = reply([3, 5, 5, 24, 25, 7, 5, END])
    values = [0.1, 0.5, 0.9, 0.6, 0.2, 0.7, 0.8, 0.6]
    made = replace(made, tokens=tuple(map(varied, made.tokens, values)))
    assert body(draw(made, look(rows=0))) == "the[shipship] [w0] w1[\\n]\n[ship<|end|>]"


def varied(token: TracedToken, value: float) -> TracedToken:
    """The token with another total variation."""
    return replace(token, trace=replace(token.trace, total_variation=(value,)))


def background(value: float) -> str:
    """The colour of a total variation."""
    shades = ["", "230", "222", "215", "210"]
    return shades[min(4, int(value * 5))]


def test_colours_are_those_of_the_legend() -> None:
    """Each word has the shade of its total variation, which the legend names."""
    made = reply([24, 25, 26, 27, 28, 29, 30, 31], seed=4)
    drawing = draw(made, look(rows=0, color=True))
    for piece in pieces(made):
        word = piece.text.strip()
        shade = background(total_variation(piece.strongest))
        styled = f"\x1b[38;5;16;48;5;{shade}m{word}\x1b[0m" if shade else word
        assert styled in drawing
    assert "\x1b[38;5;16;48;5;210m 0.8 to 1 \x1b[0m" in drawing
    assert " 0 to 0.2 " in drawing


def test_bounds_of_alpha_are_marked() -> None:
    """By alpha, tokens at a bound are underlined, or in brackets; a fixed alpha marks nothing."""
    alphas = [(0.0,), (0.7,), (2.0,), (1.99,)]
    made = reply([24, 25, 26, 27], alphas, header(alpha="dynamic"))
    plain = draw(made, look(rows=0, by="alpha"))
    assert plain.startswith("[w0] w1 [w2] w3\n\n[...]: alpha at a bound of the search, 0 or 2\n")
    coloured = draw(made, look(rows=0, by="alpha", color=True))
    assert re.findall(r"\x1b\[(?:[\d;]*;)?4mw(\d)", coloured) == ["0", "2"]
    assert "\x1b[4munderlined\x1b[0m: at a bound" in coloured
    fixed = draw(reply([24, 25]), look(rows=0, by="alpha", color=True))
    assert fixed.startswith("w0 w1\n\nalpha was fixed at 1, so there is nothing to mark\n")


@pytest.mark.parametrize("width", [60, 140])
def test_the_table_has_every_models_choice(width: int) -> None:
    """Each row has the token and every model's own choice; = is the token itself."""
    made = reply([24, None, 26, None], seed=3)
    drawing = draw(made, look(rows=3, width=width))
    table = drawing.split("(=: the same)\n")[1]
    for token in strongest(made, 3):
        views = [token.trace.fused, token.trace.base, *token.trace.tuned, *token.trace.reference]
        choices = [
            "=" if view.top == token.token else quoted(made.pieces[view.top], 16) for view in views
        ]
        start = table.index(f"{token.index}  {quoted(made.pieces[token.token], 16)}")
        row = table[start:].split("\n" if width > 100 else "from: ", 1)[width < 100]
        position = 0
        for choice in choices:
            position = row.index(choice, position) + 1
        assert f" {total_variation(token):.2f}" in table[start:].split("\n")[0]
        assert f" {token.trace.origin}" in table[start:].split("\n")[0]
        assert f"\n{token.trace.origin}: " in table


def test_several_experts_have_names() -> None:
    """With several experts each tuned and reference model is called by its expert's name."""
    made = reply([None] * 3, [(0.5, 0.0)] * 3, header(["math", "code"], alpha="dynamic"))
    drawing = draw(made, look())
    for name in ("math tuned", "math reference", "code tuned", "code reference"):
        assert name in drawing
    assert "math 0.50, code 0.00" in drawing


def test_changes_are_listed() -> None:
    """Another alpha's tokens stand beside the recorded ones, with ? where that is not certain."""
    made: Reply = reply([None] * 10, [(0.3,)] * 10, header(alpha=0.3), seed=5)
    for alpha in (0.0, 2.0):
        found = changes_at(made, alpha)
        assert found.places
        drawing = draw(made, look(rows=0), found)
        lines = [line for line in drawing.splitlines() if " -> " in line]
        assert len(lines) == len(found.places)
        for line, change in zip(lines, found.places, strict=True):
            assert line.split()[0] == str(change.token.index)
            assert line.endswith(" ?") == (not change.is_certain)
