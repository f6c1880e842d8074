"""Several contexts in step over the same completion: reuse, prefill, decode, rewind.

Knows token ids and rows of logits, nothing of text or sampling.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from .context import Block, Context, Rows
from .drafting import Costs, sizes_to_measure
from .errors import ContextFull
from .options import MAX_DRAFT

Tokens = Sequence[int]


@dataclass(frozen=True, slots=True)
class Roles:
    """Which context plays which part, as indexes into `Ensemble.contexts`.

    Attributes:
        base: the model whose pre-training is kept.
        experts: (tuned, reference) per expert; one context may play several parts.
        drafter: the context that proposes tokens.
    """

    base: int
    experts: tuple[tuple[int, int], ...]
    drafter: int


class Ensemble:
    """Contexts that hold, per sequence, their own prompt and a common completion.

    Attributes:
        contexts: every context once.
        roles: who is base, tuned, reference, drafter.
        n_vocab: common width of rows; ids from it on are padding in some model.
        n_ctx: tokens that one sequence can hold in every context.
        n_sequences: sequences that every context has.
        can_rewind: whether every context can; without it nothing can be drafted.
        costs: what decodes take.
    """

    def __init__(self, contexts: Sequence[Context], roles: Roles, n_vocab: int) -> None:
        self.contexts = tuple(contexts)
        self.roles = roles
        self.n_vocab = n_vocab
        self.n_ctx = min(context.n_ctx for context in self.contexts)
        self.n_sequences = min(context.n_sequences for context in self.contexts)
        self.can_rewind = all(context.can_rewind for context in self.contexts)
        self.costs = Costs.of(len(self.contexts))

    def check_room(self, prompts: Sequence[Tokens]) -> int:
        """Tokens that a completion of these prompts (one per context) can have.

        Raises:
            ContextFull: where there is no room for even one.
        """
        longest = max(len(prompt) for prompt in prompts)
        if longest >= self.n_ctx:
            raise ContextFull(
                f"the prompt has {longest} tokens and needs at least one more for an answer, "
                f"but the context holds {self.n_ctx}; shorten the prompt or raise ctx"
            )
        return self.n_ctx - longest

    def overlap(self, sequence: int, prompts: Sequence[Tokens]) -> int:
        """Prompt tokens, summed over contexts, that the caches of a sequence already hold."""
        return sum(self._usable(i, sequence, prompt) for i, prompt in enumerate(prompts))

    def reuse(self, sequence: int, prompts: Sequence[Tokens]) -> list[int]:
        """Rewind every cache to what it shares with its prompt; tokens kept, per context."""
        kept = []
        for i, prompt in enumerate(prompts):
            length = self._usable(i, sequence, prompt)
            self._cut(i, sequence, length)
            kept.append(length)
        return kept

    def _usable(self, index: int, sequence: int, prompt: Tokens) -> int:
        """Cached tokens that stay useful: the last prompt token is always evaluated again."""
        context = self.contexts[index]
        held = context.tokens(sequence)
        length = common_prefix(held, prompt[:-1])
        return length if context.can_rewind or length == len(held) else 0

    def prefill(self, sequence: int, prompts: Sequence[Tokens]) -> bool:
        """Evaluate one chunk in every context that lacks prompt tokens (all but the last one).

        Returns:
            Whether all caches are complete now.
        """
        complete = True
        for context, prompt in zip(self.contexts, prompts, strict=True):
            held = len(context.tokens(sequence))
            end = min(held + context.n_batch, len(prompt) - 1)
            if held < end:
                context.decode([Block(sequence, prompt[held:end], 0)])
            complete = complete and end == len(prompt) - 1
        return complete

    def draft(self, blocks: Sequence[Block]) -> Rows:
        """Decode in the drafter; rows (R, n_vocab) are valid until its next decode."""
        return self._decode(self.roles.drafter, blocks)

    def score(self, blocks: Sequence[Sequence[Block]], drafted: Rows) -> list[Rows]:
        """Decode in every context but the drafter.

        Args:
            blocks: blocks per context (the drafter's are not used).
            drafted: (R, n_vocab) the drafter's rows for the same positions.

        Returns:
            (R, n_vocab) per context, valid until its next decode.
        """
        return [
            drafted if i == self.roles.drafter else self._decode(i, blocks[i])
            for i in range(len(self.contexts))
        ]

    def _decode(self, index: int, blocks: Sequence[Block]) -> Rows:
        start = time.perf_counter()
        rows = self.contexts[index].decode(blocks)[:, : self.n_vocab]
        n_tokens = sum(len(block.tokens) for block in blocks)
        self.costs.add(index, n_tokens, time.perf_counter() - start)
        return rows

    def measure(self, budget: float) -> None:
        """Learn what decodes take, where all sequences are empty.

        Args:
            budget: seconds that this may take in all, about.
        """
        end = time.perf_counter() + budget
        for i, context in enumerate(self.contexts):
            # The first decode is slower than any other.
            context.decode([Block(0, [0], 1)])
            self._cut(i, 0, 0)
        for size in sizes_to_measure(MAX_DRAFT):
            for i, context in enumerate(self.contexts):
                expected = self.costs.seconds(i, size) if self.costs.known[i] else 0.0
                if size <= self.n_ctx and time.perf_counter() + expected < end:
                    self._decode(i, [Block(0, [0] * size, min(size, context.n_rows))])
                    self._cut(i, 0, 0)

    def settle(self, sequence: int, prompts: Sequence[Tokens], n_completion: int) -> None:
        """Drop what caches hold beyond the prompt and the completion without its last token."""
        for i, prompt in enumerate(prompts):
            self._cut(i, sequence, len(prompt) + n_completion - 1)

    def forget(self, sequence: int) -> None:
        """Empty a sequence in every context; works in any state."""
        for i in range(len(self.contexts)):
            self._cut(i, sequence, 0)

    def _cut(self, index: int, sequence: int, length: int) -> None:
        """Shorten a cache to `length` tokens, or empty it where it cannot be shortened."""
        context = self.contexts[index]
        held = len(context.tokens(sequence))
        if held > length:
            context.rewind(sequence, held - length if context.can_rewind else held)

    def close(self) -> None:
        """Free every context that can be freed."""
        for context in self.contexts:
            close = getattr(context, "close", None)
            if close is not None:
                close()


def common_prefix(left: Tokens, right: Tokens) -> int:
    """Number of leading tokens that two sequences share."""
    if list(left[: len(right)]) == list(right):
        return len(right)
    for i, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return i
    return min(len(left), len(right))
