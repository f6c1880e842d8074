"""Section `batching`: several generations at once, against what bare decode calls allow."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import BackendError
from ..experts import resolve_weights
from ..generation import Generation, Request
from ..llama.library import lib
from ..model import FusedModel
from .floors import BareContext, bare_contexts
from .report import Cell, Chart, Column, Series, Table
from .subject import PLAIN, Subject
from .target import Seen, Subjects, Target, over_loads
from .timing import Effort, interleaved, ratio

COUNTS = (1, 2, 4, 8)
"""Generations at once."""

_CTX = 512
_CACHES = {"separate": "off", "unified": "on"}
_SHORTEST, _LONGER = 24, 3
_FEWEST_STEPS, _MOST_STEPS = 6, 16
# Many things are measured: each takes this part of the tokens of one measurement elsewhere.
_PART = 0.5
_BARE = "bare"
_DRAFTS = ("off", "auto")


class Crowd:
    """Generations of which some run at once: each that ends is followed by the next one.

    Every one has a prompt, a length, a seed and a temperature of its own. A sequence per prompt
    holds it, so that no measurement reads prompts.

    Args:
        subject: a model with `parallel` sequences; as many generations are made.
        draft: of all of them.
        random: whether prompts are random tokens of unequal lengths.
    """

    def __init__(self, subject: Subject, draft: str, random: bool) -> None:
        self._engine = subject.model.engine
        # Longest idle first. Two of one prompt at once would not both find it cached.
        self._idle = deque(_requests(subject, draft, random))
        self._warm = False

    def _start(self) -> Generation:
        return self._engine.submit(self._idle.popleft())

    def _end(self, generation: Generation) -> None:
        self._engine.cancel(generation)
        self._idle.append(generation.request)

    def seconds(self, n: int, n_tokens: int) -> float:
        """Seconds per token, of all together, while n of them run and decide `n_tokens`."""
        if not self._warm:
            self._warm = True
            self._read_prompts()
        running = [self._start() for _ in range(n)]
        try:
            while not all(generation.tokens for generation in running):
                self._engine.step()
            done = 0
            start = time.perf_counter()
            while done < n_tokens:
                for i, generation in enumerate(running):
                    if generation.finish_reason is not None:
                        self._end(generation)
                        running[i] = self._start()
                done += len(self._engine.step())
            return (time.perf_counter() - start) / done
        finally:
            for generation in running:
                self._end(generation)

    def _read_prompts(self) -> None:
        """Run all of them once, so that each prompt lies in a sequence."""
        for sequence in range(self._engine.ensemble.n_sequences):
            self._engine.ensemble.forget(sequence)
        generations = [self._engine.submit(request) for request in self._idle]
        while any(generation.finish_reason is None for generation in generations):
            self._engine.step()


def _requests(subject: Subject, draft: str, random: bool) -> list[Request]:
    """One request per sequence of the model; even ones are greedy."""
    model = subject.model
    n_contexts, n = len(model.engine.ensemble.contexts), model.runtime.parallel
    if random:
        lengths = [_SHORTEST + _LONGER * i for i in range(n)]
        prompts = [(subject.tokens(length),) * n_contexts for length in lengths]
    else:
        prompts = []
        for start in subject.starts:
            stream = start(**{**PLAIN, "max_tokens": 1})
            prompts.append(stream.request.prompts)
            stream.close()
    requests = []
    for i in range(n):
        given: dict[str, Any] = {
            "draft": draft,
            "seed": i,
            "temperature": 0.7 * (i % 2),
            "max_tokens": subject.effort.few + _LONGER * i,
        }
        options = model.options.updated(given)
        weights = resolve_weights(model.experts, options)
        requests.append(Request(prompts[i % len(prompts)], options, weights, choice=i))
    return requests


def batching(target: Target, effort: Effort) -> tuple[Table, ...]:
    """Throughput with several generations at once, with separate and with unified caches."""
    most = max(COUNTS)
    ctx = min(target.runtime.get("ctx") or _CTX, _CTX)
    settings = {
        name: {"parallel": most, "ctx": ctx, "kv_unified": unified}
        for name, unified in _CACHES.items()
    }
    seen, _ = over_loads(target, effort, settings, partial(_measure, random=target.random))
    return (_table(seen),)


def _measure(subjects: Subjects, random: bool) -> Seen:
    """(caches, (kind, generations)) -> seconds: of a bare step, or per token of all together."""
    kinds: dict[tuple[str, Any], Callable[[], float]] = {}
    rounds = 1
    for name, subject in subjects.items():
        rounds, n_tokens = subject.effort.rounds, subject.n_tokens
        part = max(round(n_tokens * _PART), _FEWEST_STEPS)
        steps = min(part, _MOST_STEPS)
        crowds = {draft: Crowd(subject, draft, random) for draft in _DRAFTS}
        for n in COUNTS:
            bare = (subject.model, subject.tokens(64), n, steps, part // steps)
            for draft, crowd in crowds.items():
                kinds[name, (draft, n)] = partial(crowd.seconds, n, max(part, _FEWEST_STEPS * n))
            # They follow what generations left, so that the depths are the same.
            kinds[name, (_BARE, n)] = partial(parallel_seconds, *bare)
    return dict(interleaved(kinds, rounds))


def parallel_seconds(
    model: FusedModel, tokens: Sequence[int], n: int, steps: int, repeats: int = 1
) -> float:
    """Seconds of a step of bare decode calls: one token of n sequences in every context in turn.

    They follow what the sequences hold, and are taken back (where a model cannot rewind, its
    sequences are empty afterwards).

    Args:
        model: with n sequences or more, none of which runs.
        tokens: ids to decode, in turn.
        n: sequences.
        steps: decoded one after another.
        repeats: how often, from the same place.
    """
    contexts = bare_contexts(model)
    seconds, failed = 0.0, 0
    decode, logits = lib.llama_decode, lib.llama_get_logits
    for _ in range(repeats):
        held = [
            [len(context.tokens(i)) for i in range(n)] for context in model.engine.ensemble.contexts
        ]
        batches = [
            [_step_batch(tokens, [length + step for length in lengths]) for lengths in held]
            for step in range(steps)
        ]
        calls = [
            [(context.handle, batch) for context, (batch, _) in zip(contexts, row, strict=True)]
            for row in batches
        ]
        start = time.perf_counter()
        for row in calls:
            for handle, batch in row:
                failed |= decode(handle, batch)
                logits(handle)
        seconds += time.perf_counter() - start
        for context, lengths in zip(contexts, held, strict=True):
            _cut(model, context, lengths)
    if failed:
        raise BackendError("llama_decode failed while sequences were decoded together")
    return seconds / (steps * repeats)


def _cut(model: FusedModel, context: BareContext, lengths: Sequence[int]) -> None:
    """Shorten the first sequences to these lengths again."""
    memory = lib.llama_get_memory(context.handle)
    for sequence, length in enumerate(lengths):
        if not lib.llama_memory_seq_rm(memory, sequence, length, -1):
            lib.llama_memory_seq_rm(memory, sequence, -1, -1)
            model.engine.ensemble.forget(sequence)


def _step_batch(tokens: Sequence[int], positions: Sequence[int]) -> tuple[Any, tuple[Any, ...]]:
    """A token of each of the first sequences, at its position; and what the batch points to."""
    n = len(positions)
    ids = (lib.llama_seq_id * n)(*range(n))
    size = ctypes.sizeof(lib.llama_seq_id)
    pointer = ctypes.POINTER(lib.llama_seq_id)
    each = (pointer * n)(*(ctypes.cast(ctypes.byref(ids, i * size), pointer) for i in range(n)))
    chosen = (lib.llama_token * n)(
        *(tokens[(i + place) % len(tokens)] for i, place in enumerate(positions))
    )
    places = (lib.llama_pos * n)(*positions)
    counts, wanted = (ctypes.c_int32 * n)(*[1] * n), (ctypes.c_int8 * n)(*[1] * n)
    batch = lib.llama_batch(
        n_tokens=n, token=chosen, pos=places, n_seq_id=counts, seq_id=each, logits=wanted
    )
    return batch, (ids, each, chosen, places, counts, wanted)


def _table(seen: Seen) -> Table:
    rows: list[tuple[Cell, ...]] = []
    lines: dict[str, list[tuple[float, float]]] = {}
    for name in _CACHES:
        kinds = {kind: seconds for (caches, kind), seconds in seen.items() if caches == name}
        step = {n: statistics.median(kinds[_BARE, n]) for n in COUNTS}
        for n in COUNTS:
            plain, drafted = kinds["off", n], kinds["auto", n]
            times, allowed = ratio(kinds["off", 1], plain), n * step[1] / step[n]
            rates = [1 / statistics.median(seconds) for seconds in (plain, drafted)]
            gain = ratio(plain, drafted)
            bare = 1e3 * step[n]
            rows.append((name, n, bare, rates[0], times, allowed, times / allowed, rates[1], gain))
            for draft, rate in zip(_DRAFTS, rates, strict=True):
                lines.setdefault(f"{name}, --draft {draft}", []).append((n, rate))
    columns = (
        Column("caches", "caches"),
        Column("generations", "at once"),
        Column("bare_step_ms", "t(N) (ms)", 2),
        Column("tokens_per_second", "tokens/s", 1),
        Column("times_one", "times one", 2),
        Column("allowed_times_one", "t(N) allows", 2),
        Column("share_of_allowed", "of that", 2),
        Column("drafted_tokens_per_second", "--draft auto", 1),
        Column("drafted_times_plain", "times plain", 2),
    )
    notes = (
        "t(N): bare decode calls of all contexts, one token of each of N sequences. "
        "It allows N t(1) / t(N).",
        "Generations with prompts, lengths and seeds of their own, every other one greedy; one "
        "that ends is followed by another.",
        "Caches: kv_unified off and on.",
    )
    series = tuple(Series(name, tuple(points)) for name, points in lines.items())
    chart = Chart("Several generations at once", "generations", "tokens/s", series)
    return Table("Several generations at once", columns, tuple(rows), notes, chart)
