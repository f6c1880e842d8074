"""The lowest point of the loss along one curve, although it may have several minima.

The curves f and g of `curve.Curve` fall on the left of alpha = 0 and rise on its right. Between
two known points both therefore lie in a box, and where neither f nor g can cross its target in
between, the loss has no minimum there. Other cells are looked at through a cubic through values
and slopes, with an estimate of how far off that may be; where the minimum is left open they are
divided. The minima that remain are polished by Newton's steps on the whole vocabulary.

The numbers are few, so plain Python is quicker here than NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ..distributions import Array64
from .curve import Curve, Point, Targets

_NODES_PER_UNIT = 8
_MOST_NODES = 4097
# Parts of the unit of loss: what the outline may be wrong by, and what a minimum may be, in
# float32 and in float64.
_ROUGH, _FINE, _FINER = 2e-3, 4e-7, 1e-9
# Alphas that are one minimum, not two.
_APART = 0.02
# A cubic is better than the mismatch between a cell's chord and its slopes by more than this.
_CUBIC_GAIN = 4.0
# Over two cells it is 16 times worse than over one; it counts as 2.
_MISSED_GAIN = 2.0
# Where it may be further off than this part of the cell's box, all of the box is possible.
_SMOOTH = 0.1
_PARTS = (0.25, 0.5, 0.75)
_MOST_ROUNDS, _MOST_ADDED, _MOST_STEPS = 60, 1000, 60
_STEPS = 8
_BASIS = [
    ((1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t), t * (1 - t) ** 2, t * t * (t - 1), t)
    for t in (step / _STEPS for step in range(1, _STEPS))
]
"""Hermite's weights of the left and right value and of the left and right slope, at t."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """What may lie between two neighbouring points.

    Attributes:
        left: index of its left point.
        inside: (alpha, loss) in between, estimated.
        at_best: the least loss that is possible.
        is_rough: whether anything in the box is possible.
    """

    left: int
    inside: list[tuple[float, float]]
    at_best: float
    is_rough: bool


@dataclass(frozen=True, slots=True)
class _Outline:
    """Known points, the cells that may hide a minimum, and (alpha, loss) along all of them."""

    points: list[Point]
    cells: list[_Cell]
    losses: list[tuple[float, float]]


def lowest(curve: Curve, targets: Targets) -> tuple[float, float]:
    """The alpha with the least loss on [low, high], and that loss.

    The unit of loss is L, or L at alpha = 0 where that is more, but then at most 1. Every minimum
    of the outline within 4e-3 units of its lowest value is polished over the whole vocabulary,
    until Newton's own estimate of what is left, slope^2 / (2 * curvature), is 4e-7 units (1e-9 in
    float64). Of equal minima the one nearest 1 is taken.
    """
    if curve.low >= 0 and _falls_to_the_end(curve.at(curve.high), targets):
        return _settled(curve, targets, curve.high)
    nodes = _even_nodes(curve.low, curve.high)
    outline = _outline(curve.points(nodes), targets)
    found: list[tuple[float, float]] = []
    is_sure = not _doubtful(outline, targets)
    if is_sure:
        found, is_sure = _all_polished(curve, targets, outline, smooth=True)
    if not is_sure:
        outline = _refined(curve, targets, curve.points(nodes, exact=True))
        found, _ = _all_polished(curve, targets, outline, smooth=False)
    best = min(loss for _, loss in found)
    # What differs by no more than rounding is a tie, which the outline may show as a plateau.
    equal = best + 1e-12 + 1e-6 * best**0.5
    alpha = min((a for a, loss in found if loss <= equal), key=_from_one)
    plateau = min((a for a, loss in outline.losses if loss <= equal), key=_from_one, default=alpha)
    if _from_one(plateau) < _from_one(alpha) - _APART and targets.loss(curve.at(plateau)) <= equal:
        alpha = plateau
    return _settled(curve, targets, alpha)


def _falls_to_the_end(end: Point, targets: Targets) -> bool:
    """Whether f and g, which rise with alpha, never reach their targets, and L falls at the end.

    Then it falls all the way, unless by so little that other alphas are as good.
    """
    below = end.f < targets.f and (end.g < targets.g or not targets.both)
    loss = targets.loss(end)
    return below and -targets.slope(end) * _APART > 1e-12 + 1e-6 * loss**0.5


def first_lowest(curve: Curve, targets: Targets, grid: Array64) -> tuple[float, float]:
    """The first of a few alphas with the least loss over the whole vocabulary, and that loss."""
    for exact in (False, True):
        points = curve.points(grid, exact=exact)
        losses = [targets.loss(point) for point in points]
        unit = _unit(min(losses), targets)
        near = [i for i, loss in enumerate(losses) if loss <= min(losses) + 2 * _ROUGH * unit]
        found = [(targets.loss(curve.at(points[i].alpha)), i) for i in near]
        if all(abs(losses[i] - loss) <= _ROUGH * unit for loss, i in found):
            break
    return _settled(curve, targets, points[min(found)[1]].alpha)


def _from_one(alpha: float) -> float:
    return abs(alpha - 1)


def _unit(loss: float, targets: Targets) -> float:
    """What errors of a loss are measured in: the loss, or what it may be without a delta."""
    return max(loss, min(1.0, targets.f**2 + targets.both * targets.g**2), 1e-6)


def _settled(curve: Curve, targets: Targets, alpha: float) -> tuple[float, float]:
    """Alpha and its loss, with the curve's logits at it."""
    if curve.point is None or curve.point.alpha != alpha:
        curve.at(alpha)
    assert curve.point is not None
    return alpha, targets.loss(curve.point)


@lru_cache(maxsize=8)
def _even_nodes(low: float, high: float) -> Array64:
    """Evenly spaced alphas, and 0, where the curves turn."""
    count = int(_NODES_PER_UNIT * (high - low) + 1.5)
    nodes = np.linspace(low, high, min(max(count, 3), _MOST_NODES))
    if low < 0 < high:
        nodes = np.unique(np.append(nodes, 0.0))
    nodes.flags.writeable = False
    return nodes


def _refined(curve: Curve, targets: Targets, points: list[Point]) -> _Outline:
    """Divide cells until none can hide a minimum that the outline does not show."""
    most = len(points) + _MOST_ADDED
    for _ in range(_MOST_ROUNDS):
        outline = _outline(points, targets)
        doubtful = _doubtful(outline, targets)
        if not doubtful or len(points) > most:
            break
        added = [
            curve.at((1 - part) * points[cell.left].alpha + part * points[cell.left + 1].alpha)
            for cell in doubtful
            for part in _PARTS
        ]
        points = sorted({point.alpha: point for point in (*points, *added)}.values())
    return outline


def _doubtful(outline: _Outline, targets: Targets) -> list[_Cell]:
    """The cells where the loss may be lower than the lowest one shown.

    Next to the lowest place, in whose basin Newton's steps will go, only much lower counts.
    """
    place, least = min(outline.losses, key=lambda pair: pair[1])
    unit = _unit(least, targets)
    doubtful = []
    for cell in outline.cells:
        left, right = outline.points[cell.left].alpha, outline.points[cell.left + 1].alpha
        is_next = left - (right - left) <= place <= right + (right - left)
        allowed = _ROUGH if is_next else _FINE
        excess = cell.at_best - least + (-_FINE if cell.is_rough else allowed) * unit
        if excess < 0:
            doubtful.append(cell)
    return doubtful


def _outline(points: list[Point], targets: Targets) -> _Outline:
    """Look into every cell that may hide the lowest minimum."""
    losses = [(point.alpha, targets.loss(point)) for point in points]
    least = min(loss for _, loss in losses)
    enough = least + 2 * _ROUGH * _unit(least, targets)
    cells = [
        _look_into(points, left, targets)
        for left, (a, b) in enumerate(pairwise(points))
        if _may_cross(a, b, targets) and _least_in(a, b, targets) <= enough
    ]
    losses += (pair for cell in cells for pair in cell.inside)
    return _Outline(points, cells, sorted(losses))


def _may_cross(a: Point, b: Point, targets: Targets) -> bool:
    """Whether the loss may have a minimum between two points.

    f and g go the same way, so it has none while both are above, or both below, their targets.
    """
    f, g = targets.f, targets.g
    if not targets.both:
        return a.f < f < b.f or b.f < f < a.f
    above = a.f >= f and a.g >= g and b.f >= f and b.g >= g
    return not above and not (a.f <= f and a.g <= g and b.f <= f and b.g <= g)


def _least_in(a: Point, b: Point, targets: Targets) -> float:
    """No loss between two points is lower: f and g stay between their ends."""
    f = max(min(a.f, b.f) - targets.f, targets.f - max(a.f, b.f), 0.0)
    g = max(min(a.g, b.g) - targets.g, targets.g - max(a.g, b.g), 0.0)
    return f * f + g * g if targets.both else f * f


def _look_into(points: list[Point], left: int, targets: Targets) -> _Cell:
    """Estimate the loss in one cell."""
    a, b = points[left], points[left + 1]
    width = b.alpha - a.alpha
    sides = [(a.f, b.f, width * a.df, width * b.df, targets.f)]
    if targets.both:
        sides.append((a.g, b.g, width * a.dg, width * b.dg, targets.g))
    losses, at_best = [0.0] * len(_BASIS), [0.0] * len(_BASIS)
    is_rough = False
    # A cell too narrow to be divided, or lower than rounding, is what its ends are.
    is_narrow = width <= 1e-13 * (1 + abs(b.alpha))
    is_narrow = is_narrow or all(abs(y1 - y0) <= targets.noise for y0, y1, *_ in sides)
    missed = [
        max(pair) for pair in zip(_missed(points, left), _missed(points, left + 1), strict=True)
    ]
    for (y0, y1, d0, d1, target), miss in zip(sides, missed, strict=False):
        box, low, high = abs(y1 - y0), min(y0, y1), max(y0, y1)
        off = abs(y1 - y0 - (d0 + d1) / 2) / _CUBIC_GAIN + miss / _MISSED_GAIN
        if off <= targets.noise:
            off = 0.0
        elif off > _SMOOTH * box and box > targets.noise and not is_narrow:
            is_rough, off = True, box
        for i, (h0, h1, k0, k1, _) in enumerate(_BASIS):
            value = h0 * y0 + h1 * y1 + k0 * d0 + k1 * d1
            apart = abs((low if value < low else high if value > high else value) - target)
            losses[i] += apart * apart
            if apart > off:
                at_best[i] += (apart - off) ** 2
    inside = [
        (a.alpha + basis[4] * width, loss) for basis, loss in zip(_BASIS, losses, strict=True)
    ]
    return _Cell(left, [] if is_narrow else inside, np.inf if is_narrow else min(at_best), is_rough)


def _missed(points: list[Point], place: int) -> tuple[float, float]:
    """How far the cubic through its neighbours misses an inner point, in f and in g."""
    if not 0 < place < len(points) - 1:
        return 0.0, 0.0
    a, p, b = points[place - 1 : place + 2]
    wide = b.alpha - a.alpha
    t = (p.alpha - a.alpha) / wide
    u = 1 - t
    h0, h1, k0, k1 = (1 + 2 * t) * u * u, t * t * (3 - 2 * t), wide * t * u * u, -wide * t * t * u
    f = h0 * a.f + h1 * b.f + k0 * a.df + k1 * b.df
    g = h0 * a.g + h1 * b.g + k0 * a.dg + k1 * b.dg
    return abs(f - p.f), abs(g - p.g)


def _minima(outline: _Outline, targets: Targets) -> Iterator[list[tuple[float, float]]]:
    """(alpha, loss) of the minima that may be the lowest one, each with its neighbours."""
    losses = outline.losses
    least = min(loss for _, loss in losses)
    near = least + 2 * _ROUGH * _unit(least, targets)
    before = np.inf
    for i, (_, loss) in enumerate(losses):
        if loss <= near and loss < before and (i + 1 == len(losses) or loss <= losses[i + 1][1]):
            yield losses[max(i - 1, 0) : i + 2] if 0 < i < len(losses) - 1 else [losses[i]]
        before = loss


def _all_polished(
    curve: Curve, targets: Targets, outline: _Outline, *, smooth: bool
) -> tuple[list[tuple[float, float]], bool]:
    """(alpha, loss) of all minima that may be lowest, and whether the outline was right there."""
    found, right = [], True
    for places in _minima(outline, targets):
        place, estimate = min(places, key=lambda pair: pair[1])
        alpha, curvature = _vertex(places)
        # What gains nothing stays where it is, at 1 for example.
        if curvature / 2 * (alpha - place) ** 2 <= _FINER * _unit(estimate, targets):
            alpha = place
        loss = targets.loss(curve.at(alpha))
        right = right and abs(loss - estimate) <= 2 * _ROUGH * _unit(loss, targets)
        if not smooth and loss > estimate and alpha != place:
            curve.at(place)
        found.append(_polished(curve, targets, curvature if smooth else 0.0))
    return found, right


def _vertex(places: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Lowest point and curvature of the parabola through a minimum and its neighbours."""
    if len(places) == 1:
        return places[0][0], 0.0
    (x0, y0), (x1, y1), (x2, y2) = places
    if not x0 < x1 < x2:
        return x1, 0.0
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = 2 * (right - left) / (x2 - x0)
    if curvature <= 0:
        return x1, 0.0
    slope = left + curvature * (x1 - x0) / 2
    return min(max(x1 - slope / curvature, x0), x2), curvature


def _polished(curve: Curve, targets: Targets, curvature: float) -> tuple[float, float]:
    """Newton's steps from the curve's point, kept between falling and rising slopes.

    A curvature of 0 is not known yet.
    """
    low, high = curve.low, curve.high
    fine = _FINER if curve.is_double else _FINE
    point = curve.point
    assert point is not None
    best, before = (point.alpha, np.inf), (point.alpha, 0.0)
    reach = 1 / (_NODES_PER_UNIT * _STEPS)
    for _ in range(_MOST_STEPS):
        alpha = point.alpha
        loss, slope = targets.loss(point), targets.slope(point)
        best = min(best, (alpha, loss), key=lambda pair: pair[1])
        if alpha != before[0]:
            curvature = (slope - before[1]) / (alpha - before[0])
        before = alpha, slope
        low, high = (low, alpha) if slope > 0 else (alpha, high)
        enough = slope**2 <= 2 * curvature * fine * _unit(loss, targets)
        if slope == 0 or enough or not low < high:
            break
        if curvature <= 0:
            # Gauss and Newton's, which leaves out how the curves bend.
            curvature = 2 * (point.df**2 + targets.both * point.dg**2)
        step = -slope / curvature if curvature > 0 else -reach if slope > 0 else reach
        alpha += min(max(step, -reach), reach)
        reach *= 2
        if not low < alpha < high:
            at_end = (alpha <= low == curve.low) or (alpha >= high == curve.high)
            alpha = min(max(alpha, low), high) if at_end else (low + high) / 2
        if alpha == before[0]:
            break
        point = curve.at(alpha)
    return best
