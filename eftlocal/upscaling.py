"""The top-p filter of up-scaling weights: where the ratio P / Q counts. Pure NumPy.

EFT (arXiv 2310.12962, section on top-p filtering of up-scaling weights): let S be the smallest set
of tokens whose probability under T sums to at least p; outside S the ratio P / Q is set to 1, so
that F ∝ T there at alpha = 1. For any alpha that is l_Q in the place of l_P outside S: no token is
excluded. Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .distributions import Array, log_sum_exp

Ids = npt.NDArray[np.intp]

# So few tokens are sorted outright.
_FEW = 256


def nucleus(logits: Array, top_p: float) -> Ids:
    """Ids, ascending, of the smallest set of likeliest tokens with at least `top_p` of the mass.

    Equal tokens go in by their ids, lowest first. Nothing is sorted but a few tokens: candidates
    within reach of the top are halved until the border is among few.

    Args:
        logits: (V,) row, not all -inf.
        top_p: in (0, 1].
    """
    top = logits.max()
    with np.errstate(invalid="ignore"):  # rows of NaN are reported where they are fused
        weights = np.exp(logits - top)
    needed = top_p * float(weights.sum(dtype=np.float64))
    for reach in (2.0, 4.0, 8.0, 16.0, np.inf):
        ids = np.flatnonzero(logits >= top - np.float32(reach))
        mass = weights[ids]
        if float(mass.sum(dtype=np.float64)) >= needed or reach == np.inf:
            break
    border = _border(mass, needed)
    above = ids[mass > border]
    ties = ids[mass == border]
    missing = needed - float(weights[above].sum(dtype=np.float64))
    n_ties = min(max(int(np.ceil(missing / border)), 1), len(ties)) if border > 0 else len(ties)
    return np.sort(np.concatenate((above, ties[:n_ties])))


def _border(mass: Array, needed: float) -> float:
    """The weight of the last token that the nucleus takes in."""
    while len(mass) > _FEW:
        half = len(mass) // 2
        mass = np.partition(mass, half)
        upper = float(mass[half:].sum(dtype=np.float64))
        if upper >= needed:
            mass = mass[half:]
        else:
            needed -= upper
            mass = mass[:half]
    mass = np.sort(mass)[::-1]
    place = int(np.searchsorted(np.cumsum(mass, dtype=np.float64), needed))
    return float(mass[min(place, len(mass) - 1)])


def upscaled_base(
    base: Array,
    tuned: Sequence[Array] | Array,
    reference: Sequence[Array] | Array,
    weights: Sequence[float],
    top_p: float,
    neutral: Ids | None = None,
) -> Array:
    """(R, V) log-probs that take P's place: l_P where up-scaling counts, else l_Q.

    Several experts are taken together: l_Q is the mean of theirs by the size of their weights, and
    S is the top-p set of T ∝ exp(l_Q + sum_i w_i (l_Ti - l_Qi)).

    Args:
        base: (R, V) logits.
        tuned: E arrays (R, V) of logits.
        reference: E arrays (R, V) of logits.
        weights: one per expert.
        top_p: in (0, 1]; at 1 only `neutral` tokens are changed.
        neutral: ids whose ratio P / Q is 1 whatever T says.
    """
    sizes = np.abs(weights) if any(weights) else np.ones(len(weights))
    sizes = sizes / sizes.sum()
    one = len(weights) == 1 and weights[0] == 1
    with np.errstate(invalid="ignore"):
        log_q = [q - log_sum_exp(q).astype(np.float32)[:, None] for q in reference]
        mean = log_q[0] if len(log_q) == 1 else _mixed(log_q, sizes)
        result = base - log_sum_exp(base).astype(np.float32)[:, None]
        mixed = (
            tuned[0]
            if one
            else mean + _mixed([t - q for t, q in zip(tuned, reference, strict=True)], weights)
        )
    for row, (own, other) in enumerate(zip(result, mean, strict=True)):
        outside = np.zeros(len(own), bool)
        if top_p < 1:
            outside[:] = True
            outside[nucleus(np.nan_to_num(mixed[row], nan=-np.inf), top_p)] = False
        if neutral is not None:
            outside[neutral] = True
        # What either model excludes has no ratio; excluded by the base it stays excluded.
        outside &= np.isfinite(other) & (own > -np.inf)
        np.copyto(own, other, where=outside)
    return result


def _mixed(rows: Sequence[Array], weights: Sequence[float] | npt.NDArray[np.float64]) -> Array:
    """(R, V) weighted sum; rows without weight do not count, infinite or not."""
    total = np.zeros_like(rows[0])
    for row, weight in zip(rows, weights, strict=True):
        if weight:
            total += np.float32(weight) * row
    return total
