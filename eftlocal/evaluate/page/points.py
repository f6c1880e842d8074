"""The points of figures as numbers and words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...tables import Estimate
from ..report import Figure


def plain(text: str) -> str:
    """A text that XML can hold: no control characters, no halves of characters."""
    kept = "".join(" " if char < " " or "\x7f" <= char <= "\x9f" else char for char in text)
    kept = kept.replace("\ufffe", " ").replace("\uffff", " ")
    return kept.encode("utf-8", "replace").decode("utf-8")


def number(value: float | Estimate) -> str:
    """A number as titles tell it, with its interval."""
    if isinstance(value, Estimate):
        return f"{number(value.value)} [{number(value.low)}, {number(value.high)}]"
    return f"{value + 0.0:.4g}"


def categories(figure: Figure) -> list[str]:
    """The names of the places 0, 1, 2 ... of x, where labels name places and not points.

    They do where every x is such a whole number without an interval, every point has a label, and
    all points of a place have the same.
    """
    names: dict[float, str] = {}
    for point in (p for line in figure.lines if line.style != "level" for p in line.points):
        if isinstance(point.x, Estimate) or not point.label:
            return []
        if names.setdefault(point.x, point.label) != point.label:
            return []
    return [names[x] for x in sorted(names)] if sorted(names) == [*range(len(names))] else []


def middle(value: float | Estimate) -> float:
    """A coordinate without its interval."""
    return value.value if isinstance(value, Estimate) else value


def ends(value: float | Estimate) -> tuple[float, float]:
    """The interval around a number; the number itself where there is none."""
    if isinstance(value, Estimate) and math.isfinite(value.low + value.high):
        return min(value.low, value.value), max(value.high, value.value)
    return middle(value), middle(value)


def reaches(values: Sequence[float | Estimate]) -> list[list[float]]:
    """How far intervals go below and above their numbers, as matplotlib wants it."""
    all_of = [(middle(value), *ends(value)) for value in values]
    return [[at - low for at, low, _ in all_of], [high - at for at, _, high in all_of]]
