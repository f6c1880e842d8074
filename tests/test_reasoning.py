"""The <think> block of a reply, found however the text is cut into pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.prompts import plain_transcript, without_thinking
from eftlocal.reasoning import CLOSE, OPEN, ThinkStream, opens_block, split

FRAGMENTS = (
    OPEN,
    CLOSE,
    "<",
    ">",
    "/",
    "think",
    "</thi",
    "<th",
    " ",
    "\n",
    "\r\n",
    "a",
    "b ",
    "\xe9",
)
TEXTS = st.tuples(
    st.sampled_from(("", OPEN, f" {OPEN}")), st.lists(st.sampled_from(FRAGMENTS), max_size=12)
).map(lambda parts: parts[0] + "".join(parts[1]))
PLAIN = st.text(st.sampled_from("ab \n<>/"), max_size=20)


def by_pattern(text: str, opened: bool) -> tuple[str, str]:
    """The same split of a whole text, by a regular expression."""
    marker = re.match(rf"\s*{OPEN}", text)
    if marker is None and not opened:
        return "", text
    inside, _, answer = text[marker.end() if marker else 0 :].partition(CLOSE)
    return inside.strip(), answer.lstrip("\r\n")


def in_pieces(pieces: Iterable[str], opened: bool) -> tuple[str, str]:
    """What a stream makes of all pieces together."""
    stream = ThinkStream(opened)
    parts = [*map(stream.feed, pieces), stream.finish()]
    return "".join(first for first, _ in parts), "".join(second for _, second in parts)


@settings(max_examples=400)
@given(TEXTS, st.booleans(), st.lists(st.integers(0, 60), max_size=12))
def test_any_cutting_gives_the_same_split(text: str, opened: bool, cuts: list[int]) -> None:
    """Pieces of any size, also in the middle of a marker, end as the whole text does."""
    whole = by_pattern(text, opened)
    assert split(text, opened) == whole
    assert in_pieces(text, opened) == whole
    for place in range(len(text)):
        assert in_pieces((text[:place], text[place:]), opened) == whole
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert in_pieces((text[start:end] for start, end in pairwise(places)), opened) == whole


@given(TEXTS, st.booleans())
def test_thinking_never_comes_after_the_answer(text: str, opened: bool) -> None:
    """Character by character: once the answer has begun, there is no thinking any more."""
    stream = ThinkStream(opened)
    parts = [stream.feed(character) for character in text]
    begun = next((i for i, (_, answer) in enumerate(parts) if answer), len(parts))
    assert not any(thinking for thinking, _ in parts[begun + 1 :])


@given(PLAIN.map(str.strip), PLAIN.map(lambda text: text.lstrip("\r\n")))
def test_round_trip(thinking: str, answer: str) -> None:
    """A block as Qwen3's template writes it gives thinking and answer again."""
    block = f"{thinking}\n{CLOSE}\n\n{answer}"
    assert split(f"{OPEN}\n{block}") == (thinking, answer)
    assert split(block, opened=True) == (thinking, answer)


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>\nIt is big.\n</think>\n\nParis.", "It is big.", "Paris."),
        (" \n<think>a</think>b", "a", "b"),
        ("<think>\n\n</think>\n\nParis.", "", "Paris."),
        ("<think>still at it\n", "still at it", ""),
        ("<think>a </think", "a </think", ""),
        ("<think>a<think>b</think>c</think>", "a<think>b", "c</think>"),
        ("<think>a</think>\n    code", "a", "    code"),
        ("Write <think> and </think>.", "", "Write <think> and </think>."),
        ("a</think>b", "", "a</think>b"),
        ("<thinking>a</thinking>", "", "<thinking>a</thinking>"),
        (" <thi", "", " <thi"),
        ("", "", ""),
    ],
)
def test_only_a_block_at_the_start_counts(text: str, thinking: str, answer: str) -> None:
    """A text that mentions the markers later stays as it is."""
    assert split(text) == (thinking, answer)


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("It is big.\n</think>\n\nParis.", "It is big.", "Paris."),
        ("</think>Paris.", "", "Paris."),
        ("<think>\nIt is big.</think>Paris.", "It is big.", "Paris."),
        ("still at it", "still at it", ""),
        (" <thi", "<thi", ""),
    ],
)
def test_a_prompt_may_have_opened_the_block(text: str, thinking: str, answer: str) -> None:
    """Then the text begins inside it, whether it repeats the marker or not."""
    assert split(text, opened=True) == (thinking, answer)


def test_no_more_is_held_back_than_may_be_a_marker() -> None:
    """Thinking and answer come at once, but for blanks and parts of a marker."""
    stream = ThinkStream()
    assert not stream.is_thinking
    pieces = ["<th", "ink>", "\n", "We", "ll </", "x </think", ">\n", "\nYes", " <think>"]
    shown = [stream.feed(piece) for piece in pieces]
    texts = ["", "", "", "We", "ll", " </x", "", "", ""]
    assert [thinking for thinking, _ in shown] == texts
    assert [answer for _, answer in shown] == [*[""] * 7, "Yes", " <think>"]
    assert stream.finish() == ("", "")
    assert ThinkStream(opened=True).is_thinking


def test_what_opens_a_block() -> None:
    """The prompt's end alone tells, line ends aside."""
    assert opens_block("<|im_start|>assistant\n<think>\n")
    assert opens_block("<think>")
    assert not opens_block("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not opens_block("What does <think> mean?<|im_end|>\n<|im_start|>assistant\n")


def test_earlier_replies_lose_their_thinking() -> None:
    """Only assistants' blocks go; users' texts, other keys and the list itself stay."""
    messages = [
        {"role": "user", "content": "<think>a</think>b"},
        {"role": "assistant", "content": "<think>c</think>\nd", "name": "x"},
        {"role": "user", "content": "e"},
    ]
    changed = without_thinking(messages)
    assert changed[1] == {"role": "assistant", "content": "d", "name": "x"}
    assert (changed[0], changed[2]) == (messages[0], messages[2])
    assert messages[1]["content"] == "<think>c</think>\nd"
    transcript = "User: <think>a</think>b\nAssistant: d\nUser: e\nAssistant:"
    assert plain_transcript(changed) == transcript
