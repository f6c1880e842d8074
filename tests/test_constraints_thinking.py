"""Constraints of replies that begin with a <think> block."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.constraints import Compiler, Thinking
from eftlocal.masking import Matcher
from eftlocal.options import GenerationOptions
from eftlocal.reasoning import split

from .words import FakeWords

END = 0
OPEN, CLOSE = 1, 2
PIECES = [
    b"",
    b"<think>",
    b"</think>",
    b"a",
    b"b",
    b"\n",
    b"\n\n",
    b" ",
    b"<",
    b"/",
    b"think",
    b">",
]
PIECES += [b">\n", b">a", b"</think>a", b"k>b", b"</", b"ink>", b"x", b"1", b"b1", b"\n1"]
MARKER = b"</think>"
REGEX = r"[ab]{2}1?"
# A model whose markers take several tokens.
SPELLED = FakeWords([*PIECES[:1], b"y", b"z", *PIECES[3:]])
MARKED = FakeWords(PIECES)


def start(words: FakeWords, thinking: Thinking, regex: str = REGEX) -> Matcher:
    """A matcher of a reply."""
    compiler = Compiler(words, words.n_tokens, frozenset({END}))
    constraint = compiler.compile(GenerationOptions(regex=regex), thinking)
    assert constraint is not None
    return constraint.start()


def walk(matcher: Matcher, words: FakeWords, seed: int) -> tuple[bytes, bool]:
    """A random text that the masks allow, and whether it ended by itself."""
    rng = random.Random(seed)
    text = b""
    for _ in range(60):
        allowed = np.flatnonzero(matcher.mask()).tolist()
        # Seldom would chance alone spell the marker.
        n = max(n for n in range(len(MARKER)) if text.endswith(MARKER[:n]))
        spelling = [t for t in allowed if n and words.pieces[t][:1] == MARKER[n : n + 1]]
        token = rng.choice(spelling if spelling and rng.random() < 0.7 else allowed)
        if token == END:
            return text, True
        matcher.consume(token)
        text += words.pieces[token]
        if matcher.is_ended:
            return text, True
    return text, False


@pytest.mark.parametrize("words", [MARKED, SPELLED], ids=["marked", "spelled"])
@pytest.mark.parametrize("thinking", ["opened", "allowed", "none"])
def test_the_answer_matches(words: FakeWords, thinking: Thinking) -> None:
    """Whatever is thought, what follows the block is by the constraint."""
    n_ended, n_thought = 0, 0
    for seed in range(300):
        text, ended = walk(start(words, thinking), words, seed)
        thought, answer = split(text.decode(), thinking == "opened")
        n_ended += ended
        n_thought += bool(thought)
        if ended:
            assert re.fullmatch(REGEX, answer), text
    assert n_ended > 20
    can_think = thinking == "opened" or (thinking == "allowed" and words is MARKED)
    assert (n_thought > 0) == can_think


def test_a_block_has_no_end_tokens() -> None:
    """Else a reply would end without an answer."""
    matcher = start(MARKED, "opened")
    assert not matcher.mask()[END]
    assert matcher.mask().sum() == MARKED.n_tokens - 2  # </think>a begins the answer in the block
    matcher.consume(CLOSE)
    matcher.consume(PIECES.index(b"\n\n"))
    assert np.flatnonzero(matcher.mask()).tolist() == [3, 4, 5, 6]


def test_line_ends_before_the_answer_are_few() -> None:
    """A model that writes nothing else comes to the answer all the same."""
    matcher = start(MARKED, "opened")
    matcher.consume(CLOSE)
    for _ in range(4):
        matcher.consume(PIECES.index(b"\n"))
    assert np.flatnonzero(matcher.mask()).tolist() == [3, 4]


@settings(deadline=None, max_examples=150)
@given(
    steps=st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 4)), max_size=20),
    thinking=st.sampled_from(["opened", "allowed"]),
)
def test_rollback_leaves_no_trace(steps: list[tuple[int, int]], thinking: Thinking) -> None:
    """A matcher that went to and fro has the masks of one that took the straight way."""
    matcher = start(MARKED, thinking)
    tokens: list[int] = []
    for choice, back in steps:
        if matcher.is_ended:
            break
        allowed = [t for t in np.flatnonzero(matcher.mask()).tolist() if t != END]
        # The block's end would come seldom.
        token = CLOSE if choice % 4 == 0 and CLOSE in allowed else allowed[choice % len(allowed)]
        matcher.consume(token)
        tokens.append(token)
        back = min(back, len(tokens))
        matcher.rollback(back)
        del tokens[len(tokens) - back :]
        straight = start(MARKED, thinking)
        for token in tokens:
            straight.consume(token)
        assert matcher.is_ended == straight.is_ended
        assert matcher.is_ended or np.array_equal(matcher.mask(), straight.mask())
