"""Constraints of replies that may begin with a <think> block: they are for the answer after it.

In the block every token is free but end tokens: without an answer the text would match nothing.
Where the prompt has opened the block, the reply begins in it; else a model may open one whose
vocabulary has the marker as one token, or begin with the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ..masking import Constraint, Mask, Matcher
from ..reasoning import CLOSE, OPEN

_CLOSE = CLOSE.encode()
# Line ends between block and answer, in tokens; more would not end.
_MOST_LINE_ENDS = 4


@dataclass(frozen=True, slots=True)
class Markers:
    """What has to be known of a vocabulary's tokens.

    Attributes:
        pieces: their bytes.
        opening: the token that opens a block; None where it takes several.
        free: (V,) tokens that may stand in a block.
        line_ends: (V,) tokens of line ends only.
        mixed: a beginning of the closing marker -> tokens that finish it and go on with an answer.
    """

    pieces: Sequence[bytes]
    opening: int | None
    free: Mask
    line_ends: Mask
    mixed: dict[bytes, list[int]]

    @classmethod
    def of(cls, pieces: Sequence[bytes], eog: frozenset[int]) -> Markers:
        """Look at all tokens.

        Args:
            pieces: (V,) bytes of each token; b"" for markers that are no text.
            eog: ids that end a text.
        """
        free = np.ones(len(pieces), np.bool_)
        free[[token for token in eog if token < len(pieces)]] = False
        line_ends = np.array([bool(p) and not p.strip(b"\r\n") for p in pieces], np.bool_)
        mixed: dict[bytes, list[int]] = {}
        for token, piece in enumerate(pieces):
            for before in _beginnings(piece) if b">" in piece else ():
                mixed.setdefault(before, []).append(token)
        opening = next((i for i, piece in enumerate(pieces) if piece == OPEN.encode()), None)
        return cls(pieces, opening, free, line_ends, mixed)


def _beginnings(piece: bytes) -> list[bytes]:
    """Beginnings of the closing marker after which a token finishes it and adds an answer."""
    found = [b""] if piece.partition(_CLOSE)[2].strip(b"\r\n") else []
    for n in range(1, len(_CLOSE)):
        rest = piece.removeprefix(_CLOSE[n:])
        if len(rest) < len(piece) and rest.strip(b"\r\n"):
            found.append(_CLOSE[:n])
    return found


class AfterThinking:
    """A constraint of what follows a <think> block; see `masking.Constraint`.

    Args:
        answer: the constraint of the answer.
        markers: of the vocabulary.
        opened: the text begins in a block.
    """

    def __init__(self, answer: Constraint, markers: Markers, opened: bool) -> None:
        self._answer = answer
        self._markers = markers
        self._opened = opened

    def start(self) -> ThinkingMatcher:
        """See `masking.Constraint`."""
        return ThinkingMatcher(self._answer.start(), self._markers, self._opened)


class _State(NamedTuple):
    """Where a text is, the end of its block so far, and how many line ends follow the block."""

    part: Literal["start", "block", "gap", "answer"]
    tail: bytes = b""
    n_line_ends: int = 0


class ThinkingMatcher:
    """Follows one reply; see `masking.Matcher`."""

    def __init__(self, answer: Matcher, markers: Markers, opened: bool) -> None:
        self._answer = answer
        self._markers = markers
        self._states = [_State("block" if opened else "start")]

    @property
    def is_ended(self) -> bool:
        """See `masking.Matcher`."""
        return self._states[-1].part == "answer" and self._answer.is_ended

    def mask(self) -> Mask:
        """See `masking.Matcher`."""
        part, tail, n_line_ends = self._states[-1]
        if part == "block":
            return self._block_mask(tail)
        mask = self._answer.mask()
        if part == "start" and self._markers.opening is not None:
            mask[self._markers.opening] = True
        elif part == "gap" and n_line_ends < _MOST_LINE_ENDS:
            mask = mask | self._markers.line_ends
        return mask

    def _block_mask(self, tail: bytes) -> Mask:
        mask = self._markers.free.copy()
        for before, tokens in self._markers.mixed.items():
            if tail.endswith(before):
                mask[tokens] = False
        return mask

    def consume(self, token: int) -> None:
        """See `masking.Matcher`."""
        state = self._states[-1]
        after = self._after(state, token)
        self._states.append(after)
        if after.part == "answer":
            self._answer.consume(token)

    def _after(self, state: _State, token: int) -> _State:
        part, tail, n_line_ends = state
        if part == "start" and token == self._markers.opening:
            return _State("block")
        if part == "block":
            text = tail + self._markers.pieces[token]
            if _CLOSE in text:
                return _State("gap")
            return _State("block", text[-len(_CLOSE) + 1 :])
        if part == "gap" and self._markers.line_ends[token] and not self._answer.mask()[token]:
            return _State("gap", b"", n_line_ends + 1)
        return _State("answer")

    def rollback(self, n_tokens: int) -> None:
        """See `masking.Matcher`."""
        dropped = self._states[len(self._states) - n_tokens :]
        del self._states[len(self._states) - n_tokens :]
        n_answer = sum(state.part == "answer" for state in dropped)
        if n_answer:
            self._answer.rollback(n_answer)
