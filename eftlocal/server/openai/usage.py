"""What an answer took: OpenAI's usage and llama-server's timings, over all of its choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...generation import TokenEvent
from ...reasoning import ThinkStream
from ...stream import Completion


@dataclass(frozen=True, slots=True)
class Spent:
    """What one choice took.

    Attributes:
        completion: the choice.
        is_first: of the choices of its prompt, which OpenAI counts once.
        reasoning_tokens: tokens of its <think> block, markers included.
    """

    completion: Completion
    is_first: bool
    reasoning_tokens: int = 0


def usage(spent: Sequence[Spent]) -> dict[str, Any]:
    """OpenAI's usage; drafts are what it calls predictions."""
    firsts = [item.completion.timings for item in spent if item.is_first]
    times = [item.completion.timings for item in spent]
    prompt_tokens = sum(time.prompt_tokens for time in firsts)
    completion_tokens = sum(time.generated_tokens for time in times)
    drafted, accepted = sum(time.drafted for time in times), sum(time.accepted for time in times)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(time.cached_tokens for time in firsts)},
        "completion_tokens_details": {
            "reasoning_tokens": sum(item.reasoning_tokens for item in spent),
            "accepted_prediction_tokens": accepted,
            "rejected_prediction_tokens": drafted - accepted,
        },
    }


def timings(spent: Sequence[Spent]) -> dict[str, Any]:
    """The timings of llama-server; sums over the choices, times in milliseconds."""
    times = [item.completion.timings for item in spent]
    prompt_n = sum(time.prompt_tokens - time.cached_tokens for time in times)
    prompt_ms = 1000 * sum(time.prompt_seconds for time in times)
    predicted_n = sum(time.generated_tokens for time in times)
    predicted_ms = 1000 * sum(time.generation_seconds for time in times)
    return {
        "cache_n": sum(time.cached_tokens for time in times),
        "prompt_n": prompt_n,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": _ratio(prompt_ms, prompt_n),
        "prompt_per_second": 1000 * _ratio(prompt_n, prompt_ms),
        "predicted_n": predicted_n,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": _ratio(predicted_ms, predicted_n),
        "predicted_per_second": 1000 * _ratio(predicted_n, predicted_ms),
        "draft_n": sum(time.drafted for time in times),
        "draft_n_accepted": sum(time.accepted for time in times),
    }


def _ratio(count: float, per: float) -> float:
    return count / per if per else 0.0


class ReasoningCount:
    """Counts the tokens of a <think> block while a completion comes.

    Args:
        opened: the prompt has opened the block.
    """

    def __init__(self, opened: bool) -> None:
        self._stream = ThinkStream(opened)
        self.tokens = 0

    def feed(self, events: Sequence[TokenEvent]) -> None:
        """Take the next tokens."""
        for event in events:
            was_thinking = self._stream.is_thinking
            self._stream.feed(event.text)
            self.tokens += was_thinking or self._stream.is_thinking
