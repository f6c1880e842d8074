"""How many tokens to draft: what decodes cost, and how often drafts are accepted.

With acceptance a, a round of n rows yields (1 - a^n) / (1 - a) tokens (arXiv 2211.17192, equation
1). It costs n single steps of the drafter and one batch of n tokens in every other context. Both
sides are measured while generating, so that drafting is used where it pays and only there.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .distributions import Array64
from .options import MAX_DRAFT

# A further token of a batch, in single steps, until batches were measured.
_ASSUMED_SLOPE = 0.3
# Weight of a new measurement, and how much longer than expected it may count as.
_NEW, _MOST_SURPRISE = 0.2, 1.5
# Logits of one sequence's rows beyond which no more rows are planned, and rows that always are.
_MOST_LOGITS, _FEWEST_ROWS = 1_250_000, 8
# Padding of a decode, and what it must save.
_MOST_PADDING, _WORTH_PADDING = 3, 0.97
# Several sequences draft differently far: their rounds take longer than those of equal blocks.
_ROUGHNESS = 1.1
# Drafting must promise this much more than plain decoding.
_WORTHWHILE = 1.03
# Bounds of the drafter's top probability; rows between two of them are taken together.
_SURENESS = (0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
# Of each range so many drafts are assumed to be known, and how many of them were accepted.
_ASSUMED_CHECKED = (1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 6.0)
_ASSUMED_ACCEPTED = (0.2, 0.4, 0.6, 1.5, 1.7, 2.8, 5.9)


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
        """What a decode of so many tokens takes."""
        known = self.known[context].get(n_tokens)
        return self.line(context, n_tokens)[-1] if known is None else known

    def line(self, context: int, most: int) -> Array64:
        """What decodes of 1 to `most` tokens take; between and beyond known ones on a line."""
        known = sorted(self.known[context].items()) or [(1, 1.0)]
        sizes, seconds = zip(*known, strict=True)
        every = np.arange(1, most + 1)
        line: Array64 = np.interp(every, sizes, seconds)
        if most > sizes[-1]:
            slope = _ASSUMED_SLOPE * seconds[0]
            if len(sizes) > 1:
                slope = max((seconds[-1] - seconds[0]) / (sizes[-1] - sizes[0]), 0.0)
            beyond = every[sizes[-1] :]
            line[sizes[-1] :] += slope * (beyond - sizes[-1])
        return line

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
        """Rounds in which each of some sequences decides up to 1, 2, ... `most` tokens."""
        rows = np.arange(1, most + 1)
        sizes = rows * n_sequences
        seconds = rows * self.seconds(drafter, n_sequences)
        seconds += (rows - 1) * n_sequences * self.proposal
        for context in range(len(self.known)):
            if context != drafter:
                line = self.line(context, sizes[-1] + _MOST_PADDING)
                padded = line[: sizes[-1]].copy()
                for extra in range(1, _MOST_PADDING + 1):
                    longer = line[extra : sizes[-1] + extra]
                    np.copyto(padded, longer, where=longer < _WORTH_PADDING * padded)
                padded[n_sequences - 1] = line[n_sequences - 1]
                seconds += padded[sizes - 1]
        if n_sequences > 1:
            seconds[1:] *= _ROUGHNESS
        return tuple(seconds.tolist())


def _blended(old: float, new: float) -> float:
    """A running mean that one slow measurement cannot upset; `old` is 0 where nothing is known."""
    return old + _NEW * (min(new, _MOST_SURPRISE * old) - old) if old else new


@dataclass(slots=True)
class Acceptance:
    """How often drafts are accepted, by how sure the drafter was of its likeliest token."""

    accepted: list[float] = field(default_factory=lambda: list(_ASSUMED_ACCEPTED))
    checked: list[float] = field(default_factory=lambda: list(_ASSUMED_CHECKED))

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
        token: seconds that a token is worth: what the best rounds take for one.
        acceptance: share of drafts that are accepted.
        seconds: what rounds of 1, 2, ... rows take; empty where no drafts could ever pay.
    """

    n: int
    token: float
    acceptance: float
    seconds: tuple[float, ...]

    def goes_on(self, depth: int, chance: float) -> bool:
        """Whether rows beyond `depth` are worth what they cost.

        Row depth + 1 gives a token with probability `chance`, that all drafts so far are accepted;
        each further row with less.
        """
        gain = 0.0
        for seconds in self.seconds[depth:]:
            gain += chance * self.token
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
    best, token = 1, seconds[0] / _WORTHWHILE
    for n in range(2, len(seconds) + 1):
        of_round = seconds[n - 1] / expected_tokens(acceptance, n)
        if of_round < token:
            best, token = n, of_round
    could_pay = any(n * token > s - seconds[0] for n, s in enumerate(seconds[1:], 1))
    return Plan(best, token, acceptance, seconds if could_pay else ())


def expected_tokens(acceptance: float, n: int) -> float:
    """Tokens that a round of n rows gives where each draft is accepted with this probability.

    (1 - a^n) / (1 - a): the row without a draft, and each draft whose predecessors were accepted
    (arXiv 2211.17192, equation 1, for n - 1 drafts).
    """
    return float(sum(acceptance**i for i in range(n)))


def most_rows(n_vocab: int) -> int:
    """The largest n that is chosen for a vocabulary, from 8 to MAX_DRAFT.

    Every row takes 8 * n_vocab bytes in every context once it was used. Rows beyond the eighth are
    seldom worth that where vocabularies are large.
    """
    return max(_FEWEST_ROWS, min(MAX_DRAFT, _MOST_LOGITS // n_vocab))


def sizes_to_measure(most: int) -> Sequence[int]:
    """Numbers of tokens whose decodes outline the costs of all up to `most`, cheapest first."""
    return [1, *(size for size in (2, 4, 8, 16, 32, 64) if size < most), most]
