"""A model in pure NumPy whose logits depend on its whole prefix: no missing rewind hides."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from eftlocal.context import Block, Rows
from eftlocal.distributions import Array
from eftlocal.errors import ContextFull

END = 2
"""Id that ends a generation of the fakes."""


def logits_after(prefix: Sequence[int], seed: int, n_vocab: int) -> Array:
    """(V,) logits: a part that all seeds share, so that drafts are often right, and an own part."""
    data = np.asarray(prefix, np.int32).tobytes()
    common = np.random.default_rng(zlib.crc32(data)).normal(size=n_vocab)
    own = np.random.default_rng(zlib.crc32(data, seed)).normal(size=n_vocab)
    return (2.0 * common + 0.7 * own).astype(np.float32)


class FakeContext:
    """Implements `Context`; its rows turn to NaN with the next decode, as llama.cpp's may.

    `is_waiting`: rows were asked for and not fetched yet.
    """

    def __init__(
        self,
        seed: int,
        n_vocab: int = 24,
        n_ctx: int = 256,
        n_sequences: int = 1,
        n_batch: int = 32,
        can_rewind: bool = True,
    ) -> None:
        self.seed = seed
        self.n_vocab = n_vocab
        self.n_ctx = n_ctx
        self.n_sequences = n_sequences
        self.n_batch = n_batch
        self.n_rows = 16 * n_sequences
        self.can_rewind = can_rewind
        self.n_evaluated = 0
        self.n_decodes = 0
        self.is_waiting = False
        self.threads = 0
        self._tokens: list[list[int]] = [[] for _ in range(n_sequences)]
        self._rows = np.empty((0, n_vocab), np.float32)

    def decode(self, blocks: Sequence[Block]) -> Rows:
        """Append the blocks, and their rows."""
        self.submit(blocks)
        return self.rows()

    def rows(self) -> Rows:
        """The rows of the last `submit`."""
        self.is_waiting = False
        return self._rows

    def submit(self, blocks: Sequence[Block]) -> None:
        """Append the blocks; rows of the last call become NaN."""
        self._rows[...] = np.nan
        self.n_decodes += 1
        assert len({block.sequence for block in blocks}) == len(blocks)
        assert 0 < sum(len(block.tokens) for block in blocks) <= self.n_batch
        rows = []
        for sequence, tokens, n_rows in blocks:
            held = self._tokens[sequence]
            if len(held) + len(tokens) > self.n_ctx:
                raise ContextFull("the context is full")
            for i, token in enumerate(tokens):
                held.append(token)
                if i >= len(tokens) - n_rows:
                    rows.append(logits_after(held, self.seed, self.n_vocab))
            self.n_evaluated += len(tokens)
        self._rows = np.array(rows, np.float32).reshape(-1, self.n_vocab)
        assert len(self._rows) <= self.n_rows
        self.is_waiting = len(rows) > 0

    def rewind(self, sequence: int, n_tokens: int) -> None:
        """Drop tokens at the end."""
        held = self._tokens[sequence]
        assert self.can_rewind or n_tokens == len(held)
        assert 0 <= n_tokens <= len(held)
        del held[len(held) - n_tokens :]

    def set_threads(self, n_threads: int) -> None:
        """Remember it."""
        self.threads = n_threads

    def tokens(self, sequence: int) -> list[int]:
        """What the cache holds."""
        return self._tokens[sequence]
