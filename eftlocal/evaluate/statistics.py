"""Shares, their differences and ratios, with 95 % intervals; NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..tables import Estimate

Judged = NDArray[np.float64]
"""(Q,) what a judge says of each reply: 1 or 0, or a score."""

RESAMPLES = 4000
_Z = 1.959963984540054  # the normal distribution's 97.5 % quantile
_QUANTILES = (0.025, 0.975)
_FEWEST_CLUSTERS = 10
"""With fewer, draws of them say little about others."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals of what is more than one share are found.

    Questions are drawn again with replacement, in clusters: questions on the same thing stand or
    fall together. All systems are judged on the same draw, so that differences between them are
    paired.

    Attributes:
        counts: (B, Q) how often each question is in each draw.
        clusters: (Q,) the number of each question's cluster.
    """

    counts: NDArray[np.float64]
    clusters: NDArray[np.intp]

    @classmethod
    def over(cls, clusters: Sequence[str], seed: int = 0, resamples: int = RESAMPLES) -> Bootstrap:
        """Draws over questions whose clusters have these names."""
        names, of_question = np.unique(np.asarray(clusters), return_inverse=True)
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
        return cls(drawn[:, of_question].astype(np.float64), of_question)

    def estimate(self, statistic: Callable[..., NDArray[np.float64]], *judged: Judged) -> Estimate:
        """A statistic of means, with its percentile interval.

        There is no interval where there are few clusters, or where all draws are equal: they then
        say nothing about questions that were not asked.

        Args:
            statistic: of one array of means (B,) per judged array.
            *judged: (Q,) each, all on the same questions.
        """
        values = np.stack(judged).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(*values.mean(axis=1)[:, None])[0])
            means = (self.counts @ values.T) / self.counts.sum(axis=1)[:, None]
            draws = statistic(*means.T)
        draws = draws[np.isfinite(draws)]
        if not math.isfinite(value) or not len(draws):
            return Estimate(math.nan, math.nan, math.nan)
        if len(set(self.clusters.tolist())) < _FEWEST_CLUSTERS or np.ptp(draws) == 0:
            return Estimate(value, math.nan, math.nan)
        low, high = np.quantile(draws, _QUANTILES)
        return Estimate(value, float(low), float(high))

    def share(self, judged: Judged) -> Estimate:
        """The share of 1 among ones and zeros; see the function of that name."""
        return share(judged, self.clusters)

    def mean(self, judged: Judged) -> Estimate:
        """The mean."""
        return self.estimate(lambda mean: mean, judged)

    def difference(self, one: Judged, other: Judged) -> Estimate:
        """How much larger the mean of the first is."""
        return self.estimate(lambda a, b: a - b, one, other)

    def recovered(self, fused: Judged, floor: Judged, ceiling: Judged) -> Estimate:
        """PGR, the share of the gap between floor and ceiling that fusing closes.

        (fused - floor) / (ceiling - floor) of the means; arXiv 2310.12962, section 4.
        """
        return self.estimate(lambda a, b, c: (a - b) / (c - b), fused, floor, ceiling)


def share(judged: Judged, clusters: NDArray[np.intp] | None = None) -> Estimate:
    """The share of 1 among ones and zeros, with Wilson's interval; NaN of nothing.

    Args:
        judged: (Q,) ones and zeros.
        clusters: (Q,) numbers; questions of one cluster count as fewer where they agree more than
            others do (Kish's design effect, from the variance between clusters).
    """
    n = float(len(judged))
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan)
    p = float(np.mean(judged))
    if clusters is not None:
        n /= _design_effect(np.asarray(judged, dtype=np.float64), clusters)
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    # Rounding must not put the share outside its own interval.
    return Estimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def _design_effect(judged: Judged, clusters: NDArray[np.intp]) -> float:
    """By how much clusters make the variance of the mean larger; at least 1."""
    centred = judged - judged.mean()
    sums = np.bincount(np.unique(clusters, return_inverse=True)[1], weights=centred)
    alone = float((centred**2).sum())
    if alone == 0 or len(sums) < 2:
        return 1.0
    return max(1.0, float((sums**2).sum()) * len(sums) / (len(sums) - 1) / alone)
