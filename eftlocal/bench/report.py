"""What was measured, as tables and charts that the terminal, JSON and the page share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import tables
from ..tables import Cell, Column

__all__ = ["Bars", "Cell", "Chart", "Column", "Report", "Series", "Table"]


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart: its name and its points (x, y), x ascending."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over a common axis, whose steps are equally wide.

    Attributes:
        title: what is shown.
        x, y: names of the axes.
        level: a height that lines are compared with, such as 1 for "no gain".
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    level: float | None = None


@dataclass(frozen=True, slots=True)
class Bars:
    """A bar per name; `level` is a number that they are compared with."""

    title: str
    x: str
    bars: tuple[tuple[str, float], ...]
    level: float | None = None


@dataclass(frozen=True, slots=True)
class Table(tables.Table):
    """A table with a chart of it."""

    chart: Chart | Bars | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All tables of one run.

    Attributes:
        facts: what was measured, and on what.
        tables: section -> its tables.
    """

    facts: Mapping[str, str]
    tables: Mapping[str, tuple[Table, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON's types."""
        sections = {name: [t.to_json() for t in tables] for name, tables in self.tables.items()}
        return {"facts": dict(self.facts), "sections": sections}
