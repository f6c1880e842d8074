"""How many tokens to draft: what decodes cost, and how often drafts are accepted.

With acceptance a, a round of n rows yields (1 - a^n) / (1 - a) tokens (arXiv 2211.17192, equation
1). It costs n single steps of the drafter and one batch of n tokens in every other context. Both
sides are measured while generating, so that drafting is used where it pays and only there.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

# A further token of a batch, in single steps, until batches were measured.
_ASSUMED_SLOPE = 0.3
# Weight of a new measurement, and how much longer than expected it may count as.
_NEW, _MOST_SURPRISE = 0.2, 3.0
# Padding of a decode, and what it must save.
_MOST_PADDING, _WORTH_PADDING = 3, 0.97
# Drafting must promise this much more than plain decoding.
_WORTHWHILE = 1.03
# Bounds of the drafter's top probability; rows between two of them are taken together.
_SURENESS = (0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
_ASSUMED_ACCEPTANCE = (0.2, 0.4, 0.6, 0.75, 0.85, 0.93, 0.98)
_ASSUMED_COUNT = 4.0


@dataclass(slots=True)
class Costs:
    """Seconds that decodes take, by context and number of tokens; refined with every decode.

    Attributes:
        known: per context, number of tokens -> seconds.
        proposal: what it takes to sample a draft from the drafter's row.
    """

    known: list[dict[int, float]]
    proposal: float = 0.0

    @classmethod
    def of(cls, n_contexts: int) -> Costs:
        """Nothing is known yet."""
        return cls([{} for _ in range(n_contexts)])

    def add(self, context: int, n_tokens: int, seconds: float) -> None:
        """Take in one decode."""
        known = self.known[context]
        known[n_tokens] = _blended(known.get(n_tokens, 0.0), seconds)

    def add_proposal(self, seconds: float) -> None:
        """Take in one sampled draft."""
        self.proposal = _blended(self.proposal, seconds)

    def seconds(self, context: int, n_tokens: int) -> float:
        """What a decode of so many tokens takes; between and beyond known ones on a line."""
        known = self.known[context]
        if n_tokens in known:
            return known[n_tokens]
        sizes = sorted(known)
        if not sizes:
            return 1.0 + _ASSUMED_SLOPE * (n_tokens - 1)
        place = bisect.bisect(sizes, n_tokens)
        if place == 0:
            return known[sizes[0]]
        if place == len(sizes):
            last = sizes[-1]
            first = known[sizes[0]]
            slope = (
                (known[last] - first) / (last - sizes[0]) if place > 1 else _ASSUMED_SLOPE * first
            )
            return known[last] + max(slope, 0.0) * (n_tokens - last)
        low, high = sizes[place - 1], sizes[place]
        share = (n_tokens - low) / (high - low)
        return known[low] + share * (known[high] - known[low])

    def padding(self, context: int, n_tokens: int, most: int) -> int:
        """Tokens, at most so many, that make a decode of n_tokens quicker if they are added.

        llama.cpp's repacked matrices are multiplied four rows at a time: a block of three can take
        twice as long as a block of four.
        """
        best, least = 0, _WORTH_PADDING * self.seconds(context, n_tokens)
        for extra in range(1, min(_MOST_PADDING, most) + 1):
            seconds = self.seconds(context, n_tokens + extra)
            if seconds < least:
                best, least = extra, seconds
        return best

    def of_rounds(self, drafter: int, most: int, n_sequences: int = 1) -> tuple[float, ...]:
        """Rounds of 1, 2, ... rows per sequence; see `of_round`."""
        return tuple(self.of_round(drafter, n, n_sequences) for n in range(1, most + 1))

    def of_round(self, drafter: int, n: int, n_sequences: int = 1) -> float:
        """A round in which each of some sequences decides up to n tokens."""
        others = (i for i in range(len(self.known)) if i != drafter)
        single = self.seconds(drafter, n_sequences)
        proposals = (n - 1) * n_sequences * self.proposal
        size = n * n_sequences
        most = _MOST_PADDING if n > 1 else 0
        blocks = (self.seconds(i, size + self.padding(i, size, most)) for i in others)
        return n * single + proposals + sum(blocks)


def _blended(old: float, new: float) -> float:
    """A running mean that one slow measurement cannot upset; `old` is 0 where nothing is known."""
    return old + _NEW * (min(new, _MOST_SURPRISE * old) - old) if old else new


@dataclass(slots=True)
class Acceptance:
    """How often drafts are accepted, by how sure the drafter was of its likeliest token."""

    accepted: list[float] = field(
        default_factory=lambda: [_ASSUMED_COUNT * a for a in _ASSUMED_ACCEPTANCE]
    )
    checked: list[float] = field(
        default_factory=lambda: [_ASSUMED_COUNT] * len(_ASSUMED_ACCEPTANCE)
    )

    def add(self, sureness: float, accepted: bool) -> None:
        """Take in one draft that was checked."""
        place = bisect.bisect(_SURENESS, sureness)
        self.checked[place] += 1
        self.accepted[place] += accepted

    def rate(self, sureness: float) -> float:
        """The share of such drafts that are accepted."""
        place = bisect.bisect(_SURENESS, sureness)
        return self.accepted[place] / self.checked[place]

    @property
    def mean(self) -> float:
        """The share of all drafts that are accepted."""
        return sum(self.accepted) / sum(self.checked)


@dataclass(frozen=True, slots=True)
class Plan:
    """How far to draft.

    Attributes:
        n: rows of a round that give most tokens per second on average; 1 drafts nothing.
        acceptance: share of drafts that are accepted.
        seconds: what rounds of 1, 2, ... rows take, as far as drafts may go.
    """

    n: int
    acceptance: float = 0.0
    seconds: tuple[float, ...] = ()

    @property
    def most(self) -> int:
        """Rows that a round may have: where the drafter is sure, more than `n`."""
        return len(self.seconds) if self.n > 1 else 1

    def goes_on(self, depth: int, chance: float) -> bool:
        """Whether rows beyond `depth` are worth what they cost.

        A token is worth the time that the best rounds take for one. Row depth + 1 gives one with
        probability `chance`, that all drafts so far are accepted; each further row with less.
        """
        token = self.seconds[self.n - 1] / expected_tokens(self.acceptance, self.n)
        gain = 0.0
        for seconds in self.seconds[depth:]:
            gain += chance * token
            if gain > seconds - self.seconds[depth - 1]:
                return True
            chance *= self.acceptance
        return False


def make_plan(seconds: tuple[float, ...], acceptance: float) -> Plan:
    """The n with the most tokens per second, 1 where drafting does not promise more.

    What fusing a row takes does not count: every token takes it, however it was drafted.

    Args:
        seconds: what rounds of 1, 2, ... rows take.
        acceptance: share of drafts that are accepted, in [0, 1].
    """
    best, best_rate, tokens = 1, _WORTHWHILE / seconds[0], 1.0
    for n in range(2, len(seconds) + 1):
        tokens += acceptance ** (n - 1)
        rate = tokens / seconds[n - 1]
        if rate > best_rate:
            best, best_rate = n, rate
    return Plan(best, acceptance, seconds)


def expected_tokens(acceptance: float, n: int) -> float:
    """(1 - a^n) / (1 - a), tokens of a round of n rows (arXiv 2211.17192, equation 1)."""
    return float(n) if acceptance >= 1 else (1 - acceptance**n) / (1 - acceptance)


def sizes_to_measure(most: int) -> Sequence[int]:
    """Numbers of tokens whose decodes outline the costs of all up to `most`, cheapest first."""
    return [1, *(size for size in (2, 4, 8, 16, 32, 64) if size < most), most]
