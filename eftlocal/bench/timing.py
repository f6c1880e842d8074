"""How things are measured: in turns, so that all of them see the same machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: measurements of each kind; medians are reported.
        seconds: how long one measurement of decoding should last.
        few, many: fewest and most tokens that it decodes.
        prompt: tokens of a long prompt, or as many as `prompt_seconds` are enough for one by one.
        depth: tokens before a deep place, or as many as `depth_seconds` are enough for.
        rows: rows that fusion is measured on.
        widths: vocabularies that fusion is measured on.
    """

    rounds: int = 7
    seconds: float = 0.6
    few: int = 24
    many: int = 400
    prompt: int = 1024
    prompt_seconds: float = 10.0
    depth: int = 1000
    depth_seconds: float = 30.0
    rows: int = 20
    widths: tuple[int, ...] = (2048, 32_000, 151_936)

    def tokens(self, step_seconds: float) -> int:
        """How many steps of this length one measurement has."""
        return min(max(round(self.seconds / step_seconds), self.few), self.many)

    def prompt_tokens(self, step_seconds: float) -> int:
        """How many tokens a long prompt has where a step takes so long."""
        return min(max(round(self.prompt_seconds / step_seconds), self.few), self.prompt)

    def depth_tokens(self, step_seconds: float) -> int:
        """How many tokens lie before a deep place where a step takes so long."""
        return min(max(round(self.depth_seconds / step_seconds), self.few), self.depth)


FULL = Effort()
QUICK = Effort(
    rounds=5,
    seconds=0.1,
    few=16,
    many=64,
    prompt=128,
    prompt_seconds=2.0,
    depth=256,
    depth_seconds=3.0,
    rows=5,
    widths=(2048, 32_000),
)


def interleaved(
    kinds: Mapping[Key, Callable[[], float]], rounds: int
) -> dict[Key, tuple[float, ...]]:
    """Measure every kind once per round; a first round warms up and is left out.

    The order turns from round to round, so that no kind always follows the same one.

    Args:
        kinds: key -> a function that returns what it measured, such as seconds.
        rounds: measurements kept of each kind, 1 or more.
    """
    keys = list(kinds)
    seen: dict[Key, list[float]] = {key: [] for key in keys}
    for i in range(rounds + 1):
        start = i % len(keys)
        for key in keys[start:] + keys[:start]:
            value = kinds[key]()
            if i > 0:
                seen[key].append(value)
    return {key: tuple(values) for key, values in seen.items()}


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the quotients of measurements of the same rounds."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
