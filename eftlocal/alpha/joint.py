"""All experts' alphas searched together, beyond the paper's one active expert per token.

The loss of Dynamic Logits Fusion sees F through two numbers only, f = KL(F || P) and
g = KL(P || F). With three experts it leaves a curve of minimisers, with more a surface, and their
likeliest tokens differ. The one nearest to 1/E for every expert is taken, the static mean of the
paper's baseline, as the minimum over the box [low, high]^E of

    L(alpha) + epsilon * max(1, L) * |alpha - 1/E|^2.

Its loss exceeds the least one by at most that pull, some 1e-7 * max(1, L), and it is no farther
from 1/E than any exact minimiser. Several starts, not a proof, guard against local minima.
Pure NumPy, float64. Shapes: E experts, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..distributions import Array64, Row
from .curve import Curve, Targets
from .minimum import lowest

# From a pull towards 1/E that outweighs the loss to one that only breaks ties.
_PULLS = (1.0, 1e-1, 1e-2, 1e-3, 1e-5)
_LAST_PULL = 1e-8
# Losses that count as none, and as equal in max(1, L).
_REACHED, _TIE = 1e-7, 1e-8
_MOST_STEPS = 60
# About so many points has a grid of starts, at most so many with many experts.
_GRID_POINTS, _MOST_GRID, _STARTS = 350, 1024, 4
# What is further below the top at all ends is left out until the last steps.
_CUT, _NO_TAIL = 14.0, 512


@dataclass(frozen=True, slots=True)
class _Value:
    """The objective at one vector of alphas, with gradient (E,) and Hessian (E, E)."""

    loss: float
    objective: float
    gradient: Array64
    hessian: Array64


class _Family:
    """F ∝ P exp(sum_i alpha_i delta_i) of one row, P and deltas being (V,) and (E, V)."""

    def __init__(self, base: Array64, deltas: Array64, targets: Targets) -> None:
        self._base, self._deltas, self.targets = base, deltas, targets
        self._log_z0, p = self._normalised(base)
        self._mean0 = np.einsum("ev,v->e", deltas, p)

    @staticmethod
    def _normalised(logits: Array64) -> tuple[float, Array64]:
        top = logits.max()
        weights = np.exp(logits - top)
        total = weights.sum()
        return float(np.log(total) + top), weights / total

    def losses(self, alphas: Array64) -> Array64:
        """The loss at K vectors of alphas: (K, E) -> (K,)."""
        logits = self._base + np.einsum("ke,ev->kv", alphas, self._deltas)
        top = logits.max(axis=1)
        weights = np.exp(logits - top[:, None])
        total = weights.sum(axis=1)
        mean = np.einsum("kv,ev->ke", weights, self._deltas) / total[:, None]
        a = np.log(total) + top - self._log_z0
        f = (alphas * mean).sum(axis=1) - a - self.targets.f
        g = a - (alphas * self._mean0).sum(axis=1) - self.targets.g
        losses: Array64 = f * f + g * g
        return losses

    def at(self, alpha: Array64, pull: float) -> _Value:
        """Loss and objective, with f' = H alpha, f'' = H + C, g' = m - E_P[delta], g'' = H.

        H is the covariance of the deltas under F, C the third cumulants summed along alpha.
        """
        center = 1 / len(alpha)
        log_z, p = self._normalised(self._base + np.einsum("e,ev->v", alpha, self._deltas))
        mean = np.einsum("ev,v->e", self._deltas, p)
        apart = self._deltas - mean[:, None]
        weighted = apart * p
        h = np.einsum("iv,jv->ij", weighted, apart)
        weighted *= np.einsum("e,ev->v", alpha, apart)
        bend = np.einsum("iv,jv->ij", weighted, apart)
        a = log_z - self._log_z0
        f = float(alpha @ mean) - a - self.targets.f
        g = a - float(alpha @ self._mean0) - self.targets.g
        df, dg = h @ alpha, mean - self._mean0
        loss = f * f + g * g
        curved = np.outer(df, df) + np.outer(dg, dg) + f * (h + bend) + g * h
        return _Value(
            loss,
            loss + pull * float(np.square(alpha - center).sum()),
            2 * (f * df + g * dg + pull * (alpha - center)),
            2 * (curved + pull * np.eye(len(alpha))),
        )


def search_joint(
    base: Row, deltas: Row, targets: Targets, bounds: tuple[float, float]
) -> tuple[Array64, float]:
    """Search all alphas of one row.

    The search starts at 1/E and follows the minimum while the pull towards it fades. Where that
    does not reach the targets, it also starts from every expert's own best alpha and from low
    places of a grid, and slides from the lowest ends towards 1/E.

    Args:
        base: (V,) logits, all finite.
        deltas: (E, V), all finite.
        targets: what f and g should be.
        bounds: low and high of each alpha.

    Returns:
        (E,) alphas, and the loss.
    """
    low, high = bounds
    base64, deltas64 = base.astype(np.float64), deltas.astype(np.float64)
    pull = _LAST_PULL * min(1.0, 4 / (high - low) ** 2)
    whole = family = _Family(base64, deltas64, targets)
    ids = _support(base64, deltas64, bounds)
    if len(ids) < len(base64):
        family = _Family(base64[ids], deltas64[:, ids], targets)
    middle = np.full(len(deltas), min(max(1 / len(deltas), low), high))
    alpha = _slide(family, middle, _PULLS, bounds)
    pull *= max(1.0, family.at(alpha, 0.0).loss)
    ends = [_descend(whole, alpha, pull, bounds)]
    losses = [whole.at(ends[0], 0.0).loss]
    if losses[0] > _REACHED:
        starts = [*_single(whole, base64, deltas64, bounds), *_starts(family, middle, bounds)]
        ends += [_descend(whole, start, pull, bounds) for start in starts]
        losses += [whole.at(end, 0.0).loss for end in ends[1:]]
        equal = min(losses) + _TIE * max(1.0, min(losses))
        unit = max(1.0, losses[0])
        for end in [end for end, loss in zip(ends, losses, strict=True) if loss <= equal]:
            alpha = _slide(family, end, [unit * fading for fading in _PULLS[-2:]], bounds)
            ends.append(_descend(whole, alpha, pull, bounds))
            losses.append(whole.at(ends[-1], 0.0).loss)
    equal = min(losses) + _TIE * max(1.0, min(losses))
    ties = [i for i, loss in enumerate(losses) if loss <= equal]
    nearest = min(ties, key=lambda i: float(np.square(ends[i] - middle).sum()))
    return ends[nearest], losses[nearest]


def _slide(
    family: _Family, start: Array64, pulls: Sequence[float], bounds: tuple[float, float]
) -> Array64:
    """Follow the minimum while the pull towards the middle fades."""
    for pull in pulls:
        start = _descend(family, start, pull, bounds)
    return start


def _support(base: Array64, deltas: Array64, bounds: tuple[float, float]) -> npt.NDArray[np.intp]:
    """Ids of tokens that are likely where one expert is at an end and the others are 0."""
    chosen = np.full(len(base), len(base) <= _NO_TAIL)
    for logits in (base, *(base + end * delta for delta in deltas for end in bounds if end)):
        chosen |= logits > logits.max() - _CUT
    return np.flatnonzero(chosen)


def _single(
    family: _Family, base: Array64, deltas: Array64, bounds: tuple[float, float]
) -> Iterator[Array64]:
    """Every expert's own best alpha, the paper's choices."""
    for expert, delta in enumerate(deltas):
        alpha = np.full(len(deltas), min(max(0.0, bounds[0]), bounds[1]))
        alpha[expert] = lowest(Curve(base, delta, *bounds), family.targets)[0]
        yield alpha


def _starts(family: _Family, middle: Array64, bounds: tuple[float, float]) -> Iterator[Array64]:
    """The lowest places of a grid, then low ones near the middle; no two are neighbours."""
    per_axis = max(int(_GRID_POINTS ** (1 / len(middle))), 2)
    steps = np.array(list(itertools.product(range(per_axis), repeat=len(middle))))[:_MOST_GRID]
    grid = bounds[0] + steps * ((bounds[1] - bounds[0]) / (per_axis - 1))
    losses = family.losses(grid)
    pulled = losses + 0.01 * max(1.0, losses.min()) * np.square(grid - middle).sum(axis=1)
    chosen: list[int] = []
    for values in (losses, pulled):
        wanted = len(chosen) + _STARTS
        for place in np.argsort(values, kind="stable").tolist():
            if len(chosen) == wanted:
                break
            if all(np.abs(steps[place] - steps[other]).max() > 1 for other in chosen):
                chosen.append(place)
                yield grid[place]


def _descend(family: _Family, start: Array64, pull: float, bounds: tuple[float, float]) -> Array64:
    """Newton steps in the box, with negative curvature taken as positive, damped as needed."""
    low, high = bounds
    alpha, damping = start, 0.0
    value = family.at(alpha, pull)
    for _ in range(_MOST_STEPS):
        gradient = value.gradient
        free = ~(((alpha <= low) & (gradient > 0)) | ((alpha >= high) & (gradient < 0)))
        if not free.any():
            break
        curvature, axes = np.linalg.eigh(value.hessian[np.ix_(free, free)])
        along = axes.T @ gradient[free]
        size = np.abs(curvature) + damping + 1e-12 * np.abs(curvature).max() + 1e-300
        if float(along @ (along / size)) <= 1e-13 * max(pull, value.loss):
            break
        new = alpha.copy()
        new[free] = np.clip(alpha[free] - axes @ (along / size), low, high)
        tried = family.at(new, pull)
        if tried.objective < value.objective:
            alpha, value, damping = new, tried, damping / 8
        elif damping > 1e12 * np.abs(curvature).max():
            break
        else:
            damping = max(8 * damping, 1e-3 * float(np.abs(curvature).max()))
    return alpha
