"""Draw tokens from rows of logits: penalties, truncation, hash noise. Pure NumPy.

Nothing here sorts a whole vocabulary. Shapes: V vocabulary; a row is (V,) float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .distributions import Array, log_sum_exp
from .options import Sampler

Bits = npt.NDArray[np.uint32]
Ids = npt.NDArray[np.intp]

_MASK64 = (1 << 64) - 1
# Tokens further below the top than this, in units of the temperature, need luck, or much luck.
_DEPTHS = (4.0, 12.0)
# How far below the top the nucleus is looked for, step by step.
_REACHES = (4.0, 8.0, 12.0)
# Classes of depth in which the edge of a nucleus is looked for.
_CLASSES_PER_NAT, _DEEPEST_CLASS = np.float32(64), np.float32(64)
# A race of so few tokens is not worth a look at who can win.
_FEW = 1024
COLDEST = 1e-30
"""Lower temperatures are the same in float32, and would overflow it."""


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
    What has to be independent of it, at the same index, takes another `stream`.
    """

    seed: int
    choice: int
    index: int
    stream: int = 0
    _all: Bits | None = field(default=None, repr=False)

    def on(self, stream: int) -> Noise:
        """Noise of the same index that is independent of this one."""
        return Noise(self.seed, self.choice, self.index, stream)

    def uniform(self) -> float:
        """One number between 0 and 1, both excluded, that belongs to no token."""
        return ((self._key() >> 16) + 0.5) * 2.0**-48

    def bits(self, ids: Ids) -> Bits:
        """32 hash bits for each of `ids`."""
        return self._hash(ids.astype(np.uint32))

    def all_bits(self, n_vocab: int) -> Bits:
        """32 hash bits for each id of the vocabulary: (V,); computed once."""
        if self._all is None or len(self._all) != n_vocab:
            self._all = self._hash(np.arange(n_vocab, dtype=np.uint32))
        return self._all

    def _key(self) -> int:
        key = _mix64(_mix64(_mix64(self.seed) ^ self.choice) ^ self.index)
        return _mix64(key ^ self.stream) if self.stream else key

    def _hash(self, h: Bits) -> Bits:
        key = self._key()
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
    lowest = float(np.finfo(np.float32).min)
    for cut in (*(top - reach for reach in (2.0, 4.0, 8.0, 16.0, 32.0)), lowest):
        ids = np.flatnonzero(logits >= np.float32(max(cut, lowest)))
        if len(ids) >= k:
            break
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
    if sampler.temperature == 0:
        return top_id
    temperature = max(sampler.temperature, COLDEST)
    top = float(logits[top_id])
    ids, needed = _candidates(logits, sampler, top, log_z)
    winner = _race(logits, ids, noise, top, temperature)
    # A token is in the nucleus iff the likelier ones, which all outlast min-p, weigh less than
    # top-p. Where the winner is not, the best of those in front of it is next, and so on.
    while needed and _mass(logits, ahead := _ahead(logits, winner, ids), top) >= needed:
        winner = _race(logits, ahead, noise, top, temperature)
    return winner


def survivors(logits: Array, sampler: Sampler) -> Ids | None:
    """Ids that top-k, top-p and min-p keep, ascending; None where all are kept.

    They are the tokens that `sample` can draw at a temperature above 0.
    """
    top = float(logits.max())
    ids, needed = _candidates(logits, sampler, top, None)
    return _nucleus(logits, ids, top, needed) if needed else ids


def _candidates(
    logits: Array, sampler: Sampler, top: float, log_z: float | None
) -> tuple[Ids | None, float]:
    """Ids that outlast top-k and min-p, all that outlast top-p among them; None for all.

    The second result is what top-p wants them to weigh, the likeliest being 1; 0 without top-p.
    """
    kept = largest(logits, sampler.top_k) if sampler.top_k else None
    ids, needed = kept, 0.0
    if sampler.top_p < 1:
        if kept is not None:
            total = _mass(logits, kept, top)
        else:
            total = math.exp(
                (float(log_sum_exp(logits[None])[0]) if log_z is None else log_z) - top
            )
        needed = sampler.top_p * total
        ids = _ahead_of_all(logits, top, needed) if kept is None else kept
    if sampler.min_p > 0:
        floor = np.float32(top + math.log(sampler.min_p))
        ids = np.flatnonzero(logits >= floor) if ids is None else ids[logits[ids] >= floor]
    return ids, needed


def _nucleus(logits: Array, ids: Ids | None, top: float, needed: float) -> Ids:
    """The fewest likeliest tokens, among `ids` or all, that weigh `needed`; ties by lower id.

    Tokens are put in classes by their depth below the top; only one class has to be sorted.
    """
    ids = np.flatnonzero(logits > -math.inf) if ids is None else ids
    depth = np.float32(top) - logits[ids]
    weights = np.exp(-depth)
    classes = (np.minimum(depth, _DEEPEST_CLASS) * _CLASSES_PER_NAT).astype(np.intp)
    reached = np.cumsum(np.bincount(classes, weights))
    last = int(np.searchsorted(reached, needed))
    places = np.flatnonzero(classes == last)
    places = places[np.argsort(depth[places], kind="stable")]
    in_front = np.cumsum(weights[places], dtype=np.float64) - weights[places]
    in_front += reached[last - 1] if last else 0.0
    kept = classes < last
    kept[places[in_front < needed]] = True
    nucleus: Ids = ids[kept]
    return nucleus


def _mass(logits: Array, ids: Ids, top: float) -> float:
    """What tokens weigh, the likeliest token being 1."""
    return float(np.exp(logits[ids] - np.float32(top)).sum(dtype=np.float64))


def _ahead_of_all(logits: Array, top: float, needed: float) -> Ids | None:
    """Likeliest tokens with more mass than `needed`, so that no other is in the nucleus."""
    for reach in _REACHES:
        ids = np.flatnonzero(logits >= np.float32(top - reach))
        if _mass(logits, ids, top) > needed:
            return ids
    return None


def _ahead(logits: Array, token: int, ids: Ids | None) -> Ids:
    """The tokens, among `ids` or all, that are likelier, or as likely with a lower id."""
    values = logits if ids is None else logits[ids]
    places: Ids = np.flatnonzero(values >= logits[token])
    ahead = places if ids is None else ids[places]
    in_front: Ids = ahead[(logits[ahead] > logits[token]) | (ahead < token)]
    return in_front


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


def _race(logits: Array, ids: Ids | None, noise: Noise, top: float, temperature: float) -> int:
    """The winner among `ids`, which hold the top, or among all tokens."""
    values = logits if ids is None else logits[ids]
    bits = noise.all_bits(len(logits)) if ids is None else noise.bits(ids)
    if len(values) <= _FEW:
        place = int(_times(values, bits, top, temperature).argmin())
    else:
        places = _contenders(values, bits, top, temperature)
        times = _times(values[places], bits[places], top, temperature)
        place = int(places[times.argmin()])
    return place if ids is None else int(ids[place])


def _contenders(values: Array, bits: Bits, top: float, temperature: float) -> Ids:
    """Places of the few tokens that can win the race, all that can among them.

    Tokens with a head start and the top set a time to beat. What another token needs to beat it
    shows in its hash bits before any logarithm is taken, the more so the further it is down.
    """
    first = np.flatnonzero(bits <= _bits_below(64 / len(values)))
    first = np.append(first, values.argmax())
    best = float(_times(values[first], bits[first], top, temperature).min())
    can_win = bits <= _bits_below(1.001 * best)
    for depth in _DEPTHS:
        near = values >= np.float32(top - depth * temperature)
        # Others are slower by exp(depth) at least; one less, because the cut was rounded.
        near |= bits <= _bits_below(best * math.exp(1 - depth))
        can_win &= near
    return np.flatnonzero(can_win)


def _bits_below(time: float) -> np.uint32:
    """The most that the bits of a token can be that finishes by `time` if it is the likeliest."""
    return np.uint32(min(1 - math.expm1(-time) * 2.0**32, 2.0**32 - 1))
