"""How far F moves from P along one delta: f = KL(F || P) and g = KL(P || F) as curves of alpha.

F is an exponential family, F ∝ P exp(alpha * delta). With A(alpha) = log E_P[exp(alpha * delta)],
its mean m = A' = E_F[delta] and its variance s = A'' = Var_F[delta]:

    f = alpha * m - A              f' = alpha * s
    g = A - alpha * E_P[delta]     g' = m - E_P[delta]

Pure NumPy. V is the vocabulary; arrays are float32, or float64 where exactness asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..distributions import SAFE_EXPONENT, Array64, Row, dot

# Tokens this far below the top at both ends are first taken together, as the tail.
_CUT, _WIDER = 10.0, 6.0
# So few tokens are all summed one by one.
_NO_TAIL = 1024
# A tail with more than this share of the mass is made smaller.
_MOST_TAIL = 0.02
# Below this share what is left of float32 sums is rounding.
_LEAST_TAIL = 1e-6


class Point(NamedTuple):
    """One point: where, KL(F || P), KL(P || F), and the derivatives of both."""

    alpha: float
    f: float
    g: float
    df: float
    dg: float


@dataclass(frozen=True, slots=True)
class Targets:
    """What f and g should be: KL(T || Q) and KL(Q || T); without `both` only f counts.

    `noise` is how far f and g may be off by rounding.
    """

    f: float
    g: float
    both: bool = True
    noise: float = 1e-12

    def loss(self, point: Point) -> float:
        """L at a point."""
        loss = (point.f - self.f) ** 2
        return loss + (point.g - self.g) ** 2 if self.both else loss

    def slope(self, point: Point) -> float:
        """L' at a point."""
        slope = 2 * (point.f - self.f) * point.df
        return slope + 2 * (point.g - self.g) * point.dg if self.both else slope


@dataclass(frozen=True, slots=True)
class _Tail:
    """Mass and first moment of the tokens outside the support at both ends, as log-cubic curve."""

    ends: tuple[float, float]
    log_mass: tuple[float, float]
    slope: tuple[float, float]

    def moments(self, alpha: Array64, unit: Array64) -> Array64:
        """Mass, first and second moment of delta at K alphas, interpolated: (3, K)."""
        (low, high), (y0, y1), (d0, d1) = self.ends, self.log_mass, self.slope
        h = high - low
        t = (alpha - low) / h
        c2, c3 = 3 * (y1 - y0) - h * (2 * d0 + d1), 2 * (y0 - y1) + h * (d0 + d1)
        mass = np.exp(np.minimum(y0 + t * (h * d0 + t * (c2 + t * c3)) - unit, SAFE_EXPONENT))
        first = (h * d0 + t * (2 * c2 + t * 3 * c3)) / h
        second = (2 * c2 + t * 6 * c3) / (h * h)
        return np.array([mass, mass * first, mass * (first * first + np.maximum(second, 0))])


class Curve:
    """The curves of one row.

    Args:
        base: (V,) logits of P, all finite.
        delta: (V,) log T - log Q, all finite; a constant in it changes nothing.
        low, high: the range of alpha that will be asked for.
        out: (V,) buffer for the fused logits.
        is_plain: whether logits and delta are of ordinary size; otherwise no tail is estimated.

    Attributes:
        logits: (V,) base + alpha * delta of the last point over the whole vocabulary.
        log_z: their log-sum-exp.
        point: that point.
        is_double: whether the sums are float64.
    """

    def __init__(
        self,
        base: Row,
        delta: Row,
        low: float,
        high: float,
        out: Row | None = None,
        *,
        is_plain: bool = True,
    ) -> None:
        self._has_tail = is_plain and len(base) > _NO_TAIL
        self._base, self._delta = base, delta
        self._weights = np.empty_like(base)
        self._buffer = np.empty_like(base) if out is None else out
        self.low, self.high = low, high
        self.is_double = base.dtype == np.float64
        self.logits, self.log_z = base, 0.0
        self.point: Point | None = None
        self._log_z0, self._mean0, _ = self._sums(0.0)

    def _sums(self, alpha: float, *, variance: bool = False) -> tuple[float, float, float]:
        """Log Z, mean and variance of delta over the whole vocabulary; keeps logits and weights."""
        weights = self._weights
        source = self._base
        if alpha:
            source = np.multiply(self._delta, self._delta.dtype.type(alpha), out=self._buffer)
            source += self._base
        top = float(source.max())
        shift = 0.0 if abs(top) < SAFE_EXPONENT else top
        shifted = np.subtract(source, source.dtype.type(shift), out=weights) if shift else source
        np.exp(shifted, out=weights)
        total = float(weights.sum())
        mean = dot(weights, self._delta) / total
        spread = 0.0
        if variance:
            weights *= self._delta
            spread = dot(weights, self._delta) / total - mean**2
        self.logits, self.log_z = source, math.log(total) + shift
        return self.log_z, mean, max(spread, 0.0)

    def at(self, alpha: float) -> Point:
        """One point, over the whole vocabulary."""
        log_z, mean, variance = self._sums(alpha, variance=True)
        a = log_z - self._log_z0
        self.point = Point(
            alpha,
            max(alpha * mean - a, 0.0),
            max(a - alpha * self._mean0, 0.0),
            alpha * variance,
            mean - self._mean0,
        )
        return self.point

    def points(self, alpha: Array64, *, exact: bool = False) -> list[Point]:
        """K points from low to high: to about 1e-3, or exact ones at K times the price.

        The likeliest tokens of both ends are summed one by one; of the others, the tail, only
        mass and mean at both ends are known, and the mass's logarithm is interpolated in between.
        """
        if exact:
            return [self.at(value) for value in alpha.tolist()]
        a, mean, variance = self._rough_moments(alpha)
        f = np.maximum(alpha * mean - a, 0.0)
        g = np.maximum(a - alpha * self._mean0, 0.0)
        df, dg = alpha * np.maximum(variance, 0.0), mean - self._mean0
        columns = (column.tolist() for column in (alpha, f, g, df, dg))
        return [Point(*row) for row in zip(*columns, strict=True)]

    def _rough_moments(self, alpha: Array64) -> tuple[Array64, Array64, Array64]:
        """Log Z(alpha) / Z(0), mean and variance of delta, each (K,)."""
        ends = (self._end(self.low), self._end(self.high))
        cut = _CUT
        while True:
            (low_logits, low_z, _), (high_logits, high_z, _) = ends
            chosen = low_logits >= low_logits.dtype.type(low_z - cut)
            chosen |= high_logits >= high_logits.dtype.type(high_z - cut)
            ids = np.flatnonzero(chosen)
            if not len(ids):  # a flat row
                cut += _WIDER
                continue
            everything = not self._has_tail or 2 * len(ids) > len(chosen)
            base = self._base if everything else self._base[ids]
            delta = self._delta if everything else self._delta[ids]
            unit, sums = _sums_at(base, delta, alpha, self._log_z0)
            tail = None if everything else self._tail(unit, sums, ends)
            extra = np.zeros_like(sums) if tail is None else tail.moments(alpha, unit)
            if (extra[0] <= _MOST_TAIL * sums[0]).all():
                total, first, second = sums + extra
                mean = first / total
                return np.log(total) + unit, mean, second / total - mean * mean
            cut += _WIDER

    def _end(self, alpha: float) -> tuple[Row, float, float]:
        """Logits, log Z and mean of delta at one end."""
        if alpha == 0:
            return self._base, self._log_z0, self._mean0
        if self.low == 0 and self.point is not None and self.point.alpha == alpha:
            return self.logits, self.log_z, self.point.dg + self._mean0
        log_z, mean, _ = self._sums(alpha)
        return self.logits.copy() if alpha == self.low else self.logits, log_z, mean

    def _tail(
        self, unit: Array64, sums: Array64, ends: Sequence[tuple[Row, float, float]]
    ) -> _Tail | None:
        """What the sums at both ends lack; None where that is nothing."""
        log_mass, slope, is_there = [], [], False
        for place, (_, log_z, mean) in zip((0, -1), ends, strict=True):
            log_ratio = log_z - self._log_z0
            scale = math.exp(float(unit[place]) - log_ratio)
            share = 1 - float(sums[0, place]) * scale
            is_there = is_there or share > _LEAST_TAIL
            log_mass.append(math.log(max(share, _LEAST_TAIL)) + log_ratio)
            reliable = share > 100 * _LEAST_TAIL
            slope.append((mean - float(sums[1, place]) * scale) / share if reliable else math.nan)
        if not is_there:
            return None
        straight = (log_mass[1] - log_mass[0]) / (self.high - self.low)
        known = [straight if math.isnan(value) else value for value in slope]
        return _Tail((self.low, self.high), (log_mass[0], log_mass[1]), (known[0], known[1]))


def _sums_at(base: Row, delta: Row, alpha: Array64, log_unit: float) -> tuple[Array64, Array64]:
    """Sum, first and second moment of delta at K alphas, (3, K), in units of exp(log_unit + u).

    The units u (K,) are 0, unless something would overflow.
    """
    weights = np.multiply.outer(alpha.astype(base.dtype), delta)
    weights += base - base.dtype.type(log_unit)
    unit = np.zeros(len(alpha))
    if not -SAFE_EXPONENT < float(weights.max()) < SAFE_EXPONENT:
        top = weights.max(axis=1)
        weights -= top[:, None]
        unit += top
    np.exp(weights, out=weights)
    powers = np.empty((3, len(delta)), base.dtype)
    powers[0], powers[1] = 1, delta
    np.multiply(delta, delta, out=powers[2])
    # Not a matrix product: that may wake threads, which the decoding needs.
    return unit, np.einsum("kn,jn->jk", weights, powers).astype(np.float64)
