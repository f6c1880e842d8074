"""Fuse rows of logits of base, tuned and reference models into one distribution per row.

Pure NumPy. Shapes: R rows, E experts, V vocabulary; logits are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import BackendError

Array = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]

# exp(x) of float32 stays finite, and a sum of 2**20 of them too, for |x| up to this.
_SAFE_EXPONENT = 60.0


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """How the deltas of E experts are weighed.

    Attributes:
        alpha: multiplier of the summed delta (EFT, arXiv 2310.12962, section 3.1: 1/beta).
        weights: one weight per expert (EFT section 4.3: (lambda, 1 - lambda) for two).
    """

    alpha: float = 1.0
    weights: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, slots=True)
class Fused:
    """The fused distribution of R rows.

    Attributes:
        logits: (R, V) float32, log F up to a constant per row.
        log_z: (R,) float64, that constant: log F = logits - log_z.
        alpha: (R, E) float64, what each expert's delta was multiplied with.
    """

    logits: Array
    log_z: Array64
    alpha: Array64

    @property
    def logprobs(self) -> Array:
        """(R, V) float32 log F, normalised per row."""
        return (self.logits - self.log_z[:, None]).astype(np.float32)


def log_sum_exp(logits: Array) -> Array64:
    """Log of the sum of exponentials over the last axis: (R, V) -> (R,).

    The result of a row does not depend on how many rows are computed with it.
    """
    top = logits.max(axis=-1)
    huge = np.abs(top) >= _SAFE_EXPONENT
    with np.errstate(over="ignore", divide="ignore"):
        if not huge.any():
            log_z: Array64 = np.log(np.exp(logits).sum(axis=-1), dtype=np.float64)
            return log_z
        shift = np.where(huge & np.isfinite(top), top, np.float32(0))
        total = np.exp(logits - shift[..., None]).sum(axis=-1)
        log_z = np.log(total, dtype=np.float64) + shift
    return log_z


def fuse(
    base: Array,
    tuned: Sequence[Array] | Array,
    reference: Sequence[Array] | Array,
    settings: FusionSettings,
    out: Array | None = None,
) -> Fused:
    """F = softmax(base + alpha * sum_i w_i (tuned_i - reference_i)), row by row.

    EFT, arXiv 2310.12962, equation 4 and section 4.3, on raw logits: softmax does not see the
    constant by which logits and log-probabilities of a row differ.

    A token that the base excludes (-inf) stays excluded. A token that the reference excludes has
    no delta and keeps the base's logit; one that only a tuned model excludes is excluded where
    its delta has a positive multiplier, and keeps the base's logit where it has a negative one.

    Args:
        base: (R, V) logits.
        tuned: E arrays (R, V), one per expert.
        reference: E arrays (R, V), one per expert.
        settings: alpha and one weight per expert.
        out: (R, V) buffer for the fused logits; a new one is made without it.

    Raises:
        BackendError: where logits are NaN or nothing is left to choose from.
    """
    logits = np.empty(base.shape, np.float32) if out is None else out
    multipliers = [settings.alpha * weight for weight in settings.weights]
    with np.errstate(invalid="ignore", over="ignore"):
        _combine(base, tuned, reference, multipliers, logits)
    log_z = log_sum_exp(logits)
    careful = ~np.isfinite(log_z)
    for q, multiplier in zip(reference, multipliers, strict=True):
        if multiplier < 0:  # then what the reference excludes looks like what the base excludes
            careful |= np.isneginf(q.min(axis=-1))
    if careful.any():
        rows = np.flatnonzero(careful)
        experts = ([t[rows] for t in tuned], [q[rows] for q in reference])
        logits[rows] = _combine_carefully(base[rows], *experts, multipliers)
        log_z[rows] = log_sum_exp(logits[rows])
    alpha = np.empty((len(base), len(multipliers)))
    alpha[:] = settings.alpha
    return Fused(logits, log_z, alpha)


def _combine(
    base: Array,
    tuned: Sequence[Array] | Array,
    reference: Sequence[Array] | Array,
    multipliers: Sequence[float],
    out: Array,
) -> None:
    """The formula in as few passes over the vocabulary as NumPy allows."""
    if not any(multipliers):
        out[...] = base
        return
    scratch: Array | None = None
    started = False
    for t, q, multiplier in zip(tuned, reference, multipliers, strict=True):
        if multiplier == 0:
            continue
        if not started:
            np.subtract(t, q, out=out)
            if multiplier != 1:
                out *= np.float32(multiplier)
            started = True
        else:
            scratch = np.empty_like(out) if scratch is None else scratch
            np.subtract(t, q, out=scratch)
            scratch *= np.float32(multiplier)
            out += scratch
    out += base


def _combine_carefully(
    base: Array,
    tuned: Sequence[Array],
    reference: Sequence[Array],
    multipliers: Sequence[float],
) -> Array:
    """The same in float64 and with a top of 0, for rows with infinite or huge logits."""
    experts = [e for e in zip(tuned, reference, multipliers, strict=True) if e[2]]
    inputs = [base, *(rows for t, q, _ in experts for rows in (t, q))]
    if any(np.isnan(rows).any() for rows in inputs):
        raise BackendError("a model returned logits that are not numbers (its file may be damaged)")
    total = base.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        for t, q, multiplier in experts:
            delta = multiplier * (t.astype(np.float64) - q)
            no_delta = np.isneginf(q) | (np.isneginf(t) if multiplier < 0 else False)
            total += np.where(no_delta, 0.0, delta)
        total -= total.max(axis=-1, keepdims=True)
    if np.isnan(total).any():
        raise BackendError("the models exclude every token, or give infinite logits")
    lowest = np.finfo(np.float32).min
    return np.where(np.isneginf(total), -np.inf, np.maximum(total, lowest)).astype(np.float32)
