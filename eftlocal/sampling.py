"""Draw tokens from rows of logits: penalties, truncation, hash noise. Pure NumPy.

Nothing here sorts a whole vocabulary. Shapes: V vocabulary; a row is (V,) float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .fusion import Array, log_sum_exp
from .options import Sampler

Bits = npt.NDArray[np.uint32]
Ids = npt.NDArray[np.intp]

_MASK64 = (1 << 64) - 1
# Tokens further below the top than this (in units of the temperature) are judged by their noise.
_NEAR = 12.0


def _mix64(value: int) -> int:
    """The finaliser of splitmix64, on Python integers."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


@dataclass(slots=True)
class Noise:
    """Noise of one completion index: a pure hash of (seed, choice, index) and the token id.

    The drafter's row and the fused row of an index share it, so that they agree as often as
    their distributions allow, and the text does not depend on the draft (arXiv 2408.07978).
    """

    seed: int
    choice: int
    index: int
    _all: Bits | None = field(default=None, repr=False)

    def bits(self, ids: Ids) -> Bits:
        """32 hash bits for each of `ids`."""
        return self._hash(ids.astype(np.uint32))

    def all_bits(self, n_vocab: int) -> Bits:
        """32 hash bits for each id of the vocabulary: (V,); computed once."""
        if self._all is None or len(self._all) != n_vocab:
            self._all = self._hash(np.arange(n_vocab, dtype=np.uint32))
        return self._all

    def _hash(self, h: Bits) -> Bits:
        key = _mix64(_mix64(_mix64(self.seed) ^ self.choice) ^ self.index)
        h *= np.uint32(0x9E3779B1)
        h ^= np.uint32(key & 0xFFFFFFFF)
        h ^= h >> np.uint32(16)
        h *= np.uint32(0x7FEB352D)
        h += np.uint32(key >> 32)
        h ^= h >> np.uint32(15)
        h *= np.uint32(0x846CA68B)
        h ^= h >> np.uint32(16)
        return h


def adjust(
    logits: Array,
    sampler: Sampler,
    counts: Mapping[int, int],
    shift: float = 0.0,
) -> Array:
    """Apply logit bias and penalties; returns `logits` itself where there is nothing to do.

    The repetition penalty looks at the sign of a logit, so it is not shift invariant: it acts on
    logits + shift. With shift = logsumexp(base) - log Z, alpha 0 equals llama.cpp on the base.

    Args:
        logits: (V,) row; never changed in place.
        sampler: the settings.
        counts: completion tokens and how often each occurred.
        shift: see above.
    """
    penalised = bool(counts) and sampler.has_penalties
    if not penalised and not sampler.logit_bias:
        return logits
    logits = logits.copy()
    if sampler.logit_bias:
        n_vocab = len(logits)
        biased = {token: bias for token, bias in sampler.logit_bias.items() if token < n_vocab}
        logits[list(biased)] += np.array(list(biased.values()), np.float32)
    if penalised:
        ids = np.fromiter(counts.keys(), np.intp, len(counts))
        times = np.fromiter(counts.values(), np.float64, len(counts))
        values = logits[ids] + np.float64(shift)
        penalty = sampler.repetition_penalty
        values = np.where(values > 0, values / penalty, values * penalty)
        values -= times * sampler.frequency_penalty + sampler.presence_penalty
        logits[ids] = values - shift
    return logits


def largest(logits: Array, k: int) -> Ids:
    """Ids of the k largest entries of a row, ascending; ties go to the lower id, -inf never in.

    A cut below the maximum is lowered until k entries are above it; only those are partitioned.
    """
    top = float(logits.max())
    reach = 4.0
    ids = np.flatnonzero(logits >= top - reach)
    while len(ids) < k:
        reach *= 4
        if reach > 1e38:
            ids = np.flatnonzero(logits > -np.inf)
            break
        ids = np.flatnonzero(logits >= top - reach)
    if len(ids) <= k:
        return ids
    values = logits[ids]
    kth = np.partition(values, len(values) - k)[len(values) - k]
    above = ids[values > kth]
    ties = ids[values == kth][: k - len(above)]
    return np.sort(np.concatenate((above, ties)))


def sample(logits: Array, sampler: Sampler, noise: Noise, log_z: float | None = None) -> int:
    """Draw one token: top-k, top-p, min-p, then temperature; ties go to the lowest id.

    Equals argmax(log p / temperature + Gumbel noise) over the tokens that the filters keep, with
    noise that is a pure hash: the same row, settings and noise always give the same token.

    Args:
        logits: (V,) row after `adjust`.
        sampler: the settings.
        noise: of this completion index.
        log_z: logsumexp of the row where it is known; only top-p needs it.
    """
    top_id = int(logits.argmax())
    temperature = sampler.temperature
    if temperature == 0:
        return top_id
    top = float(logits[top_id])
    floor = top + math.log(sampler.min_p) if sampler.min_p > 0 else -math.inf
    if sampler.top_k:
        kept = largest(logits, sampler.top_k)
        mass = float(np.exp(logits[kept] - top, dtype=np.float64).sum())
        ids = kept[logits[kept] >= floor]
        winner = _race(logits, ids, noise, top, temperature)
    else:
        mass = 0.0
        winner, ids = _race_all(logits, noise, top, floor, temperature)
    if sampler.top_p >= 1:
        return winner
    if not mass:
        total = float(log_sum_exp(logits[None])[0]) if log_z is None else log_z
        mass = math.exp(total - top)
    nucleus = _before(logits, ids, winner, top, sampler.top_p * mass)
    return winner if nucleus is None else _race(logits, nucleus, noise, top, temperature)


def _times(values: Array, bits: Bits, top: float, temperature: float) -> Array:
    """Finishing times of an exponential race: the smallest one wins with probability softmax.

    -log(uniform) * exp((top - x) / temperature) is exp(-(x / temperature + Gumbel)) up to a
    constant, with one logarithm less.
    """
    uniform = (bits + np.float32(0.5)).astype(np.float32) * np.float32(2.0**-32)
    with np.errstate(divide="ignore", over="ignore"):
        slowness = np.exp((np.float32(top) - values) * np.float32(1 / temperature))
        times: Array = -np.log1p(-uniform) * slowness
    return times


def _race(logits: Array, ids: Ids, noise: Noise, top: float, temperature: float) -> int:
    return int(ids[_times(logits[ids], noise.bits(ids), top, temperature).argmin()])


def _race_all(
    logits: Array, noise: Noise, top: float, floor: float, temperature: float
) -> tuple[int, Ids]:
    """The winner among all tokens with a logit of at least `floor`, and the tokens that raced.

    Tokens near the top race first. One further away is at least exp(_NEAR) slower, so it can
    only win with a head start that its hash bits betray before any logarithm is taken.
    """
    near = top - _NEAR * temperature
    ids = np.flatnonzero(logits >= np.float32(max(near, floor)))
    if near <= floor:
        return _race(logits, ids, noise, top, temperature), ids
    bits = noise.all_bits(len(logits))
    times = _times(logits[ids], bits[ids], top, temperature)
    place = int(times.argmin())
    best, winner = float(times[place]), int(ids[place])
    lucky = -math.expm1(-min(best, 700.0) * math.exp(-_NEAR)) * 2.0**32
    far = np.flatnonzero(bits <= np.uint32(min(lucky + 1, 2.0**32 - 1)))
    far = far[(logits[far] < near) & (logits[far] >= floor)]
    if len(far):
        times = _times(logits[far], bits[far], top, temperature)
        place = int(times.argmin())
        if times[place] < best:
            winner = int(far[place])
            ids = np.flatnonzero(logits >= logits[winner])
    return winner, ids


def _before(logits: Array, ids: Ids, winner: int, top: float, wanted: float) -> Ids | None:
    """None where `winner` is in the nucleus of mass `wanted`, otherwise the nucleus itself.

    A token is in the nucleus iff the likelier tokens weigh less than `wanted`; only where the
    winner is not are those tokens, which then hold the whole nucleus, put in order.
    """
    values = logits[ids]
    level = logits[winner]
    ahead = ids[(values > level) | ((values == level) & (ids < winner))]
    weights = np.exp(logits[ahead] - top, dtype=np.float64)
    if weights.sum() < wanted:
        return None
    order = np.argsort(-weights, kind="stable")
    size = int(np.searchsorted(np.cumsum(weights[order]), wanted)) + 1
    return np.sort(ahead[order[:size]])
