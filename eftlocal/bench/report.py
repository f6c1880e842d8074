"""What was measured, as tables and charts that the terminal, JSON and the page share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Cell = str | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        key: its name in JSON, with its unit.
        name: its heading.
        digits: after the point; ignored for texts.
    """

    key: str
    name: str
    digits: int = 0

    def text(self, cell: Cell) -> str:
        """A cell as it is shown; "-" where there is nothing to say."""
        if cell is None:
            return "-"
        return cell if isinstance(cell, str) else f"{cell:,.{self.digits}f}"


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
class Table:
    """Rows of cells under columns, with what a reader should know, and a chart of them."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    chart: Chart | Bars | None = None

    def is_number(self, index: int) -> bool:
        """Whether a column holds numbers."""
        return not any(isinstance(row[index], str) for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """The table with one object per row."""
        keys = [column.key for column in self.columns]
        rows = [dict(zip(keys, row, strict=True)) for row in self.rows]
        return {"title": self.title, "notes": list(self.notes), "rows": rows}


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
