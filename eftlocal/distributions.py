"""Types of arrays, and what is summed over a vocabulary. Pure NumPy.

Shapes: R rows, V vocabulary. No result of a row depends on how many rows are computed with it:
a draft that is checked in a batch gets the same numbers as a token that is decided alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Row = npt.NDArray[np.floating[Any]]
Rows = TypeVar("Rows", bound=npt.NDArray[np.floating[Any]])

# exp(x) of float32 stays finite, and a sum of 2**20 of them too, for |x| up to this.
SAFE_EXPONENT = 60.0
# OpenBLAS takes several threads for dot products of more than 10,000 numbers.
_MOST_WITHOUT_THREADS = 8192


def log_sum_exp(logits: Array) -> Array64:
    """Log of the sum of exponentials over the last axis: (R, V) -> (R,).

    It is -inf, inf or NaN where the largest logit is.
    """
    return np.array([_log_sum_exp(row) for row in logits], np.float64)


def _log_sum_exp(row: Array) -> float:
    # Row by row, with plain numbers: few calls cost less here than few rows at once.
    top = float(row.max())
    if abs(top) < SAFE_EXPONENT:
        return math.log(float(np.exp(row).sum()))
    if not math.isfinite(top):
        return top
    with np.errstate(over="ignore"):
        return math.log(float(np.exp(row - np.float32(top)).sum())) + top


def top_probability(row: Array) -> float:
    """Probability of the likeliest token of a row of logits (V,)."""
    top = row.max()
    with np.errstate(over="ignore", invalid="ignore"):
        return 1 / float(np.exp(row - top).sum())


def dot(left: Row, right: Row) -> float:
    """Sum of products of two rows (V,), without waking the threads of a matrix library."""
    if len(left) <= _MOST_WITHOUT_THREADS:
        return float(left.dot(right))
    return float(np.einsum("v,v->", left, right))


def weighted_sum(rows: Sequence[Rows], weights: Sequence[float]) -> Rows:
    """Sum of w_i * rows_i in the rows' own precision; rows without weight do not count."""
    total: Any = np.zeros_like(rows[0])
    for row, weight in zip(rows, weights, strict=True):
        if weight:
            total += row.dtype.type(weight) * row
    result: Rows = total
    return result


def log_softmax64(logits: Array) -> Array64:
    """Normalised log-probabilities in float64: (R, V) -> (R, V)."""
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=-1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=-1, keepdims=True))
    return exact
