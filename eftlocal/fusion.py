"""Fuse rows of logits of base, tuned and reference models into one distribution per row.

Pure NumPy. Shapes: R rows, E experts, V vocabulary; logits are float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .alpha import AlphaSettings, search_row
from .distributions import Array, Array64, log_sum_exp
from .errors import BackendError
from .sampling import Ids
from .upscaling import upscaled_base


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """How the deltas of E experts are weighed.

    Attributes:
        alpha: multiplier of the summed delta (EFT, arXiv 2310.12962, section 3.1: 1/beta), or the
            mode of its search, see `alpha.AlphaSettings`.
        weights: one weight per expert (EFT section 4.3: (lambda, 1 - lambda) for two); None gives
            each 1/E, and lets them compete where alpha is searched.
        low, high: where alpha is searched.
        upscale_top_p: the filter of `upscaling.upscaled_base`; 1 is off.
        part: "fused"; or "base", "tuned" or "reference", whose rows are taken as they are: those of
            the expert whose weight is the largest in size.
    """

    alpha: float | str = 1.0
    weights: tuple[float, ...] | None = None
    low: float = 0.0
    high: float = 2.0
    upscale_top_p: float = 1.0
    part: str = "fused"


@dataclass(frozen=True, slots=True)
class Fused:
    """The fused distribution of R rows.

    Attributes:
        logits: (R, V) float32, log F up to a constant per row.
        log_z: (R,) float64, that constant: log F = logits - log_z.
        alpha: (R, E) float64, what each expert's delta was multiplied with; 0 where one part of the
            models speaks alone.
    """

    logits: Array
    log_z: Array64
    alpha: Array64

    @property
    def logprobs(self) -> Array:
        """(R, V) float32 log F, normalised per row."""
        return (self.logits - self.log_z[:, None]).astype(np.float32)


def heaviest(weights: Sequence[float] | None) -> int:
    """The index of the expert whose weight is the largest in size; the first one without any."""
    return 0 if weights is None else max(range(len(weights)), key=lambda i: abs(weights[i]))


def fuse(
    base: Array,
    tuned: Sequence[Array] | Array,
    reference: Sequence[Array] | Array,
    settings: FusionSettings,
    out: Array | None = None,
    held: Sequence[float] | None = None,
    neutral: Ids | None = None,
) -> Fused:
    """F = softmax(base + sum_i alpha_i w_i (tuned_i - reference_i)), row by row.

    EFT, arXiv 2310.12962, equation 4 and section 4.3, on raw logits: softmax does not see the
    constant by which logits and log-probabilities of a row differ. A searched alpha is that of
    Dynamic Logits Fusion, arXiv 2406.15480.

    A token that the base excludes (-inf) stays excluded. A token that the reference excludes has
    no delta and keeps the base's logit; one that only a tuned model excludes is excluded where
    its delta has a positive multiplier, and keeps the base's logit where it has a negative one.

    Args:
        base: (R, V) logits.
        tuned: E arrays (R, V), one per expert.
        reference: E arrays (R, V), one per expert.
        settings: alpha, weights and filter; or the part that speaks alone.
        out: (R, V) buffer for the fused logits; a new one is made without it.
        held: what each delta is multiplied with, found earlier; nothing is searched then.
        neutral: ids for which base and reference count as equal.

    Raises:
        BackendError: where logits are NaN or nothing is left to choose from.
    """
    n_experts = len(tuned)
    if settings.part != "fused":
        i = heaviest(settings.weights)
        alone = {"base": base, "tuned": tuned[i], "reference": reference[i]}[settings.part]
        row = np.empty(alone.shape, np.float32) if out is None else out
        return _fuse(alone, tuned, reference, (0.0,) * n_experts, row)
    weights = settings.weights or (1 / n_experts,) * n_experts
    if settings.upscale_top_p < 1 or neutral is not None:
        base = upscaled_base(base, tuned, reference, weights, settings.upscale_top_p, neutral)
    logits = np.empty(base.shape, np.float32) if out is None else out
    if isinstance(settings.alpha, str) and held is None:
        return _search(base, tuned, reference, settings, logits)
    multipliers = held or [float(settings.alpha) * weight for weight in weights]
    return _fuse(base, tuned, reference, multipliers, logits)


def _search(
    base: Array,
    tuned: Sequence[Array] | Array,
    reference: Sequence[Array] | Array,
    settings: FusionSettings,
    out: Array,
) -> Fused:
    """Fuse every row with the alpha that is found for it."""
    assert isinstance(settings.alpha, str)
    search = AlphaSettings(settings.alpha, settings.low, settings.high, settings.weights)
    log_z, alphas = np.empty(len(base)), np.empty((len(base), len(tuned)))
    for r in range(len(base)):
        t, q = [rows[r] for rows in tuned], [rows[r] for rows in reference]
        row = out[r]
        found = search_row(base[r], t, q, search, row)
        alphas[r], log_z[r] = found.alpha, found.log_z
        if found.logits is None or len(found.logits) != len(row):
            experts = [row[None] for row in t], [row[None] for row in q]
            one = _fuse(base[r : r + 1], *experts, found.alpha.tolist(), out[r : r + 1])
            log_z[r] = one.log_z[0]
        elif found.logits is not row:
            row[:] = found.logits
    return Fused(out, log_z, alphas)


def _fuse(
    base: Array,
    tuned: Sequence[Array] | Array,
    reference: Sequence[Array] | Array,
    multipliers: Sequence[float],
    logits: Array,
) -> Fused:
    """Fuse all rows with the same multipliers."""
    with np.errstate(invalid="ignore", over="ignore"):
        _combine(base, tuned, reference, multipliers, logits)
    log_z = log_sum_exp(logits)
    careful = [not math.isfinite(z) for z in log_z.tolist()]
    for q, multiplier in zip(reference, multipliers, strict=True):
        if multiplier < 0:  # then what the reference excludes looks like what the base excludes
            careful = [bad or row.min() == -math.inf for bad, row in zip(careful, q, strict=True)]
    if any(careful):
        rows = np.flatnonzero(careful)
        experts = ([t[rows] for t in tuned], [q[rows] for q in reference])
        logits[rows] = _combine_carefully(base[rows], *experts, multipliers)
        log_z[rows] = log_sum_exp(logits[rows])
    return Fused(logits, log_z, np.array([multipliers] * len(base), np.float64))


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
