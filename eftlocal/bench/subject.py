"""A loaded model under measurement: what it is asked, and what its contexts cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..errors import PromptError
from ..model import FusedModel
from ..stream import Stream
from .floors import Record, block_seconds, empty_caches, replay_seconds
from .timing import Effort, interleaved

BLOCKS = (1, 2, 4, 8, 16)
"""Sizes of blocks whose cost is measured."""

PLAIN: dict[str, Any] = {
    "draft": "off",
    "stop": (),
    "alpha": 1.0,
    "temperature": 0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "upscale_top_p": 1.0,
    "part": "fused",
}
"""The simplest settings: greedy, alpha 1, nothing drafted or filtered."""

_QUESTIONS = (
    "What is the capital of Chile?",
    "Who wrote Hamlet?",
    "Which element has the symbol Fe?",
    "What do pandas eat?",
)
_DEPTH = 32
_FIRST_TOKENS = 8
_SHORT_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a run of decoding took.

    Attributes:
        seconds: per token.
        surprise: mean of -log F over its tokens; at temperature 1 it estimates the entropy.
        tokens, rounds, drafted, accepted: sums over its completions.
        records: its completions.
    """

    seconds: float
    surprise: float
    tokens: int
    rounds: int
    drafted: int
    accepted: int
    records: tuple[Record, ...]


class Subject:
    """A model with what it is asked.

    Args:
        model: loaded.
        effort: how much is measured.
        random: whether its weights are random, so that it is asked random tokens instead of
            questions.
    """

    def __init__(self, model: FusedModel, effort: Effort, random: bool = False) -> None:
        self.model = model
        self.effort = effort
        self.starts = self._workload(random)

    def _workload(self, random: bool) -> list[Callable[..., Stream]]:
        model = self.model
        if random:
            return [partial(model.stream_complete, self.tokens(_DEPTH))]
        chats = [[{"role": "user", "content": question}] for question in _QUESTIONS]
        try:
            model.stream_chat(chats[0], max_tokens=1).close()
        except PromptError:
            return [partial(model.stream_complete, question) for question in _QUESTIONS]
        return [partial(model.stream_chat, chat) for chat in chats]

    def tokens(self, n: int) -> tuple[int, ...]:
        """Random ids (n) from the middle of the vocabulary, where no markers are."""
        n_vocab = self.model.n_vocab
        drawn = np.random.default_rng(n).integers(n_vocab // 4, n_vocab * 3 // 4, n)
        return tuple(drawn.tolist())

    def decode(self, n_tokens: int, **options: Any) -> Decoded:
        """Answer the questions, again and again, until that many tokens are decoded."""
        seconds = surprise = 0.0
        records: list[Record] = []
        tokens = rounds = drafted = accepted = 0
        while tokens < n_tokens:
            start = self.starts[len(records) % len(self.starts)]
            stream = start(max_tokens=n_tokens - tokens, **options)
            for _ in stream:
                pass
            completion = stream.completion
            timings = completion.timings
            records.append(Record(stream.request.prompts, completion.tokens))
            surprise -= sum(completion.logprobs)
            seconds += timings.generation_seconds
            tokens += timings.generated_tokens
            rounds += timings.rounds
            drafted += timings.drafted
            accepted += timings.accepted
        counts = (tokens, rounds, drafted, accepted)
        return Decoded(seconds / tokens, surprise / tokens, *counts, tuple(records))

    @cached_property
    def step_seconds(self) -> float:
        """A first guess at what a token takes."""
        self.decode(_FIRST_TOKENS, **PLAIN)
        return self.decode(_FIRST_TOKENS, **PLAIN).seconds

    @cached_property
    def n_tokens(self) -> int:
        """Tokens of one measurement of decoding."""
        return self.effort.tokens(self.step_seconds)

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """What plain decoding with the simplest settings gives."""
        return self.decode(self.n_tokens, **PLAIN).records

    @cached_property
    def floor(self) -> Callable[[], float]:
        """Measures the floor of decoding: seconds per token."""
        return partial(replay_seconds, self.model, self.records)

    @cached_property
    def costs(self) -> tuple[dict[int, float], ...]:
        """t(M) per context: seconds (a median) of a block of M tokens."""
        prompt = self.tokens(_DEPTH)
        with empty_caches(self.model) as contexts:
            kinds = {
                (i, n): partial(_typical, partial(block_seconds, context, prompt, n))
                for i, context in enumerate(contexts)
                for n in BLOCKS
            }
            seen = interleaved(kinds, self.effort.rounds)
        return tuple(
            {n: statistics.median(seen[i, n]) for n in BLOCKS} for i in range(len(contexts))
        )

    def long_prompt(self, room: int) -> tuple[int, ...]:
        """Random ids, as many as are to be read and leave this much room."""
        n = self.effort.prompt_tokens(self.step_seconds)
        return self.tokens(max(min(n, self.model.n_ctx - room), 2))


def _typical(measure: Callable[[], float]) -> float:
    """The measurement, or the median of three where it is so short that little disturbs it."""
    seconds = measure()
    if seconds > _SHORT_SECONDS:
        return seconds
    return statistics.median((seconds, measure(), measure()))


def block_cost(costs: dict[int, float], n: float) -> float:
    """t(n), on a straight line between the sizes that were measured."""
    return float(np.interp(n, list(costs), list(costs.values())))


def round_seconds(costs: Sequence[dict[int, float]], drafter: int, n: float) -> float:
    """Seconds of a round's decodes: n steps of the drafter, a block of n in every other context."""
    others = (cost for i, cost in enumerate(costs) if i != drafter)
    return n * costs[drafter][1] + sum(block_cost(cost, n) for cost in others)
