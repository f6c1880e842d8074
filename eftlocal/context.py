"""What the ensemble needs of a model's cache: the `Context` protocol.

llama.py implements it on llama.cpp; the tests have a pure NumPy one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from .distributions import Array

Rows = Array
"""(R, V) float32 logits, valid until the next `submit` of the same context."""


class Block(NamedTuple):
    """Tokens to append to one sequence; the last `n_rows` of them get a row of logits."""

    sequence: int
    tokens: Sequence[int]
    n_rows: int


class Context(Protocol):
    """One KV cache of one model, holding `n_sequences` independent sequences.

    Attributes:
        n_vocab: width of a row of logits.
        n_ctx: tokens that one sequence can hold.
        n_sequences: number of sequences.
        n_batch: tokens that one decode takes at most.
        n_rows: rows that one decode returns at most.
        can_rewind: whether the end of a sequence can be dropped.
    """

    n_vocab: int
    n_ctx: int
    n_sequences: int
    n_batch: int
    n_rows: int
    can_rewind: bool

    def submit(self, blocks: Sequence[Block]) -> None:
        """Append every block to its sequence; each sequence at most once.

        A GPU may still compute when this returns.

        Raises:
            ContextFull: where a sequence would exceed n_ctx; nothing has been appended.
            BackendError: where the computation failed; nothing has been appended.
        """

    def rows(self) -> Rows:
        """The rows that the last `submit` asked for, in the order of its blocks; waits for them.

        Raises:
            BackendError: where the computation failed.
        """

    def decode(self, blocks: Sequence[Block]) -> Rows:
        """`submit`, then `rows`."""

    def rewind(self, sequence: int, n_tokens: int) -> None:
        """Drop the last `n_tokens` tokens of a sequence; all of them always works.

        Raises:
            BackendError: where the model cannot do it.
        """

    def set_threads(self, n_threads: int) -> None:
        """Compute with so many threads from the next decode on."""

    def tokens(self, sequence: int) -> list[int]:
        """Exactly the tokens that the cache holds for a sequence."""
