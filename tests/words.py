"""Vocabularies for constraints, without any model."""

from __future__ import annotations

from collections.abc import Sequence


class FakeWords:
    """Pieces of a vocabulary; those that are empty are control tokens.

    Args:
        pieces: bytes of every token.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = list(pieces)
        self.n_tokens = len(self.pieces)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of a token; a control token's marker only where `special`."""
        return self.pieces[token] or (b"<|%d|>" % token if special else b"")

    def is_control(self, token: int) -> bool:
        """Whether a token has no bytes."""
        return not self.pieces[token]


def byte_words(*more: bytes) -> FakeWords:
    """Two control tokens (0 is the end), then every byte, then some longer tokens."""
    return FakeWords([b"", b"", *(bytes([i]) for i in range(256)), *more])
