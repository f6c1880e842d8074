"""Where two replies part that should be one, and whether rounding explains it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ... import Completion
from ...diagnostics import Trace
from ...sampling import Noise


def largest_shift(one: Completion, other: Completion) -> float:
    """By how many nats log-probs of the tokens differ that two replies begin with."""
    same = first_difference(one.tokens, other.tokens)
    pairs = zip(one.logprobs[:same], other.logprobs[:same], strict=True)
    return max((abs(a - b) for a, b in pairs), default=0.0)


def first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    """The first place where two texts do not agree; the shorter one's length if there is none."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def gap(trace: Trace, own: int, other: int, temperature: float, noise: Noise) -> float:
    """By how many nats a token's log-prob leads another's, noise times temperature included.

    A token is drawn as argmax(log F / temperature + noise), see `sampling.sample`, so that the two
    change places where rounding moves their log-probs by this much. Where the other is not among
    the trace's tokens, it is at least this much.
    """
    known = dict(zip(trace.ids, trace.fused.logprobs, strict=True))
    least = sorted(trace.fused.logprobs, reverse=True)[: trace.n_top][-1]
    found = known.get(own, least) - known.get(other, least)
    if temperature == 0:
        return found
    return found + temperature * (gumbel(own, noise) - gumbel(other, noise))


def gumbel(token: int, noise: Noise) -> float:
    """The noise of one token: -log(-log(1 - uniform)), as the race of `sampling.sample` has it."""
    uniform = (float(noise.bits(np.array([token], np.intp))[0]) + 0.5) * 2.0**-32
    return -math.log(-math.log1p(-uniform))
