"""Tables of what was measured, alike in the terminal, in JSON and on pages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; NaN where either is not defined."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """As "0.83 [0.79, 0.87]"; "0.83" without an interval, "-" where it is not defined."""
        if math.isnan(self.value):
            return "-"
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{round(self.value, digits) + 0.0:.{digits}f}"
        # Adding 0 turns a negative zero into zero.
        value, low, high = (round(x, digits) + 0.0 for x in (self.value, self.low, self.high))
        return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    def to_json(self) -> dict[str, float | None]:
        """The three numbers; null where they are not defined."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: x if math.isfinite(x) else None for name, x in numbers.items()}


Cell = str | float | Estimate | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        key: its name in JSON, with its unit.
        name: its heading.
        digits: after the point; ignored for texts.
        is_time: whether its numbers are measured by the clock, so that no two runs agree on them.
    """

    key: str
    name: str
    digits: int = 0
    is_time: bool = False

    def text(self, cell: Cell) -> str:
        """A cell as it is shown; "-" where there is nothing to say."""
        if cell is None:
            return "-"
        if isinstance(cell, Estimate):
            return cell.text(self.digits)
        return cell if isinstance(cell, str) else f"{cell:,.{self.digits}f}"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under columns, with what a reader should know."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def is_number(self, index: int) -> bool:
        """Whether a column holds numbers."""
        return not any(isinstance(row[index], str) for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """The table with one object per row; what the clock said is in its object "times"."""
        rows = []
        for row in self.rows:
            kinds: dict[bool, dict[str, Any]] = {False: {}, True: {}}
            for column, cell in zip(self.columns, row, strict=True):
                value = cell.to_json() if isinstance(cell, Estimate) else cell
                kinds[column.is_time][column.key] = value
            rows.append({**kinds[False], **({"times": kinds[True]} if kinds[True] else {})})
        return {"title": self.title, "notes": list(self.notes), "rows": rows}

    def to_text(self) -> str:
        """The table as it is read in a terminal; numbers are set to the right."""
        lines = [[column.name for column in self.columns]]
        lines += [
            [column.text(cell) for column, cell in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [self.title]
        for line in lines:
            texts = [
                f"{text:>{width}}" if self.is_number(i) else f"{text:<{width}}"
                for i, (text, width) in enumerate(zip(line, widths, strict=True))
            ]
            shown.append("  " + "  ".join(texts).rstrip())
        return "\n".join([*shown, *(f"  ({note})" for note in self.notes)])

    def to_html(self) -> str:
        """The table element; cells of numbers have the class "number", of times "time" too."""
        head = "".join(
            f"<th{self._kind(i)}>{escape(column.name)}</th>"
            for i, column in enumerate(self.columns)
        )
        rows = []
        for row in self.rows:
            cells = "".join(
                f"<td{self._kind(i)}>{escape(self.columns[i].text(cell))}</td>"
                for i, cell in enumerate(row)
            )
            rows.append(f"<tr>{cells}</tr>")
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

    def _kind(self, index: int) -> str:
        kinds = ["number"] if self.is_number(index) else []
        kinds += ["time"] if self.columns[index].is_time else []
        return f' class="{" ".join(kinds)}"' if kinds else ""
