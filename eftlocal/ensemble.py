"""Several contexts in step over the same completion: reuse, prefill, decode, rewind.

Knows token ids and rows of logits, nothing of text or sampling.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .context import Block, Context, Rows
from .drafting import Costs, most_rows, sizes_to_measure
from .errors import ContextFull
from .fusion import heaviest

# How often each size is measured, where there is time.
_MEASUREMENTS = 3

Tokens = Sequence[int]


@dataclass(frozen=True, slots=True)
class Roles:
    """Which context plays which part, as indexes into `Ensemble.contexts`.

    Attributes:
        base: the model whose pre-training is kept.
        experts: (tuned, reference) per expert; one context may play several parts.
        drafters: per expert, the context that proposes tokens where that expert weighs most.
    """

    base: int
    experts: tuple[tuple[int, int], ...]
    drafters: tuple[int, ...]

    def drafter(self, weights: Sequence[float] | None) -> int:
        """The context that drafts for a generation with these weights of the experts.

        One context is enough: mixing several tuned models was right for one draft in a hundred
        more.
        """
        return self.drafters[heaviest(weights)]


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

    def prefill(self, sequence: int, prompts: Sequence[Tokens], most: int) -> bool:
        """Evaluate one chunk in every context that lacks prompt tokens (all but the last one).

        Args:
            sequence: where the prompts go.
            prompts: one per context.
            most: tokens of a chunk, at most; a context's n_batch is a limit, too.

        Returns:
            Whether all caches are complete now.
        """
        complete = True
        for context, prompt in zip(self.contexts, prompts, strict=True):
            held = len(context.tokens(sequence))
            end = min(held + min(context.n_batch, most), len(prompt) - 1)
            if held < end:
                context.submit([Block(sequence, prompt[held:end], 0)])
            complete = complete and end == len(prompt) - 1
        for context in self.contexts:
            context.rows()
        return complete

    def read_with_rows(self, sequence: int, prompt: Tokens, first: int) -> list[Rows]:
        """Evaluate a chunk of one prompt in all contexts, from token `first` on, with all rows.

        Returns:
            Per context (R, n_vocab) logits after each of the chunk's tokens.
        """
        most = min(min(context.n_rows, context.n_batch) for context in self.contexts)
        chunk = prompt[first : min(first + most, len(prompt) - 1)]
        if not chunk:
            return [np.empty((0, self.n_vocab), np.float32) for _ in self.contexts]
        for context in self.contexts:
            context.submit([Block(sequence, chunk, len(chunk))])
        return [context.rows()[:, : self.n_vocab] for context in self.contexts]

    def decode(self, blocks: Mapping[int, Sequence[Block]]) -> dict[int, list[Rows]]:
        """Decode blocks in several contexts: all are submitted before any is waited for.

        Args:
            blocks: by index of the context. Every token must have a row. Caches may hold more
                than the blocks afterwards, until `settle`.

        Returns:
            Per context one (n_rows, n_vocab) array per block, valid until its next decode.
        """
        clock = time.perf_counter
        spent = []
        for i, own in blocks.items():
            start = clock()
            # The common case is one token of one sequence.
            is_single = len(own) == 1 and own[0].n_rows == 1
            self.contexts[i].submit(own if is_single else self._padded(i, own))
            spent.append(clock() - start)
        rows: dict[int, list[Rows]] = {}
        for (i, own), seconds in zip(blocks.items(), spent, strict=True):
            start = clock()
            got = self.contexts[i].rows()
            self.costs.add(i, len(got), seconds + clock() - start)
            first, rows[i] = 0, []
            for block in own:
                rows[i].append(got[first : first + block.n_rows, : self.n_vocab])
                first += block.n_rows
        return rows

    def _padded(self, index: int, blocks: Sequence[Block]) -> Sequence[Block]:
        """The blocks, with more tokens after the last one where llama.cpp is quicker with more."""
        sequence, tokens, n_rows = blocks[-1]
        n_tokens = sum(block.n_rows for block in blocks)
        if n_tokens == len(blocks):
            return blocks
        context = self.contexts[index]
        room = self.n_ctx - len(context.tokens(sequence)) - n_rows
        extra = self.costs.padding(index, n_tokens, min(room, context.n_rows - n_tokens))
        padded = Block(sequence, [*tokens, *[tokens[-1]] * extra], n_rows + extra)
        return [*blocks[:-1], padded]

    def measure(self, budget: float) -> None:
        """Learn what decodes take, after what sequence 0 holds; nothing may run in it.

        Args:
            budget: seconds that this may take in all, about.
        """
        end = time.perf_counter() + budget
        for i in range(len(self.contexts)):
            # The first decode is slower than any other.
            self._seconds_of(i, 1)
        for size in list(sizes_to_measure(most_rows(self.n_vocab))) * _MEASUREMENTS:
            for i in range(len(self.contexts)):
                known = self.costs.known[i]
                expected = self.costs.seconds(i, size) if known else 0.0
                if time.perf_counter() + expected < end and (seconds := self._seconds_of(i, size)):
                    # What disturbs a decode can only make it slower.
                    known[size] = min(seconds, known.get(size, seconds))

    def _seconds_of(self, index: int, n_tokens: int) -> float:
        """Seconds of one decode, which is taken back; 0 where there is no room for it."""
        context = self.contexts[index]
        held = len(context.tokens(0))
        if held + n_tokens > self.n_ctx:
            return 0.0
        start = time.perf_counter()
        context.decode([Block(0, [0] * n_tokens, min(n_tokens, context.n_rows))])
        seconds = time.perf_counter() - start
        self._cut(index, 0, held)
        return seconds

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

    def set_threads(self, n_threads: int) -> None:
        """Compute with so many threads from now on."""
        for context in self.contexts:
            context.set_threads(n_threads)

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
