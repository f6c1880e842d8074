"""How prompts are read: in chunks, in turns, and with a score for every token where asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .distributions import Array
from .ensemble import Ensemble
from .generation import Generation, TokenEvent
from .rows import RowFusion, likeliest

# While others generate, a chunk is so much smaller, so that they wait less for it.
_SHARE_BESIDE_OTHERS = 4


class Prefill:
    """Reads the prompts of generations that were given a sequence.

    Args:
        ensemble: contexts in step.
        fusion: fuses the rows of prompts that are scored.
    """

    def __init__(self, ensemble: Ensemble, fusion: RowFusion) -> None:
        self._ensemble = ensemble
        self._fusion = fusion
        self._oldest_is_next = False

    def step(self, running: Sequence[Generation]) -> Generation | None:
        """Read one chunk of one prompt; returns whose it was, None where all have been read.

        The shortest rest goes first, so that a short prompt need not wait for a long one; the
        oldest prompt has every second turn, so that it does not wait for ever.
        """
        unread = _candidates(running)
        if not unread:
            return None
        self._oldest_is_next = not self._oldest_is_next
        generation = unread[0] if self._oldest_is_next else min(unread, key=self._n_unread)
        request = generation.request
        if request.echo:
            complete = self._score(generation)
        else:
            most = max(context.n_batch for context in self._ensemble.contexts)
            if any(generation.last for generation in running):
                most = max(1, most // _SHARE_BESIDE_OTHERS)
            complete = self._ensemble.prefill(generation.sequence, request.prompts, most)
        self.report(generation)
        if complete:
            generation.last = [prompt[-1] for prompt in request.prompts]
            generation.times.prefilled = time.perf_counter()
        return generation

    def report(self, generation: Generation) -> None:
        """Say how many prompt tokens of the base are in its cache; the last one never is yet."""
        request, base = generation.request, self._ensemble.roles.base
        if request.on_prefill:
            done = len(self._ensemble.contexts[base].tokens(generation.sequence))
            request.on_prefill(done, len(request.prompts[base]) - 1)

    def _n_unread(self, generation: Generation) -> int:
        held = self._ensemble.contexts[self._ensemble.roles.base].tokens(generation.sequence)
        return len(generation.request.prompts[self._ensemble.roles.base]) - len(held)

    def _score(self, generation: Generation) -> bool:
        """Read a chunk of a prompt that all contexts share, and score the tokens after it."""
        prompt = generation.request.prompts[0]
        first = len(generation.scores)
        rows = self._ensemble.read_with_rows(generation.sequence, prompt, first)
        for j in range(len(rows[0])):
            self._score_token(generation, [own[j : j + 1] for own in rows], prompt[first + j + 1])
        return len(generation.scores) == len(prompt) - 1

    def _score_token(self, generation: Generation, rows: Sequence[Array], token: int) -> None:
        options = generation.request.options
        held = generation.alpha_to_use(len(generation.scores))
        fused = self._fusion.fuse(rows, generation.fusion, held)
        row, log_z = fused.logits[0], float(fused.log_z[0])
        generation.held = alpha = tuple(fused.alpha[0].tolist())
        top = likeliest(row, log_z, options.top_logprobs) if options.top_logprobs else ()
        fusion = generation.fusion
        trace = self._fusion.trace(rows, fusion, fused, token) if options.trace else None
        logprob = float(row[token]) - log_z
        generation.scores.append(TokenEvent(token, logprob, alpha, top=top, trace=trace))


def _candidates(running: Sequence[Generation]) -> list[Generation]:
    """Prompts to be read, oldest first; of those that are scored only the one that is furthest.

    Scored by turns, they would lie mixed in a cache that sequences share, and rounding would depend
    on that.
    """
    unread = [generation for generation in running if not generation.last]
    scored = [generation for generation in unread if generation.request.echo]
    if len(scored) > 1:
        furthest = max(scored, key=lambda generation: len(generation.scores))
        unread = [g for g in unread if g is furthest or not g.request.echo]
    return unread
