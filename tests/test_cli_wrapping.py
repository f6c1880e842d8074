"""Words of a streamed reply are not cut at the edge of a terminal."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from eftlocal.cli.wrapping import WordWrap, cells

LETTERS = ["a", "b", " ", ".", "\n", "漢", "é", "e\u0301"]
TEXTS = st.lists(st.sampled_from(LETTERS), max_size=200).map("".join)
WIDTHS = st.integers(4, 30)


def screen(sent: str) -> list[str]:
    """The lines of a terminal that got these characters."""
    lines = [""]
    for part in re.findall(r"\x1b\[\d+D\x1b\[K|.", sent, re.DOTALL):
        if part == "\n":
            lines.append("")
        elif part.startswith("\x1b"):
            left = int(part[2 : part.index("D")])
            while left > 0:
                left -= cells(lines[-1][-1])
                lines[-1] = lines[-1][:-1]
        else:
            lines[-1] += part
    return lines


def width_of(line: str) -> int:
    """The columns that a line takes."""
    return sum(map(cells, line))


@given(TEXTS, WIDTHS)
def test_lines_fit_and_words_stay_whole(text: str, width: int) -> None:
    """No line reaches the last column, nothing is lost, and only too long words are cut."""
    lines = screen(WordWrap(lambda: width).feed(text))
    assert all(width_of(line) < width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())
    shown = {word for line in lines for word in line.split()}
    assert all(word in shown for word in text.split() if width_of(word) < width - 1)


@given(TEXTS, WIDTHS, st.lists(st.integers(0, 200), max_size=8))
def test_pieces_do_not_matter(text: str, width: int, cuts: list[int]) -> None:
    """However a text comes, it is sent the same way."""
    places = [0, *sorted(cuts), len(text)]
    wrap = WordWrap(lambda: width)
    pieces = [wrap.feed(text[a:b]) for a, b in pairwise(places)]
    assert "".join(pieces) == WordWrap(lambda: width).feed(text)


def test_a_word_moves_to_the_next_line() -> None:
    """The part of the word that stood at the edge is erased."""
    wrap = WordWrap(lambda: 10)
    assert wrap.feed("one three") == "one three"
    assert wrap.feed("s") == "\x1b[5D\x1b[K\nthrees"
    assert screen(WordWrap(lambda: 10).feed("one threes four")) == ["one ", "threes ", "four"]
