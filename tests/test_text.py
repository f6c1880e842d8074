"""Bytes become the same text however they are cut; stop strings end it, whatever they share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.text import TextStream

many = settings(deadline=None, derandomize=True, max_examples=100)
# Few letters, so that stop strings overlap with the text and with each other.
stops = st.lists(st.text("abé", min_size=1, max_size=4), max_size=4)
few_letters = st.text("abé", max_size=24)


@st.composite
def pieces(draw: st.DrawFn, of: st.SearchStrategy[bytes]) -> list[bytes]:
    """A byte string, cut at any places; some pieces are empty, as those of markers are."""
    data = draw(of)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=len(data) + 3)))
    return [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def feed_all(stream: TextStream, given_pieces: Sequence[bytes]) -> list[str]:
    """What comes out after each piece, the last one being final."""
    last = len(given_pieces) - 1
    return [stream.feed(p, final=i == last) for i, p in enumerate(given_pieces)]


def until_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The naive rule: letter by letter, cut where the text first ends with a stop string."""
    for end in range(1, len(text) + 1):
        ending = [s for s in stop if text[:end].endswith(s)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@many
@given(pieces(st.text(max_size=40).map(str.encode)))
def test_every_cut_of_utf8_gives_the_text(given_pieces: list[bytes]) -> None:
    """Characters of one to four bytes come whole, wherever their bytes were cut."""
    out = feed_all(TextStream(), given_pieces)
    assert "".join(out) == b"".join(given_pieces).decode()


@many
@given(pieces(st.binary(max_size=30)))
def test_bytes_that_are_no_utf8_become_replacement_characters(given_pieces: list[bytes]) -> None:
    """Any bytes at all give what decoding them at once gives."""
    out = feed_all(TextStream(), given_pieces)
    assert "".join(out) == b"".join(given_pieces).decode("utf-8", "replace")


@settings(many, max_examples=300)
@given(pieces(few_letters.map(str.encode)), stops)
def test_stop_strings_equal_the_naive_rule(given_pieces: list[bytes], stop: list[str]) -> None:
    """For any text, any cut and any stop strings: the text up to the first one to be complete."""
    stream = TextStream(stop)
    out = feed_all(stream, given_pieces)
    assert ("".join(out), stream.stopped) == until_stop(b"".join(given_pieces).decode(), stop)


@many
@given(pieces(few_letters.map(str.encode)), stops)
def test_only_what_may_become_a_stop_string_is_held_back(
    given_pieces: list[bytes], stop: list[str]
) -> None:
    """After every piece, what is not out yet begins a stop string, and is as short as it can be."""
    stream, out, data = TextStream(stop), "", b""
    for piece in given_pieces:
        out += stream.feed(piece)
        data += piece
        text = data.decode("utf-8", "ignore")
        if stream.stopped:
            break
        assert text.startswith(out)
        tails = [text[i:] for i in range(len(text)) if any(s.startswith(text[i:]) for s in stop)]
        assert text[len(out) :] == max(tails, key=len, default="")


STOPS: dict[str, tuple[Sequence[bytes], Sequence[str], list[str]]] = {
    "within a piece": ([b"one. two"], [". "], ["one"]),
    "across pieces": ([b"one", b".", b" two"], [". "], ["one", "", ""]),
    "released": ([b"one", b".", b"two"], [". "], ["one", "", ".two"]),
    "released at the end": ([b"one", b"."], [". "], ["one", "."]),
    "a stop string inside another": ([b"xab", b"cd"], ["abcd", "bc"], ["x", "a"]),
    "the longest of those that end together": ([b"xabc"], ["c", "abc", "bc"], ["x"]),
    "repeated beginnings": ([b"a", b"a", b"a", b"b"], ["aab"], ["", "", "a", ""]),
    "cut within a character": ([b"a\xc3", b"\xa9b"], ["é"], ["a", ""]),
    "unfinished character": ([b"a\xc3"], [], ["a\ufffd"]),
    "nothing": ([b""], ["x"], [""]),
}


@pytest.mark.parametrize(("given_pieces", "stop", "wanted"), STOPS.values(), ids=STOPS)
def test_stop_strings(given_pieces: list[bytes], stop: list[str], wanted: list[str]) -> None:
    """What comes out after each piece."""
    assert feed_all(TextStream(stop), given_pieces) == wanted


def test_nothing_follows_a_stop_string() -> None:
    """A stopped stream swallows what still comes."""
    stream = TextStream(["!"])
    assert stream.feed(b"hi! there") == "hi"
    assert stream.stopped
    assert stream.feed(b" more") == ""
    assert stream.feed(b"", final=True) == ""
