"""The formulas of fusion and alpha search once more: float64, whole vocabulary, brute force.

Written from the papers' definitions, sum by sum, with none of the package's shortcuts.
One row at a time. Shapes: E experts, V vocabulary, N candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares, minimize, minimize_scalar

from eftlocal.distributions import Array, Array64

Logits = Array | Array64

Losses = Callable[[Array64], Array64]

_CHUNK = 1 << 18
"""Numbers that one step of a brute force holds at once."""


def log_softmax(logits: Logits) -> Array64:
    """(..., V) normalised log-probs in float64; -inf stays -inf."""
    x = logits.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    normalised: Array64 = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return normalised


def kl(p: Array64, q: Array64) -> Array64:
    """KL(p || q) of finite log-probs (..., V), by its definition."""
    divergence: Array64 = (np.exp(p) * (p - q)).sum(axis=-1)
    return divergence


@dataclass(frozen=True)
class Row:
    """One row's log-probs over the tokens that every model allows.

    Attributes:
        base: (V,) log P.
        tuned, reference: (E, V) log T and log Q of every expert.
    """

    base: Array64
    tuned: Array64
    reference: Array64

    @classmethod
    def of(cls, base: Array, tuned: Array, reference: Array) -> Row:
        """From raw logits (V,), (E, V), (E, V); what any model excludes is left out."""
        keep = np.isfinite(base) & np.isfinite(tuned).all(0) & np.isfinite(reference).all(0)
        rows = [log_softmax(a[..., keep]) for a in (base, tuned, reference)]
        return cls(*rows)

    @property
    def n_experts(self) -> int:
        """E."""
        return len(self.tuned)

    @property
    def targets(self) -> tuple[Array64, Array64]:
        """(E,) KL(T||Q) and (E,) KL(Q||T)."""
        return kl(self.tuned, self.reference), kl(self.reference, self.tuned)

    def divergences(self, alphas: Array64) -> tuple[Array64, Array64]:
        """KL(F||P) and KL(P||F), each (N,), for multipliers (N, E) of the deltas."""
        f, g = np.empty(len(alphas)), np.empty(len(alphas))
        size = max(1, _CHUNK // len(self.base))
        delta = self.tuned - self.reference
        for start in range(0, len(alphas), size):
            part = slice(start, start + size)
            total = self.base + sum(alphas[part, i, None] * delta[i] for i in range(self.n_experts))
            fused = log_softmax(total)
            f[part], g[part] = kl(fused, self.base), kl(self.base, fused)
        return f, g


@dataclass(frozen=True)
class Goal:
    """What is minimised: the loss of DLF (arXiv 2406.15480, equation 6, symmetrised).

    Attributes:
        row: the distributions.
        one_sided: only the terms with KL(F||P), as in the paper's derivation.
        weights: one per expert; then the targets are their |w|-weighted means.
    """

    row: Row
    one_sided: bool = False
    weights: tuple[float, ...] | None = None

    @property
    def directions(self) -> Array64:
        """(D, E): along each of them one alpha is searched, the best of all is taken."""
        if self.weights is None:
            return np.eye(self.row.n_experts)
        return np.array([self.weights])

    def losses(self, multipliers: Array64) -> Array64:
        """(N,) losses of (N, E) multipliers of the deltas."""
        f, g = self.row.divergences(multipliers)
        a, b = self.row.targets
        if self.weights is not None and any(self.weights):
            share = np.abs(self.weights) / np.abs(self.weights).sum()
            a, b = np.array([share @ a]), np.array([share @ b])
        loss: Array64 = ((f[:, None] - a) ** 2).sum(axis=1)
        if not self.one_sided:
            loss = loss + ((g[:, None] - b) ** 2).sum(axis=1)
        return loss

    def loss(self, multipliers: Sequence[float] | Array64) -> float:
        """The loss of one vector (E,) of multipliers."""
        return float(self.losses(np.asarray(multipliers, np.float64)[None])[0])

    def minimum(self, low: float = 0.0, high: float = 2.0) -> float:
        """The smallest loss that one alpha in [low, high] reaches, over all directions."""
        width = len(self.row.base)
        return min(minimise(self.along(d), low, high, width)[1] for d in self.directions)

    def along(self, direction: Array64) -> Losses:
        """The losses of (N,) alphas along one direction (E,)."""
        return lambda alphas: self.losses(alphas[:, None] * direction)


def minimise(losses: Losses, low: float, high: float, n_vocab: int = 1) -> tuple[float, float]:
    """(argument, loss) by brute force: a dense grid, then each of its best minima refined.

    Args:
        losses: (N,) arguments -> (N,) losses.
        low: smallest argument.
        high: largest argument.
        n_vocab: wide rows get fewer points, 201 to 20,001.
    """
    points = np.linspace(low, high, int(np.clip(4_000_000 // n_vocab, 201, 20_001)))
    values = losses(points)
    padded = np.concatenate([[np.inf], values, [np.inf]])
    minima = np.flatnonzero((values <= padded[:-2]) & (values <= padded[2:]))
    best = int(values.argmin())
    point, value = float(points[best]), float(values[best])
    for i in minima[np.argsort(values[minima], kind="stable")][:5]:
        bounds = points[max(i - 1, 0)], points[min(i + 1, len(points) - 1)]
        found = minimize_scalar(
            lambda x: losses(np.array([x]))[0],
            bounds=bounds,
            method="bounded",
            options={"xatol": 1e-12},
        )
        if found.fun < value:
            point, value = float(found.x), float(found.fun)
    return point, value


def local_minima(goal: Goal, n_points: int = 4001) -> Array64:
    """Arguments in [0, 2] of the strict interior local minima for a single expert."""
    points = np.linspace(0, 2, n_points)
    values = goal.losses(points[:, None])
    inner = (values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])
    found: Array64 = points[1:-1][inner]
    return found


def paper_loop(base: Logits, tuned: Logits, reference: Logits) -> tuple[int, int, Array64]:
    """DLF's algorithm for one row (V,), (E, V), (E, V), symmetrised, transcribed step by step.

    For every expert t and alpha = 0, 0.1, ..., 2: fuse with expert t alone, add up the squared
    differences over all experts, keep the first smallest. The minimum starts anew at each row.

    Returns:
        The expert, k of alpha = k / 10, and all losses (E, 21).
    """
    p, q, t = log_softmax(base), log_softmax(reference), log_softmax(tuned)
    smallest, expert, step = np.inf, -1, -1
    losses = np.empty((len(tuned), 21))
    for i in range(len(tuned)):
        for k in range(21):
            fused = log_softmax(p + k / 10 * (t[i] - q[i]))
            up, down = kl(fused, p), kl(p, fused)
            loss = 0.0
            for j in range(len(tuned)):
                loss += float(up - kl(t[j], q[j])) ** 2 + float(down - kl(q[j], t[j])) ** 2
            losses[i, k] = loss
            if loss < smallest:
                smallest, expert, step = loss, i, k
    return expert, step, losses


@dataclass(frozen=True)
class Joint:
    """What brute force knows about the joint search of one row.

    Attributes:
        loss: the smallest loss found in the box.
        distance: of the nearest found minimiser from (1/E, ..., 1/E).
        alpha: (E,) that minimiser.
    """

    loss: float
    distance: float
    alpha: Array64


def joint_minimum(goal: Goal, low: float = 0.0, high: float = 2.0, seed: int = 0) -> Joint:
    """Minimise over the box [low, high]^E: dense grid, many refined starts, then the nearest.

    All minimisers share KL(F||P) and KL(P||F) up to ties, so the nearest one is looked for under
    these two equations (SLSQP from every minimiser that was found).
    """
    experts = goal.row.n_experts
    axis = np.linspace(low, high, {1: 20_001, 2: 201, 3: 31}[experts])
    grid = np.stack(np.meshgrid(*[axis] * experts, indexing="ij"), axis=-1).reshape(-1, experts)
    values = goal.losses(grid)
    rng = np.random.default_rng(seed)
    middle = np.clip(np.full(experts, 1 / experts), low, high)
    starts = [
        middle,
        *grid[np.argsort(values, kind="stable")[:6]],
        *rng.uniform(low, high, (4, experts)),
    ]
    target = [float(mean.mean()) for mean in goal.row.targets]

    def residuals(x: Array64) -> Array64:
        f, g = goal.row.divergences(x[None])
        return np.array([f[0] - target[0], 0.0 if goal.one_sided else g[0] - target[1]])

    found = [
        least_squares(residuals, x, bounds=(low, high), xtol=1e-15, ftol=1e-15, gtol=1e-15).x
        for x in starts
    ]
    candidates = [*found, *grid[values <= values.min() + 1e-12]]
    scores = np.array([goal.loss(x) for x in candidates])
    smallest = float(scores.min())
    slack = 1e-10 * max(1.0, smallest)
    best = [x for x, score in zip(candidates, scores, strict=True) if score <= smallest + slack]
    best += [
        y for x in best[:8] for y in [_nearer(residuals, x, middle, low, high)]
        if goal.loss(y) <= smallest + slack
    ]  # fmt: skip
    nearest = min(best, key=lambda x: float(np.linalg.norm(x - middle)))
    return Joint(smallest, float(np.linalg.norm(nearest - middle)), nearest)


def _nearer(
    residuals: Callable[[Array64], Array64],
    start: Array64,
    middle: Array64,
    low: float,
    high: float,
) -> Array64:
    """Slide along equal residuals towards `middle`."""
    wanted = residuals(start)
    found = minimize(
        lambda x: float(((x - middle) ** 2).sum()),
        start,
        method="SLSQP",
        bounds=[(low, high)] * len(start),
        constraints={"type": "eq", "fun": lambda x: residuals(x) - wanted},
        options={"ftol": 1e-14, "maxiter": 300},
    )
    slid: Array64 = np.clip(found.x, low, high)
    return slid


def filtered_base(row: Row, weights: Sequence[float], top_p: float) -> tuple[Array64, Array64]:
    """The base behind EFT's top-p filter (arXiv 2310.12962, section 3.3), by sorting.

    S is the smallest set of tokens to which T' gives at least top_p; outside it Q' stands in for
    P. T' and Q' mix the experts by weight; for one expert they are T and Q. A top_p of 1 is off.

    Returns:
        (V,) log-probs up to a constant, and (V,) how far the sum before each token's place in the
        order lies below top_p: positive inside S.
    """
    if top_p >= 1:
        return row.base, np.full_like(row.base, np.inf)
    share = np.abs(weights) / np.abs(weights).sum()
    q = share @ row.reference
    t = log_softmax(q + np.asarray(weights) @ (row.tuned - row.reference))
    order = np.argsort(-t, kind="stable")
    probability = np.exp(t[order])
    before = np.cumsum(probability) - probability
    margin = np.empty_like(t)
    margin[order] = top_p - before
    return np.where(margin > 0, row.base, q), margin
