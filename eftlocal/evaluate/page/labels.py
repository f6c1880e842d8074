"""Where the labels of points go: beside their points, over nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_ANGLES = (45, 0, 90, 135, 180, 225, 270, 315)
"""Degrees, the best place first."""
_DISTANCES = (6.0, 12.0, 20.0, 30.0, 42.0, 56.0, 72.0, 90.0)
_LABEL_COST, _POINT_COST, _SEGMENT_COST, _OUTSIDE_COST = 1000.0, 30.0, 8.0, 300.0
_STEPS = 24
"""Places at which a segment is tested."""


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two have an area in common."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.top <= other.bottom or other.top <= self.bottom)

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies within."""
        return self.left < x < self.right and self.bottom < y < self.top

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box that is nearest to a place."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)


Place = tuple[float, float]
Segment = tuple[Place, Place]


@dataclass(frozen=True)
class Surroundings:
    """What labels should not cover, in pixels.

    Attributes:
        frame: within which they lie.
        points: marks.
        segments: lines.
    """

    frame: Box
    points: Sequence[Place]
    segments: Sequence[Segment]


def place(anchors: Sequence[Place], sizes: Sequence[Place], around: Surroundings) -> list[Box]:
    """A box for every label, one after the other, each where it covers least.

    Args:
        anchors: the points that are named.
        sizes: widths and heights of the labels.
        around: what else is drawn.
    """
    traces = [_along(segment) for segment in around.segments]
    boxes: list[Box] = []
    for anchor, size in zip(anchors, sizes, strict=True):
        candidates = [
            _beside(anchor, size, angle, distance) for distance in _DISTANCES for angle in _ANGLES
        ]
        costs = [
            _cost(box, boxes, around, traces) + 0.2 * _DISTANCES[i // len(_ANGLES)]
            for i, box in enumerate(candidates)
        ]
        boxes.append(candidates[costs.index(min(costs))])
    return boxes


def _beside(anchor: Place, size: Place, angle: float, distance: float) -> Box:
    """The box that touches a circle around its point in one direction."""
    across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    middle_x = anchor[0] + across * (distance + size[0] / 2)
    middle_y = anchor[1] + up * (distance + size[1] / 2)
    half_width, half_height = size[0] / 2, size[1] / 2
    return Box(
        middle_x - half_width, middle_y - half_height, middle_x + half_width, middle_y + half_height
    )


def _along(segment: Segment) -> list[Place]:
    (x0, y0), (x1, y1) = segment
    shares = [i / _STEPS for i in range(_STEPS + 1)]
    return [(x0 + share * (x1 - x0), y0 + share * (y1 - y0)) for share in shares]


def _cost(
    box: Box, boxes: Sequence[Box], around: Surroundings, traces: Sequence[Sequence[Place]]
) -> float:
    frame = around.frame
    inside = (
        frame.left <= box.left
        and box.right <= frame.right
        and frame.bottom <= box.bottom
        and box.top <= frame.top
    )
    cost = 0.0 if inside else _OUTSIDE_COST
    cost += _LABEL_COST * sum(box.overlaps(other) for other in boxes)
    near = Box(box.left - 4, box.bottom - 4, box.right + 4, box.top + 4)
    cost += _POINT_COST * sum(near.holds(*point) for point in around.points)
    return cost + _SEGMENT_COST * sum(any(box.holds(*p) for p in trace) for trace in traces)
