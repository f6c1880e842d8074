"""How far two judges agree beyond chance, and in their ranks; NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...tables import Estimate
from ..statistics import Bootstrap

Array = NDArray[np.float64]


def quadratic_kappa(one: Array, other: Array, draws: Bootstrap) -> Estimate:
    """Cohen's kappa with quadratic weights (Cohen 1968, Psychological Bulletin 70, 213).

    1 - E[(x - y)^2] / E[(x - y')^2], y' being drawn independently of x; both are functions of
    means, so no table of categories is needed.
    """
    # A shift of both changes nothing but the rounding.
    centre = float(np.rint(np.mean([one, other])))
    x, y = one - centre, other - centre

    def statistic(mx: Array, my: Array, mxx: Array, myy: Array, mxy: Array) -> Array:
        return 1 - (mxx + myy - 2 * mxy) / (mxx + myy - 2 * mx * my)

    return draws.estimate(statistic, x, y, x * x, y * y, x * y)


def nominal_kappa(one: Sequence[str], other: Sequence[str], draws: Bootstrap) -> Estimate:
    """Cohen's kappa (1960, Educational and Psychological Measurement 20, 37)."""
    first, second = np.asarray(one), np.asarray(other)
    names = sorted({*one, *other})
    shares = [side == name for name in names for side in (first, second)]

    def statistic(equal: Array, *means: Any) -> Array:
        chance = sum(a * b for a, b in zip(means[::2], means[1::2], strict=True))
        return np.asarray((equal - chance) / (1 - chance))

    return draws.estimate(statistic, (first == second), *shares)


def spearman(one: Array, other: Array, draws: Bootstrap) -> Estimate:
    """Correlation of ranks, ties sharing theirs; ranked anew in every draw."""
    whole = np.ones((1, len(one)))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(_spearman(one, other, whole)[0])
        found = _spearman(one, other, draws.counts)
    found = found[np.isfinite(found)]
    if not np.isfinite(value) or not len(found):
        return Estimate(np.nan, np.nan, np.nan)
    low, high = np.quantile(found, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def _spearman(one: Array, other: Array, counts: Array) -> Array:
    """(B,) correlations of ranks, questions being there `counts` (B, Q) times; NaN of no spread."""
    x, y = _ranks(one, counts), _ranks(other, counts)
    total = counts.sum(axis=1, keepdims=True)
    x = x - (counts * x).sum(axis=1, keepdims=True) / total
    y = y - (counts * y).sum(axis=1, keepdims=True) / total
    spread = (counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1)
    # Ranks are halves of whole numbers: less than this is rounding.
    return np.asarray(
        np.where(spread > 1e-6, (counts * x * y).sum(axis=1) / np.sqrt(spread), np.nan)
    )


def _ranks(values: Array, counts: Array) -> Array:
    """(B, Q) mean ranks of the values in each draw."""
    levels, of = np.unique(values, return_inverse=True)
    there = np.zeros((len(counts), len(levels)))
    for level in range(len(levels)):
        there[:, level] = counts[:, of == level].sum(axis=1)
    ranks: Array = np.cumsum(there, axis=1) - (there - 1) / 2
    return ranks[:, of]
