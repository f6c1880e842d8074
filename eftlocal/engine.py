"""Requests -> rounds -> token events: the one loop of plain and speculative decoding.

Before a round every cache holds its own prompt plus the completion without its last token. A
round decides up to n tokens of a sequence:

1. The drafter takes n single steps: last -> d1 -> ... -> d(n-1), keeping its n rows.
2. Every other context scores [last, d1, ..., d(n-1)] in one batch: n rows each.
3. Row by row: fuse, sample, emit; go on while the emitted token equals the draft.
4. Every cache is rewound to what was emitted.

One thread owns an engine; only `Generation.cancel` may be called from another.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from .acceptance import accept
from .context import Block
from .diagnostics import Trace
from .distributions import Array, log_sum_exp
from .ensemble import Ensemble
from .errors import ConstraintError, UsageError
from .fusion import FusionSettings
from .generation import Generation, Request, TokenEvent
from .masking import Masking
from .prefill import Prefill
from .rows import RowFusion, likeliest
from .sampling import adjust, sample
from .speculation import Draft, Speculation

# About how long the first generation with `draft = "auto"` looks at what decodes take.
_MEASURING_SECONDS = 0.25
# How often it is looked whether other programs need the cores.
_SECONDS_PER_LOOK = 0.25

Events = list[tuple[Generation, TokenEvent]]


class _Decision(NamedTuple):
    """A decided token, its row (V,) of logits, their log-sum-exp, and what alpha was."""

    row: Array
    log_z: float
    token: int
    alpha: tuple[float, ...]
    trace: Trace | None


class Engine:
    """Runs generations over one ensemble.

    Args:
        ensemble: contexts in step.
        eog: ids that end a generation (the union over the models).
        neutral: ids for which base and reference count as equal, so that tuned alone decides.
        threads: says, whenever asked, how many threads to compute with; None leaves them.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        eog: frozenset[int],
        neutral: frozenset[int] = frozenset(),
        threads: Callable[[], int] | None = None,
    ) -> None:
        self.ensemble = ensemble
        self._threads = threads
        self._threads_asked = time.perf_counter()
        self.eog = eog
        self.neutral = neutral
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._last_used = [0.0] * ensemble.n_sequences
        self._is_measured = False
        self._fusion = RowFusion(ensemble.roles, ensemble.n_vocab, neutral)
        self._reader = Prefill(ensemble, self._fusion)
        self.speculation = Speculation(ensemble, eog)

    def submit(self, request: Request) -> Generation:
        """Queue a request.

        Raises:
            ContextFull, UsageError: as `check` does.
        """
        self.check(request)
        options = request.options
        fusion = FusionSettings(
            options.alpha,
            request.weights,
            options.alpha_low,
            options.alpha_high,
            options.upscale_top_p,
            options.part,
        )
        room = self.ensemble.check_room(request.prompts)
        drafter = self.ensemble.roles.drafter(request.weights)
        masking = Masking(request.constraint) if request.constraint else None
        generation = Generation(request, room, fusion, drafter, masking)
        self._waiting.append(generation)
        return generation

    def check(self, request: Request) -> None:
        """Check that a request can run; any thread may call this.

        Raises:
            ContextFull: where its prompt leaves no room for a token.
            UsageError: where its prompt is empty or has ids outside the vocabulary.
        """
        for prompt in request.prompts:
            if not prompt:
                raise UsageError("the prompt is empty; give at least one token")
            if min(prompt) < 0 or max(prompt) >= self.ensemble.n_vocab:
                raise UsageError(f"prompt token ids must be 0 to {self.ensemble.n_vocab - 1}")
        if request.echo and len(set(request.prompts)) > 1:
            raise UsageError("only a prompt that all models share can be scored")
        self.ensemble.check_room(request.prompts)

    def cancel(self, generation: Generation) -> None:
        """End a generation now, if it runs; its sequence is free when this returns."""
        generation.cancel()
        self._drop_cancelled()

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Run one request to its end; closing the iterator cancels it."""
        generation = self.submit(request)
        try:
            while generation.finish_reason is None:
                yield from [event for owner, event in self.step() if owner is generation]
        finally:
            self.cancel(generation)

    def step(self) -> Events:
        """One chunk of one unread prompt, and one round of all others.

        Raises:
            BackendError: where a model failed; every running generation has ended then.
        """
        self._drop_cancelled()
        try:
            self._set_threads()
            self._admit()
            self._read()
            ready = [g for g in self._running if g.last]
            if len(ready) > 1:
                # llama.cpp computes sequences together where their numbers ascend.
                ready.sort(key=lambda g: g.sequence)
            return self._round(ready) if ready else []
        except BaseException as error:
            for generation in list(self._running):
                generation.error = error
                self._finish(generation, "error")
            raise

    def _set_threads(self) -> None:
        now = time.perf_counter()
        if self._threads is not None and now - self._threads_asked > _SECONDS_PER_LOOK:
            self._threads_asked = now
            self.ensemble.set_threads(self._threads())

    def _drop_cancelled(self) -> None:
        for generation in [g for g in self._running if g.cancelled]:
            self._finish(generation, "cancelled")
        for generation in [g for g in self._waiting if g.cancelled]:
            self._waiting.remove(generation)
            generation.finish_reason = "cancelled"

    def _admit(self) -> None:
        """Give waiting requests the free sequence that shares most with their prompt."""
        while self._waiting and len(self._running) < self.ensemble.n_sequences:
            generation = self._waiting[0]
            if generation.request.options.draft == "auto" and not self._running:
                self._measure()
            prompts = generation.request.prompts
            busy = {g.sequence for g in self._running}
            free = [s for s in range(self.ensemble.n_sequences) if s not in busy]
            # What a cache holds has no scores, so that a prompt that wants them shares nothing.
            useful = tuple(() for _ in prompts) if generation.request.echo else prompts
            overlap = self.ensemble.overlap
            best = max(free, key=lambda s: (overlap(s, useful), -self._last_used[s]))
            kept = self.ensemble.reuse(best, useful)
            # Only now: where something above fails, it still waits.
            self._waiting.popleft()
            generation.sequence = best
            generation.cached_tokens = kept[self.ensemble.roles.base]
            generation.times.started = time.perf_counter()
            self._running.append(generation)
            self._reader.report(generation)

    def _measure(self) -> None:
        """Learn what decodes take, once; nothing may run."""
        if self.ensemble.can_rewind and not self._is_measured:
            self._is_measured = True
            self.ensemble.measure(_MEASURING_SECONDS)

    def _read(self) -> None:
        generation = self._reader.step(self._running)
        if generation and generation.last and not generation.request.generate:
            self._finish(generation, "length")

    def _finish(self, generation: Generation, reason: str) -> None:
        """Leave the caches as the emitted tokens say and give the sequence back."""
        generation.finish_reason = reason
        generation.times.finished = time.perf_counter()
        self._running.remove(generation)
        self._last_used[generation.sequence] = generation.times.finished
        if reason == "error":
            self.ensemble.forget(generation.sequence)
        else:
            self._settle(generation)

    def _settle(self, generation: Generation) -> None:
        prompts = generation.request.prompts
        self.ensemble.settle(generation.sequence, prompts, len(generation.tokens))

    def _round(self, ready: Sequence[Generation]) -> Events:
        drafts = self.speculation.draft(ready)
        events: Events = []
        for draft, rows in zip(drafts, self._score(drafts), strict=True):
            generation = draft.generation
            for j in range(draft.n):
                if generation.cancelled:
                    break
                try:
                    event = self._decide(draft, j, [of_context[j][None] for of_context in rows])
                except ConstraintError as error:
                    generation.error, generation.finish_reason = error, "error"
                    break
                events.append((generation, event))
                if generation.finish_reason or not event.from_draft:
                    break
            if generation.finish_reason:
                self._finish(generation, generation.finish_reason)
            else:
                self._settle(generation)
        return events

    def _score(self, drafts: Sequence[Draft]) -> list[list[list[Array] | Array]]:
        """Phase 2: every context scores what others drafted; per draft, n rows (V,) per context."""
        blocks: dict[int, list[Block]] = {}
        for draft in drafts:
            generation = draft.generation
            for i, last in enumerate(generation.last):
                if i != generation.drafter:
                    block = Block(generation.sequence, [last, *draft.tokens], draft.n)
                    blocks.setdefault(i, []).append(block)
        rows = {i: iter(own) for i, own in self.ensemble.decode(blocks).items()}
        scored: list[list[list[Array] | Array]] = []
        for draft in drafts:
            scored.append([])
            for i in range(len(self.ensemble.contexts)):
                is_own = i == draft.generation.drafter
                scored[-1].append(draft.rows if is_own else next(rows[i]))
        return scored

    def _decide(self, draft: Draft, j: int, rows: Sequence[Array]) -> TokenEvent:
        """Phase 3: fuse and sample one row (rows: (1, V) per context), and emit the token."""
        generation = draft.generation
        options = generation.request.options
        held = generation.alpha_to_use(len(generation.tokens))
        fused = self._fusion.fuse(rows, generation.fusion, held)
        row, log_z = fused.logits[0], float(fused.log_z[0])
        shift = 0.0
        is_fused = generation.fusion.part == "fused"
        if options.repetition_penalty != 1 and generation.counts and is_fused:
            shift = float(log_sum_exp(rows[self.ensemble.roles.base])[0]) - log_z
        adjusted = adjust(row, options, generation.counts, shift)
        if generation.masking:
            adjusted = generation.masking.apply(adjusted, j)
        token = self._draw(draft, j, adjusted, log_z if adjusted is row else None)
        generation.held = alpha = tuple(fused.alpha[0].tolist())
        fusion = generation.fusion
        trace = self._fusion.trace(rows, fusion, fused, token) if options.trace else None
        return self._emit(draft, j, _Decision(row, log_z, token, alpha, trace))

    def _draw(self, draft: Draft, j: int, adjusted: Array, log_z: float | None) -> int:
        """Draw the token of row j from its adjusted logits (V,), as the request accepts drafts."""
        generation, noise = draft.generation, draft.noises[j]
        options = generation.request.options
        if options.accept == "coupled":
            return sample(adjusted, options, noise, log_z)
        proposal = draft.tokens[j] if j < len(draft.tokens) else None
        drafted = adjust(draft.rows[j], options, generation.counts)
        if generation.masking:
            drafted = generation.masking.apply(drafted, j)
        return accept(drafted, adjusted, proposal, options, noise)[0]

    def _emit(self, draft: Draft, j: int, decision: _Decision) -> TokenEvent:
        generation = draft.generation
        request = generation.request
        row, log_z, token, alpha, trace = decision
        is_end = token in self.eog
        if generation.masking and not is_end:
            is_end = generation.masking.emit(token, j)
        accepted = self.speculation.learn(draft, j, token)
        if j == 0:
            generation.rounds += 1
            generation.drafted += len(draft.tokens)
        generation.accepted += accepted
        if not generation.tokens:
            generation.times.first_token = time.perf_counter()
        generation.tokens.append(token)
        generation.counts[token] += 1
        generation.last = [token] * len(self.ensemble.contexts)
        reason = None
        if is_end:
            reason = "stop"
        elif len(generation.tokens) >= generation.limit:
            reason = "length"
        n_top = request.options.top_logprobs
        top = likeliest(row, log_z, n_top) if n_top else ()
        event = TokenEvent(token, float(row[token]) - log_z, alpha, accepted, reason, top, trace)
        stopped = request.on_token is not None and request.on_token(event)
        generation.finish_reason = "stop" if stopped else reason
        return event
