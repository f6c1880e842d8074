"""Dynamic alpha: how much of the delta the next token takes, searched anew for each row.

Dynamic Logits Fusion (arXiv 2406.15480, equation 6 and algorithm, symmetrised) takes for every
token the alpha that moves F as far from P as tuning moved T from Q:

    L(alpha) = (KL(F || P) - KL(T || Q))^2 + (KL(P || F) - KL(Q || T))^2

Pure NumPy. Shapes: R rows, E experts, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..distributions import Array64, Row, dot, weighted_sum
from ..errors import BackendError
from .curve import Curve, Targets
from .joint import search_joint
from .minimum import first_lowest, lowest

_GRID = np.arange(21) / 10
# float32 is as good as exact for logits and deltas up to this.
_ORDINARY = 200.0
_LEAST_TOTAL, _MOST_CONSTANT = 1e-20, 4.0
# Rows up to this width are searched in float64, which costs little then.
_SMALL = 4096


@dataclass(frozen=True, slots=True)
class AlphaSettings:
    """How alpha is searched.

    Attributes:
        mode: "dynamic", the minimum of L on [low, high]; "grid", the paper's 21 points from 0 to 2;
            "one-sided", the first square of L only; "joint", all experts' alphas together.
        low, high: the range of alpha.
        weights: one per expert: a single alpha multiplies the mixed delta. None lets the experts
            compete, or, with "joint", gives each its own alpha.
    """

    mode: str = "dynamic"
    low: float = 0.0
    high: float = 2.0
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Alpha:
    """What was found.

    Attributes:
        alpha: (R, E) float64, what each delta is multiplied with (weights included).
        loss: (R,) float64, L there, summed over the experts that compete.
    """

    alpha: Array64
    loss: Array64


@dataclass(frozen=True, slots=True)
class Found:
    """The result of one row; `logits` (V,) and `log_z` of F where they came for free."""

    alpha: Array64
    loss: float
    logits: Row | None = None
    log_z: float = 0.0


def search_alpha(
    base: Row, tuned: Sequence[Row] | Row, reference: Sequence[Row] | Row, settings: AlphaSettings
) -> Alpha:
    """Search alpha for every row.

    Several experts without weights compete as in the paper: one is active per token, and L sums
    the squares over all experts. That sum is E times the loss against the experts' mean targets,
    plus a constant, so each expert is searched against the means and the best one is taken.

    The loss at the returned alpha is within 1e-6 * max(1, L) of the minimum: an outline of the
    curves is refined until no cell can hide a lower value, and the minima that it shows are then
    polished on the whole vocabulary; see `minimum`. Where several alphas are as good, the
    one nearest 1 is taken (joint: nearest 1/E for each).

    Tokens that one of the models excludes (-inf) are left out of the search.

    Args:
        base: (R, V) logits or log-probabilities.
        tuned: E arrays (R, V).
        reference: E arrays (R, V).
        settings: how to search.

    Raises:
        BackendError: where logits are NaN.
    """
    found = [
        search_row(base[r], [t[r] for t in tuned], [q[r] for q in reference], settings)
        for r in range(len(base))
    ]
    alpha = np.array([row.alpha for row in found]).reshape(len(base), len(tuned))
    return Alpha(alpha, np.array([row.loss for row in found], np.float64))


def search_row(
    base: Row,
    tuned: Sequence[Row],
    reference: Sequence[Row],
    settings: AlphaSettings,
    out: Row | None = None,
) -> Found:
    """Search alpha for one row (V,); `out` is a (V,) buffer for the fused logits."""
    is_exact = len(base) <= _SMALL
    if is_exact:
        base, tuned, reference = _exact(base, tuned, reference)
    deltas, pairs = _deltas(base, tuned, reference)
    is_plain = _is_ordinary(base, deltas)
    if not is_exact and not (is_plain and all(math.isfinite(f) for f, _ in pairs)):
        is_exact = True
        base, tuned, reference = _exact(base, tuned, reference)
        deltas, pairs = _deltas(base, tuned, reference)
    if not len(base):
        return Found(_nearest_one(settings, len(tuned)), 0.0)
    out = None if is_exact else out
    row = _Row(base, deltas, np.array(pairs), settings, out, is_plain)
    if settings.weights is not None:
        return _mixed(row, settings.weights)
    return _joint(row) if settings.mode == "joint" and len(deltas) > 1 else _competing(row)


@dataclass(frozen=True, slots=True)
class _Row:
    """One row: base (V,), E deltas (V,), pairs (E, 2) of KL(T || Q) and KL(Q || T)."""

    base: Row
    deltas: list[Row]
    pairs: Array64
    settings: AlphaSettings
    out: Row | None
    is_plain: bool

    def targets(self, mean: Array64) -> Targets:
        """A pair as what f and g should be."""
        both = self.settings.mode != "one-sided"
        noise = 1e-12 if self.base.dtype == np.float64 else 1e-6
        return Targets(float(mean[0]), float(mean[1]), both, noise)

    def best(self, delta: Row, targets: Targets) -> Found:
        """The best alpha (1,) of one delta."""
        grid = self.settings.mode == "grid"
        low, high = (0.0, 2.0) if grid else (self.settings.low, self.settings.high)
        curve = Curve(self.base, delta, low, high, self.out, is_plain=self.is_plain)
        alpha, loss = first_lowest(curve, targets, _GRID) if grid else lowest(curve, targets)
        return Found(np.array([alpha]), loss, curve.logits, curve.log_z)


def _competing(row: _Row) -> Found:
    """The paper's rule: the expert whose own best alpha has the least loss; the others get 0."""
    if len(row.deltas) == 1:
        return row.best(row.deltas[0], row.targets(row.pairs[0]))
    mean = row.pairs.mean(axis=0)
    targets = row.targets(mean)
    each = [replace(row, out=None).best(delta, targets) for delta in row.deltas]
    expert = int(np.argmin([found.loss for found in each]))
    alpha = np.zeros(len(each))
    alpha[expert] = each[expert].alpha[0]
    spread = np.square(row.pairs - mean)[:, : 1 + targets.both].sum()
    loss = len(each) * each[expert].loss + float(spread)
    return Found(alpha, loss, each[expert].logits, each[expert].log_z)


def _mixed(row: _Row, weights: tuple[float, ...]) -> Found:
    """One alpha on the weighted sum of the deltas, with targets averaged by the weights' size."""
    sizes = np.abs(weights)
    mean = sizes @ row.pairs / sizes.sum() if sizes.any() else row.pairs.mean(axis=0)
    mixed = row.deltas[0] if weights == (1.0,) else weighted_sum(row.deltas, weights)
    found = row.best(mixed, row.targets(mean))
    return Found(found.alpha * np.array(weights), found.loss, found.logits, found.log_z)


def _joint(row: _Row) -> Found:
    """All alphas together; the sum over experts is E times the loss against their mean targets."""
    mean = row.pairs.mean(axis=0)
    bounds = row.settings.low, row.settings.high
    alpha, loss = search_joint(row.base, np.array(row.deltas), row.targets(mean), bounds)
    return Found(alpha, len(alpha) * loss + float(np.square(row.pairs - mean).sum()))


def _nearest_one(settings: AlphaSettings, n_experts: int) -> Array64:
    """The alphas of a row that says nothing."""
    share = 1.0 if settings.mode != "joint" else 1 / n_experts
    alpha = np.zeros(n_experts)
    if settings.mode == "joint" or settings.weights is not None:
        alpha[:] = min(max(share, settings.low), settings.high)
        return alpha if settings.weights is None else alpha * np.array(settings.weights)
    alpha[0] = min(max(share, settings.low), settings.high)
    return alpha


def _deltas(
    base: Row, tuned: Sequence[Row], reference: Sequence[Row]
) -> tuple[list[Row], list[tuple[float, float]]]:
    """Each expert's log T - log Q (V,), and its pair of KL(T || Q) and KL(Q || T).

    A constant in a delta changes nothing; a large one is taken out, as it would cost digits. The
    pairs are NaN where logits are too large for exp.
    """
    deltas, pairs = [], []
    weights = np.empty_like(base)
    with np.errstate(all="ignore"):
        for t, q in zip(tuned, reference, strict=True):
            delta = np.subtract(t, q)
            deltas.append(delta)
            pairs.append((math.nan, math.nan))
            if not len(base):
                continue
            constant = float(delta[base.argmax()])
            constant = constant if abs(constant) > _MOST_CONSTANT else 0.0
            if constant:
                delta -= constant
            total_t, mean_t = _mean(t, delta, weights)
            total_q, mean_q = _mean(q, delta, weights)
            if min(total_t, total_q) > _LEAST_TOTAL and max(total_t, total_q) < math.inf:
                log_ratio = math.log(total_t / total_q) - constant
                pairs[-1] = max(mean_t - log_ratio, 0.0), max(log_ratio - mean_q, 0.0)
    return deltas, pairs


def _is_ordinary(base: Row, deltas: Sequence[Row]) -> bool:
    """Whether float32 does: nothing excluded, nothing huge; NaN and infinity fail every test."""
    return len(base) > 0 and all(
        float(row.min()) > -_ORDINARY and float(row.max()) < _ORDINARY for row in (base, *deltas)
    )


def _exact(
    base: Row, tuned: Sequence[Row], reference: Sequence[Row]
) -> tuple[Row, list[Row], list[Row]]:
    """The same in float64 with a top of 0, over the tokens that no model excludes."""
    rows = np.array([base, *tuned, *reference], np.float64)
    if np.isnan(rows).any():
        raise BackendError("a model returned logits that are not numbers (its file may be damaged)")
    is_finite = np.isfinite(rows)
    if not is_finite.all():
        rows = rows[:, is_finite.all(axis=0)]
    if rows.shape[1]:
        rows -= rows.max(axis=1, keepdims=True)
    return rows[0], list(rows[1 : 1 + len(tuned)]), list(rows[1 + len(tuned) :])


def _mean(logits: Row, delta: Row, weights: Row) -> tuple[float, float]:
    """The sum of exp(logits), and the mean of delta under it."""
    np.exp(logits, out=weights)
    total = float(weights.sum())
    return total, dot(weights, delta) / (total or 1)
