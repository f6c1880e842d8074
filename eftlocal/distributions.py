"""Types of arrays, and what is summed over a vocabulary. Pure NumPy.

Shapes: R rows, V vocabulary. No result of a row depends on how many rows are computed with it:
a draft that is checked in a batch gets the same numbers as a token that is decided alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Rows = TypeVar("Rows", bound=npt.NDArray[np.floating[Any]])

# exp(x) of float32 stays finite, and a sum of 2**20 of them too, for |x| up to this.
SAFE_EXPONENT = 60.0


def log_sum_exp(logits: Array) -> Array64:
    """Log of the sum of exponentials over the last axis: (R, V) -> (R,)."""
    top = logits.max(axis=-1)
    huge = np.abs(top) >= SAFE_EXPONENT
    with np.errstate(over="ignore", divide="ignore"):
        if not huge.any():
            log_z: Array64 = np.log(np.exp(logits).sum(axis=-1), dtype=np.float64)
            return log_z
        shift = np.where(huge & np.isfinite(top), top, np.float32(0))
        total = np.exp(logits - shift[..., None]).sum(axis=-1)
        log_z = np.log(total, dtype=np.float64) + shift
    return log_z


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
